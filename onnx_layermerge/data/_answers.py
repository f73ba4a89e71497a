"""What a model answers to samples, before anything is concluded from it.

1. An answer that is NaN or infinite can be compared with nothing, and what lies before it cannot be fitted.
2. A model that answers all samples alike shows nothing by doing so again: with one class on top, or, where it is dead
   or the samples are in a wrong range, with the very same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._joined import Layout, gather
from onnx_layermerge.data._specs import Arrays
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session

__all__ = ["answers", "constant_outputs", "same_answer", "same_values"]

PROBES = 64
# Distance between two samples' values over their length, below which it is rounding.
ROUNDING = 1e-6
# Attributes through which a node reads values that are not its inputs.
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def answers(
    model: ir.Model, parts: Sequence[Calibration], batch: int, *, limit: int = PROBES
) -> tuple[Arrays, Layout]:
    """The outputs for at most ``limit`` samples of each of ``parts``, [N, …] by name, less those whose size depends on
    the data, and how they were joined; of those that no input decides on no axis counts samples.

    Raises:
        DataError: a value among them is NaN or infinite; the message names the output and counts the batches.  Or the
            size of every output depends on the data.
    """
    session = Session(model)
    taken = [part.take(max(batch, min(limit, len(part)))) for part in parts]
    found, layout = gather(session.run, chain.from_iterable(part.batches(batch) for part in taken))
    for name in session.outputs:
        bad = sum(_not_finite(part[name]) for part in found)
        if bad:
            raise DataError(
                f"The model's output '{name}' is NaN or infinite in {bad} of {len(found)} batches of "
                f"{parts[0].source}: check the range of the samples, or repair the model."
            )
    return layout.join(found), layout.without(constant_outputs(model))


def constant_outputs(model: ir.Model) -> frozenset[str]:
    """Names of the outputs that no value of an input decides on: constants, and what only sizes do."""
    told = set(model.graph.inputs)
    for node in model.graph:
        nested = any(attribute.type in _GRAPHS for attribute in node.attributes.values())
        if nested or (node.op_type not in ("Shape", "Size") and any(value in told for value in node.inputs)):
            told.update(node.outputs)
    return frozenset(str(value.name) for value in model.graph.outputs if value not in told)


def same_values(outputs: Mapping[str, np.ndarray], layout: Layout) -> tuple[str, ...]:
    """Joined outputs of numbers that are the same for all of two samples or more, up to rounding."""
    if layout.samples < 2:
        return ()
    rows = layout.rows(outputs)
    return tuple(name for name, values in rows.items() if values.dtype.kind in "biuf" and _alike(values))


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
