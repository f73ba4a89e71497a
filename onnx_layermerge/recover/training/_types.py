"""Types: what is computed in which, and arrays of a model as tensors.

All floats but float64 are computed in float32, whatever the file keeps them in; a step of training is far smaller than
what float16 can tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from onnx_layermerge.recover.training._store import is_float

if TYPE_CHECKING:
    from onnx_layermerge.recover.training._call import Call

__all__ = ["tensor_of", "torch_type"]

_WHOLE = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
}


def torch_type(code: int, call: Call) -> torch.dtype:
    """The type in which values of an ONNX type are computed."""
    dtype = ir.DataType(code)
    if is_float(dtype):
        return torch.float64 if dtype == ir.DataType.DOUBLE else torch.float32
    if dtype not in _WHOLE:
        raise call.refuse(f"it makes {dtype.name}, which torch does not compute with")
    return _WHOLE[dtype]


def tensor_of(held: ir.TensorProtocol) -> torch.Tensor:
    """A copy in the type that is computed in."""
    array = held.numpy()
    if is_float(held.dtype):
        array = array.astype(np.float64 if held.dtype == ir.DataType.DOUBLE else np.float32)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, order="C"))
