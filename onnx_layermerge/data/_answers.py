"""What a model answers to samples, before anything is concluded from it.

1. An answer that is NaN or infinite can be compared with nothing, and what lies before it cannot be fitted.
2. A model that answers all samples alike shows nothing by doing so again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._specs import Arrays
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session

__all__ = ["answers", "same_answer"]

PROBES = 64


def answers(model: ir.Model, data: Calibration, batch: int, *, limit: int = PROBES) -> Arrays:
    """All outputs for at most ``limit`` of the samples, [N, …] by name.

    Raises:
        DataError: a value among them is NaN or infinite; the message names the output and counts the batches.
    """
    session, parts = Session(model), []
    taken = data.take(max(batch, min(limit, len(data))))
    for feeds in taken.batches(batch):
        parts.append({name: np.atleast_1d(value) for name, value in session.run(feeds).items()})
    for name in session.outputs:
        bad = sum(_not_finite(part[name]) for part in parts)
        if bad:
            raise DataError(
                f"The model's output '{name}' is NaN or infinite in {bad} of {len(parts)} batches of {data.source}: "
                "check the range of the samples, or repair the model."
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in session.outputs}


def same_answer(outputs: Mapping[str, np.ndarray]) -> float | None:
    """The largest share of samples with one and the same top-1, over outputs of class scores [N, ≥ 2]; None without."""
    shares = [
        float(np.bincount(values.argmax(axis=1)).max() / len(values))
        for values in outputs.values()
        if values.ndim == 2 and values.shape[1] >= 2 and len(values) and np.issubdtype(values.dtype, np.floating)
    ]
    return max(shares, default=None)


def _not_finite(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.floating) and not bool(np.isfinite(values).all())
