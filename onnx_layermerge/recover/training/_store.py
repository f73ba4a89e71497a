"""New values for a model's own initializers; everything else of the file stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["is_float", "put_back"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def is_float(dtype: ir.DataType | None) -> bool:
    """Whether values of the type can be learned."""
    return dtype in _FLOATS


def put_back(model: ir.Model, weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Give initializers of ``model`` (by name) new values in the types they have, rounded to nearest; in place.

    One whose values do not change keeps its bits, and its place in a data file.

    Returns:
        The names of those that changed.
    """
    changed = []
    for name, array in weights.items():
        value = model.graph.initializers[name]
        old = value.const_value
        if old is None or not is_float(old.dtype):
            raise ValueError(f"'{name}' is no initializer of floats")
        dtype = old.dtype.numpy()
        if old.dtype == ir.DataType.FLOAT16:  # what is too large for it would become infinite
            array = np.clip(array, -np.finfo(np.float16).max, np.finfo(np.float16).max)
        new = np.ascontiguousarray(array.reshape(old.numpy().shape).astype(dtype))
        if new.tobytes() != np.ascontiguousarray(old.numpy()).tobytes():
            value.const_value = ir.Tensor(new, dtype=old.dtype, name=name)
            changed.append(name)
    return tuple(changed)
