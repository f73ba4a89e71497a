"""A model as bytes, whatever its size: one protobuf message, and beside it the weights that it cannot hold.

A message ends at 2 GB, and making one copies every weight more than once.  Above a bound the large weights therefore
stay where they are, in a file that a runtime maps into memory by itself or in an array, and the message names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._graphs import all_graphs
from onnx_layermerge.graph._quiet import quiet

__all__ = [
    "MOST_INSIDE_BYTES",
    "Packed",
    "initializers",
    "is_plain",
    "pack",
    "proto_with",
    "proto_without_weights",
    "to_bytes",
    "weight_bytes",
]

MOST_INSIDE_BYTES = 3 * 2**29
"""Models with more bytes of weights than this (1.5 GiB) keep them outside the message and outside the model file."""

_LEAST_OUTSIDE_BYTES = 1024
_CHUNK_BYTES = 2**24
_DIGEST = "onnx_layermerge.sha256"


@dataclass(frozen=True, eq=False)
class Packed:
    """A model for a runtime.

    ``data`` is the protobuf.  Where it refers to files, they lie in ``folder``; ``weights`` are initializers of the
    main graph that it only names, as arrays that alias the model's own memory (never to be written to).
    ``total_bytes`` counts all weights, wherever they are.
    """

    data: bytes
    folder: Path | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    total_bytes: int = 0


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those of bodies included."""
    return _weight_bytes(initializers(model))


def _weight_bytes(held: Iterable[ir.Value]) -> int:
    tensors = (value.const_value for value in held)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype != ir.DataType.STRING)


def pack(model: ir.Model, *, most_inside: int = MOST_INSIDE_BYTES) -> Packed:
    """``model`` for a runtime; up to ``most_inside`` bytes of weights are in the message, more are left where they are.

    Raises:
        ModelError: what has to be inside (constants, and weights of bodies that are in memory) is over 2 GB.
    """
    held = tuple(initializers(model))
    total = _weight_bytes(held)
    if total <= most_inside:
        return Packed(_serialized(model, {}, held), total_bytes=total)
    folder: Path | None = None
    outside: dict[str, np.ndarray] = {}
    named: dict[int, ir.TensorProtocol] = {}
    for value, tensor in _large(held):
        if isinstance(tensor, ir.ExternalTensor):
            folder = folder or Path(tensor.base_dir)
            if Path(tensor.base_dir) == folder:
                named[id(tensor)] = tensor
                continue
        if value.graph is model.graph:
            outside[str(value.name)] = _array(tensor)
            named[id(tensor)] = _reference(value, tensor, "memory")
    return Packed(_serialized(model, named, held), folder, outside, total)


def to_bytes(model: ir.Model) -> bytes:
    """Serialized protobuf, the same for equal models.

    Up to ``MOST_INSIDE_BYTES`` of weights it is complete.  Above, the SHA-256 of the large ones stands in their place:
    good for hashes and for structure, not for a runtime, which takes :func:`pack`.
    """
    held = tuple(initializers(model))
    named: dict[int, ir.TensorProtocol] = {}
    if _weight_bytes(held) > MOST_INSIDE_BYTES:
        named = {id(tensor): _reference(value, tensor, f"sha256/{_digest(tensor)}") for value, tensor in _large(held)}
    return _serialized(model, named, held)


def _serialized(model: ir.Model, stand_ins: Mapping[int, ir.TensorProtocol], held: Iterable[ir.Value]) -> bytes:
    try:
        data: bytes = proto_with(model, stand_ins, held).SerializeToString(deterministic=True)
    except Exception as error:  # protobuf raises EncodeError or ValueError, by version, above 2 GB
        raise ModelError(
            f"the model does not fit into 2 GB without its large weights ({error}); export it in two parts."
        ) from error
    return data


def proto_with(
    model: ir.Model, stand_ins: Mapping[int, ir.TensorProtocol], held: Iterable[ir.Value] | None = None
) -> onnx.ModelProto:
    """The message, with ``stand_ins`` (by ``id`` of the tensor) for some initializers and other mapped ones inside it.

    ``held`` are the model's :func:`initializers`, where the caller has them at hand: finding them walks all nodes.
    They are set in the model itself while the message is made, and taken out again.
    """
    swapped: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for value in initializers(model) if held is None else held:
            tensor = value.const_value
            if tensor is None:
                continue
            if stand_ins.get(id(tensor)) is tensor:
                continue
            if id(tensor) in stand_ins:
                value.const_value = stand_ins[id(tensor)]
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(_array(tensor), name=value.name, dtype=tensor.dtype)
            else:
                continue
            swapped.append((value, tensor))
        with quiet():
            return ir.to_proto(model)
    finally:
        for value, tensor in swapped:
            value.const_value = tensor


def proto_without_weights(model: ir.Model) -> onnx.ModelProto:
    """The message in which large weights stand by type and shape alone."""
    held = tuple(initializers(model))
    named = {id(tensor): _reference(value, tensor, "elsewhere") for value, tensor in _large(held)}
    return proto_with(model, named, held)


def _reference(value: ir.Value, tensor: ir.TensorProtocol, place: str) -> ir.ExternalTensor:
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(place, 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name))


def _large(held: Iterable[ir.Value]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Initializers worth leaving outside, of types that any runtime takes as an array."""
    for value in held:
        tensor = value.const_value
        if tensor is not None and is_plain(tensor.dtype) and tensor.nbytes >= _LEAST_OUTSIDE_BYTES:
            yield value, tensor


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Those of the main graph and of all bodies."""
    for graph in all_graphs(model.graph):
        yield from graph.initializers.values()


def is_plain(dtype: ir.DataType) -> bool:
    """Types that NumPy has, so that any runtime takes the array as it is."""
    return dtype != ir.DataType.STRING and dtype.numpy().kind in "fiub" and dtype.numpy().isbuiltin == 1


def _array(tensor: ir.TensorProtocol) -> np.ndarray:
    """The values, without a copy where the memory can be used as it is."""
    return np.require(tensor.numpy(), requirements=["C", "ALIGNED"])


def _digest(tensor: ir.TensorProtocol) -> str:
    """SHA-256 of the values; read once, as tensors do not change."""
    if _DIGEST not in tensor.meta:
        content = _array(tensor).reshape(-1).view(np.uint8)
        found = hashlib.sha256()
        for start in range(0, len(content), _CHUNK_BYTES):
            found.update(content[start : start + _CHUNK_BYTES].data)
        tensor.meta[_DIGEST] = found.hexdigest()
    return str(tensor.meta[_DIGEST])
