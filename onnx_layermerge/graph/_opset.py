"""Versions: which opsets are read as they are, which are converted, and which are refused.

From opset 7 on, broadcasting follows NumPy's rules and inference is the default, so operators mean what the rest of
the package takes them to mean.  Older models are brought there by onnx's own converter; the one thing done here is the
``axis`` of the old broadcasting, which that converter places wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from onnx_layermerge.graph._walk import all_tensors, label, opsets, refuse

__all__ = ["OLDEST", "check_versions", "modernise"]

OLDEST = 7
"""The first opset that is read as it is."""

_ANY_BATCH, _ANY_SIZE = 2, 224
_NO_INFERENCE = (
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
    ValueError,
)
# Their results have the shape of the first operand; before opset 6, schemas do not say so.
_SAME_SHAPE = {"BatchNormalization", "Clip", "Dropout", "Elu", "Exp", "Identity", "InstanceNormalization", "LRN"}
_SAME_SHAPE |= {"LeakyRelu", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sum", "Tanh"}
_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu"}


def check_versions(model: onnx.ModelProto, file: Path) -> int:
    """The model's ai.onnx opset: 1, and written down, where the file is too old to say.

    Raises:
        ModelError: the opset or the IR version is newer than the installed onnx, or there is none.
    """
    newest = onnx.defs.onnx_opset_version()
    found = opsets(model.opset_import).get("", 0)
    if not model.ir_version:
        raise refuse(file, "the model does not say its IR version", "check that the file is whole, and an ONNX model")
    if model.ir_version > onnx.IR_VERSION:
        raise refuse(
            file,
            f"IR version {model.ir_version} is newer than what onnx {onnx.__version__} knows ({onnx.IR_VERSION})",
            "upgrade onnx, or export with an older IR version",
        )
    if found > newest:
        raise refuse(
            file,
            f"opset {found} is newer than what onnx {onnx.__version__} knows ({newest})",
            f"upgrade onnx, or export with opset {newest} or older",
        )
    if not len(model.opset_import) and model.ir_version < 3:
        model.opset_import.append(helper.make_opsetid("", 1))
        return 1
    if found < 1:
        raise refuse(file, "the model names no opset of ai.onnx")
    return found


def modernise(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """A copy of a model below opset ``OLDEST``, converted to the first opset from there on that works.

    Raises:
        ModelError: the converter cannot; the message names the opset and the first obstacle.
    """
    found = check_versions(model, file)
    advice = f"export it with opset {OLDEST} or newer"
    if any(tensor.data_location == TensorProto.EXTERNAL for _, tensor in all_tensors(model)):
        raise refuse(file, f"opset {found} together with weights in other files cannot be converted", advice)
    old = onnx.ModelProto()
    old.CopyFrom(model)
    old.ir_version = max(old.ir_version, 3)
    listed = {value.name for value in old.graph.input}
    for tensor in old.graph.initializer:
        if tensor.name not in listed:
            old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    _bind_dims(old)
    _spell_out_broadcasts(old, file, found, advice)
    inputs = {value.name for value in (*old.graph.input, *old.graph.output)}
    types = {name: kind for name, kind in _types(old, found).items() if name not in inputs}
    old.graph.value_info.extend(onnx.ValueInfoProto(name=name, type=kind) for name, kind in types.items())
    interface = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    obstacle = ""
    for target in range(OLDEST, onnx.defs.onnx_opset_version() + 1):
        try:
            made = onnx.version_converter.convert_version(old, target)
            _restore_dims(made, interface)
            onnx.checker.check_model(made, full_check=True)
            return made
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            # The converter's assertions are RuntimeErrors; only the first one is about this model's own opset.
            obstacle = obstacle or str(error).strip().splitlines()[0].rstrip(".")
    raise refuse(file, f"opset {found} cannot be converted ({obstacle[:200]})", advice)


def _bind_dims(model: onnx.ModelProto) -> None:
    """Numbers for sizes that vary: the converter compares shapes, and only knows how to compare numbers."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") != "dim_value":
                dim.dim_value = _ANY_SIZE if axis else _ANY_BATCH
    del model.graph.value_info[:]


def _restore_dims(model: onnx.ModelProto, interface: Mapping[str, onnx.ValueInfoProto]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        if value.name in interface:
            value.CopyFrom(interface[value.name])
    del model.graph.value_info[:]


def _spell_out_broadcasts(model: onnx.ModelProto, file: Path, found: int, advice: str) -> None:
    """Old ``broadcast=1, axis=a``: the second operand's axes lie at a, a+1, …; make it so by axes of size 1 behind."""
    types = _types(model, found)
    ranks = {name: len(kind.tensor_type.shape.dim) for name, kind in types.items()}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type in _BROADCASTING and attributes.get("broadcast") and len(node.input) == 2:
            kept = [each for each in node.attribute if each.name not in ("broadcast", "axis")]
            if "axis" in attributes:
                if not all(name in ranks for name in node.input):
                    raise refuse(file, f"opset {found} broadcasts in {label(node)} over unknown axes", advice)
                whole, part = (ranks[name] for name in node.input)
                axis = attributes["axis"] % whole if whole else 0
                behind = whole - axis - part
                if behind > 0:
                    spread = f"{node.input[1]}.of.{node.output[0]}"
                    axes = list(range(part, part + behind))
                    model.graph.node.append(helper.make_node("Unsqueeze", [node.input[1]], [spread], axes=axes))
                    node.input[1] = spread
            del node.attribute[:]
            node.attribute.extend(kept)
        model.graph.node.append(node)


def _types(model: onnx.ModelProto, opset: int) -> dict[str, onnx.TypeProto]:
    """Type and shape of every value that can be told, node by node: old schemas stop at the first normalisation."""
    types = {value.name: value.type for value in model.graph.input if value.type.tensor_type.HasField("shape")}
    small = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) < 2}
    imports = [helper.make_opsetid("", opset)]
    for node in model.graph.node:
        known = {name: types[name] for name in node.input if name in types}
        if node.op_type in _SAME_SHAPE | _BROADCASTING:
            if node.input[0] in known:
                types[node.output[0]] = known[node.input[0]]
            continue
        data = {name: small[name] for name in node.input if name in small}
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
            made = onnx.shape_inference.infer_node_outputs(
                schema, node, known, data, opset_imports=imports, ir_version=3
            )
        except _NO_INFERENCE:
            continue  # the converter says what it misses, if it does
        types.update({name: kind for name, kind in made.items() if kind.tensor_type.HasField("shape")})
    return types
