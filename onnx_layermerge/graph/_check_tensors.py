"""What the weights must satisfy: as many bytes as declared, files that lie beside the model, finite numbers.

Sizes are compared as Python integers before anything is read, and values are looked at in chunks, those in other
files through a small buffer: neither a false size nor a true one of many gigabytes takes memory.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from onnx_layermerge.graph._walk import all_nodes, all_tensors, refuse

__all__ = ["check_tensors"]

# Only the product of the sizes of an empty tensor is not bounded by the bytes that are there.
_MOST_ELEMENTS = 2**40
_CHUNK_ELEMENTS = 2**20
_FLOATS: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.BFLOAT16: np.dtype("<u2"),
}
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
# Operators whose constants are learned numbers; others may hold an infinity on purpose (masks, bounds, padding).
_LEARNED = {
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MatMul",
    "PRelu",
}


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a tensor lie."""

    path: Path
    offset: int
    length: int


def check_tensors(model: onnx.ModelProto, file: Path) -> None:
    """Every initializer and tensor attribute of ``model``, which was read from ``file``.

    Raises:
        ModelError: data missing, too short, outside the model's folder, or not finite; the message names the tensor.
    """
    nodes = [*all_nodes(model.graph.node), *(node for f in model.functions for node in all_nodes(f.node))]
    learned = {name for node in nodes if node.op_type in _LEARNED for name in node.input[1:]}
    for name, tensor in all_tensors(model):
        place = _check_size(name, tensor, file)
        if tensor.data_type in _FLOATS:
            _check_finite(name, tensor, place, name in learned, file)


def _check_size(name: str, tensor: TensorProto, file: Path) -> _Place | None:
    what = f"the tensor '{name}'"
    if any(size < 0 for size in tensor.dims):
        raise refuse(file, f"{what} has a negative size, {list(tensor.dims)}")
    if math.prod(max(size, 1) for size in tensor.dims) > _MOST_ELEMENTS:
        raise refuse(file, f"{what} declares {list(tensor.dims)} elements, which no memory holds")
    count = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.string_data) != count:
            raise refuse(file, f"{what} declares {count} strings and holds {len(tensor.string_data)}")
        return None
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (TypeError, ValueError):
        raise refuse(file, f"{what} is of the unknown type {tensor.data_type}") from None
    needed = (count * bits + 7) // 8
    if tensor.data_location == TensorProto.EXTERNAL:
        return _place_of(what, tensor, needed, file)
    if tensor.HasField("raw_data"):
        held, unit = len(tensor.raw_data), 1
    else:
        held, unit = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))), 0
        # Below a byte, values are packed into whole ones; complex numbers are two entries each.
        needed = (count * bits + 7) // 8 if bits < 8 else count * (2 if tensor.data_type in _COMPLEX else 1)
    if held != needed:
        words = "bytes" if unit else "values"
        raise refuse(file, f"{what} of {list(tensor.dims)} needs {needed} {words} and holds {held}")
    return None


def _place_of(what: str, tensor: TensorProto, needed: int, file: Path) -> _Place | None:
    """Where external data lie, after every check that keeps a model inside its own folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    advice = "copy its data file into the folder of the model"
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or needed)
    except ValueError:
        raise refuse(file, f"{what} lies at an offset or of a length that is no number") from None
    if not location:
        raise refuse(file, f"{what} lies in a file without a name")
    if PureWindowsPath(location).drive or PureWindowsPath(location).root or PurePosixPath(location).is_absolute():
        raise refuse(file, f"{what} lies in '{location}', an absolute path", advice)
    folder = file.absolute().parent
    try:
        path = Path(os.path.normpath(folder / location))
        inside = path.is_relative_to(os.path.normpath(folder))
        found = path.resolve()
        inside = inside and found.is_relative_to(folder.resolve())
        if not inside:
            raise refuse(file, f"{what} lies in '{location}', outside the model's folder", advice)
        about = found.stat()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise refuse(file, f"{what} lies in '{location}', which is missing or not readable", advice) from error
    if not stat.S_ISREG(about.st_mode):
        raise refuse(file, f"{what} lies in '{location}', which is no file", advice)
    if about.st_nlink > 1:
        # One of the other names may lie anywhere; onnx_ir will not map such a file either.
        raise refuse(file, f"{what} lies in '{location}', which has {about.st_nlink} hard links", "copy that file")
    if offset < 0 or length != needed:
        raise refuse(file, f"{what} of {list(tensor.dims)} needs {needed} bytes and declares {length} at {offset}")
    if offset + needed > about.st_size:
        raise refuse(file, f"{what} ends at byte {offset + needed} of '{location}', which has {about.st_size}", advice)
    return _Place(found, offset, needed)


def _check_finite(name: str, tensor: TensorProto, place: _Place | None, learned: bool, file: Path) -> None:
    for chunk in _chunks(name, tensor, place, file):
        if _finite(chunk):
            continue
        values = chunk if chunk.dtype.kind == "f" else (chunk.astype(np.uint32) << 16).view(np.float32)
        kind = "NaN" if np.isnan(values).any() else "Inf"
        if learned or (kind == "NaN" and math.prod(tensor.dims) > 1):
            raise refuse(file, f"the tensor '{name}' holds {kind}", "train or export it again")


def _finite(chunk: np.ndarray) -> bool:
    if chunk.dtype.kind == "u":  # bfloat16 as bits: all ones in the exponent
        return not bool(((chunk & 0x7F80) == 0x7F80).any())
    # Both carry a NaN along, and need no array of their own.
    return bool(np.isfinite(chunk.min()) and np.isfinite(chunk.max()))


def _chunks(name: str, tensor: TensorProto, place: _Place | None, file: Path) -> Iterator[np.ndarray]:
    """The values of a float tensor in pieces of at most ``_CHUNK_ELEMENTS``, bfloat16 as uint16."""
    dtype = _FLOATS[tensor.data_type]
    if place is not None:
        with place.path.open("rb") as stream:
            stream.seek(place.offset)
            left = place.length // dtype.itemsize
            while left:
                chunk = np.fromfile(stream, dtype, min(left, _CHUNK_ELEMENTS))
                if not len(chunk):
                    return
                left -= len(chunk)
                yield chunk
        return
    if tensor.HasField("raw_data"):
        values = np.frombuffer(tensor.raw_data, dtype)
    else:
        try:
            array = numpy_helper.to_array(tensor).reshape(-1)
        except (OverflowError, ValueError) as error:  # 16-bit patterns stored as integers out of their range
            raise refuse(file, f"the tensor '{name}' holds numbers that are none of its type") from error
        values = array.view(np.uint16) if tensor.data_type == TensorProto.BFLOAT16 else array
    for start in range(0, len(values), _CHUNK_ELEMENTS):
        yield values[start : start + _CHUNK_ELEMENTS]
