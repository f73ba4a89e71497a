"""Shapes of the values in between, as onnx infers them."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_layermerge.graph._graphs import all_graphs
from onnx_layermerge.graph._pack import proto_without_weights

__all__ = ["infer_shapes"]

# onnx's shape inference numbers the sizes that it cannot tell.
_BLANK = "unk__"


def infer_shapes(model: ir.Model, *, strict: bool = True) -> bool:
    """Note every shape and type that onnx can tell and that is not noted, or is noted differently; whether any was.

    Where inference fails, the model stays as it is; unless ``strict``, what could be told up to there is noted.
    """
    if all(_is_known(value) for node in model.graph for value in node.outputs):
        return False
    if model.functions or any(graph is not model.graph for graph in all_graphs(model.graph)):
        return bool(ShapeInferencePass(strict_mode=strict)(model).modified)
    # That pass would build a second model out of what onnx returns, of which only these notes are wanted.
    try:
        bare = proto_without_weights(model)
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=strict, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError):
        return False
    values = {value.name: value for node in model.graph for value in node.outputs}
    changed = False
    read: dict[bytes, ir.Value] = {}  # large graphs have few types and shapes, again and again
    for note in (*inferred.value_info, *inferred.output):
        value = values.get(note.name)
        if value is None:
            continue
        kind = note.type.SerializeToString()
        found = read.get(kind)
        if found is None:
            found = read[kind] = ir.serde.deserialize_value_info_proto(note, None)
        if found.shape is not None and found.shape != value.shape:
            value.shape, changed = found.shape.copy(), True
        if found.dtype is not None and found.dtype != value.dtype:
            value.dtype, changed = found.dtype, True
    return changed


def _is_known(value: ir.Value) -> bool:
    """Whether type and sizes are there; a symbol counts as a size, a blank or onnx's name for one does not."""
    if value.shape is None or value.type is None:
        return False
    symbols = [dim.value for dim in value.shape if not isinstance(dim, int)]
    return not any(symbol is None or symbol.startswith(_BLANK) for symbol in symbols)
