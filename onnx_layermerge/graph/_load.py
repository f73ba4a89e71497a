"""Bytes on disk → a checked ``onnx_ir.Model``, or one sentence that says why not.

Checks run from the cheap to the dear: the file, versions, structure, tensors (sizes first, values in chunks), onnx's
own checker (which knows every attribute), shapes.  Weights in other files stay there, mapped into memory when somebody
looks at them.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph._check import check_structure, check_text
from onnx_layermerge.graph._check_sizes import check_sizes, skeleton
from onnx_layermerge.graph._check_tensors import check_tensors
from onnx_layermerge.graph._graphs import all_graphs, all_nodes
from onnx_layermerge.graph._opset import OLDEST, check_versions, modernise
from onnx_layermerge.graph._order import sort_nodes
from onnx_layermerge.graph._pack import is_plain
from onnx_layermerge.graph._walk import refuse

__all__ = ["converted_from", "load"]

# One protobuf message holds no more.
_MOST_BYTES = 2**31 - 1
_CONVERTED = "onnx_layermerge.converted_from"


def load(path: str | Path) -> ir.Model:
    """Read and check an ONNX file; weights in external files stay there as ``ir.ExternalTensor`` (memory-mapped).

    A model below opset 7 comes back converted, see :func:`converted_from`.

    Raises:
        ModelError: missing, empty, truncated, not ONNX, quantized, of an opset that is not known, or not valid;
            the message names the node, tensor or file.
    """
    file = Path(path)
    proto = _parse(file)
    check_text(proto, file)
    opset = check_versions(proto, file)
    if not len(proto.graph.node):
        raise ModelError(f"{file} holds no nodes; check that it is complete.")
    sort_nodes(proto)
    check_structure(proto, file)
    check_tensors(proto, file)
    converted = None
    if opset < OLDEST:
        proto, converted = modernise(proto, file), opset
    bare = skeleton(proto)
    try:
        onnx.checker.check_model(bare)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file} is not a valid ONNX model ({_first_line(error)}); export it again.") from error
    check_sizes(proto, bare, file)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever went wrong; types that it does not know, among others
        raise ModelError(f"{file} cannot be read ({_first_line(error)}); export it again.") from error
    _settle(model, file.absolute().parent)
    if converted is not None:
        model.graph.meta[_CONVERTED] = converted  # of the graph, as clones of a model keep only that
    return model


def converted_from(model: ir.Model) -> int | None:
    """The opset of the file, if :func:`load` had to convert the model (or the one it was cloned from); else None."""
    found: int | None = model.graph.meta.get(_CONVERTED)
    return found


def _parse(file: Path) -> onnx.ModelProto:
    if file.is_dir():
        raise ModelError(f"{file} is a directory; name the .onnx file inside it.")
    if not file.exists():
        raise ModelError(f"{file} does not exist; check the path of the model.")
    size = file.stat().st_size
    if size == 0:
        raise ModelError(f"{file} is empty; export the model again.")
    if size > _MOST_BYTES:
        raise refuse(file, "the file is larger than a protobuf message of 2 GB", "save its weights as external data")
    try:
        return onnx.load(str(file), format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); check its permissions.") from error
    except Exception as error:  # protobuf's DecodeError and its relatives share no public base class
        raise ModelError(f"{file} cannot be read as ONNX ({_first_line(error)}); check that it is complete.") from error


def _settle(model: ir.Model, folder: Path) -> None:
    """Tell mapped tensors where their files lie, read those in attributes, which no writer moves, and hold the others
    as arrays of their own, so that the message they came in can go."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        # An absolute folder: without one, onnx_ir checks nothing, and a change of directory would mislead it.
        ir.external_data.set_base_dir(graph, folder)
        for node in all_nodes(graph):
            for key, attribute in node.attributes.data.items():
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[key] = ir.AttrTensor(key, _held(attribute.value, in_file=False))
    for each in all_graphs(model.graph):
        for value in each.initializers.values():
            if value.const_value is not None:
                value.const_value = _held(value.const_value, in_file=True)


def _held(tensor: ir.TensorProtocol, *, in_file: bool) -> ir.TensorProtocol:
    """``tensor`` without the message around it; one in another file stays there if that is where it may be."""
    if isinstance(tensor, ir.ExternalTensor):
        return tensor if in_file else ir.Tensor(tensor.numpy().copy(), name=tensor.name, dtype=tensor.dtype)
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        return tensor
    proto = tensor.raw
    if proto.HasField("raw_data") and is_plain(tensor.dtype):
        notes = (tensor.doc_string or None, dict(tensor.metadata_props))
        name = proto.name if proto.HasField("name") else None
        return ir.Tensor(tensor.numpy(), tensor.dtype, name=name, doc_string=notes[0], metadata_props=notes[1])
    # Types and encodings that an array would not give back as they are.
    copy = onnx.TensorProto()
    copy.CopyFrom(proto)
    return ir.serde.deserialize_tensor(copy)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")[:200]
