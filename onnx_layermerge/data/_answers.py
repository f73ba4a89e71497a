"""What a model answers to samples, before anything is concluded from it.

1. An answer that is NaN or infinite can be compared with nothing, and what lies before it cannot be fitted.
2. A model that answers all samples alike shows nothing by doing so again: with one class on top, or, where it is dead
   or the samples are in a wrong range, with the very same values.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._joined import gather
from onnx_layermerge.data._specs import Arrays
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session

__all__ = ["answers", "same_answer", "same_values"]

PROBES = 64
# Distance between two samples' values over their length, below which it is rounding.
ROUNDING = 1e-6


def answers(model: ir.Model, data: Calibration, batch: int, *, limit: int = PROBES) -> tuple[Arrays, int]:
    """The outputs for at most ``limit`` of the samples, [N, …] by name, less those whose size depends on the data; N.

    Raises:
        DataError: a value among them is NaN or infinite; the message names the output and counts the batches.  Or the
            size of every output depends on the data.
    """
    session = Session(model)
    taken = data.take(max(batch, min(limit, len(data))))
    parts, layout = gather(session.run, taken.batches(batch))
    for name in session.outputs:
        bad = sum(_not_finite(part[name]) for part in parts)
        if bad:
            raise DataError(
                f"The model's output '{name}' is NaN or infinite in {bad} of {len(parts)} batches of {data.source}: "
                "check the range of the samples, or repair the model."
            )
    return layout.join(parts), layout.samples


def same_values(outputs: Mapping[str, np.ndarray], samples: int) -> tuple[str, ...]:
    """Outputs with a row for each of two ``samples`` or more that are the same for all, up to rounding; of numbers."""
    there = {name: values for name, values in outputs.items() if len(values) == samples > 1 and values.size}
    return tuple(name for name, values in there.items() if values.dtype.kind in "biuf" and _alike(values))


def same_answer(outputs: Mapping[str, np.ndarray]) -> float | None:
    """The largest share of samples with one and the same top-1, over outputs of class scores [N, ≥ 2]; None without."""
    shares = [
        float(np.bincount(values.argmax(axis=1)).max() / len(values))
        for values in outputs.values()
        if values.ndim == 2 and values.shape[1] >= 2 and len(values) and np.issubdtype(values.dtype, np.floating)
    ]
    return max(shares, default=None)


def _alike(values: np.ndarray) -> bool:
    first = values[0].astype(np.float64)
    length = np.linalg.norm(first)
    # Almost always the second sample says no.
    for value in values[1:]:
        other = value.astype(np.float64)
        if np.linalg.norm(other - first) > ROUNDING * max(length, np.linalg.norm(other)):
            return False
    return True


def _not_finite(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.floating) and not bool(np.isfinite(values).all())
