"""The precision of a network is the type of its tensors: strongly typed engines compute in what the ONNX says.

fp16 is left to onnxruntime's caster, which clamps weights to the range of the type and keeps the few inputs that ONNX
fixes to float32 (the scales of a Resize).  It knows no bf16; there nothing can overflow, so every float32 tensor is
retyped but those that the operators' own schemas fix.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnx_layermerge.errors import ModelError, UsageError

__all__ = ["PRECISIONS", "cast", "stored_type"]

# What each word of --precision makes of float32 tensors; tf32 is float32 with shorter multiplications.
_STORED = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "bf16": "bf16"}
PRECISIONS = tuple(_STORED)
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")


def stored_type(precision: str) -> str:
    """The type of the tensors: ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        UsageError: there is no such precision.
    """
    if precision not in _STORED:
        raise UsageError(f"--precision {precision} is unknown; choose from {', '.join(PRECISIONS)}.")
    return _STORED[precision]


def cast(model: bytes, precision: str) -> bytes:
    """ONNX bytes with every float32 tensor, inputs and outputs among them, in the precision's type.

    Raises:
        ModelError: the bytes are no ONNX model.
        UsageError: there is no such precision.
    """
    stored = stored_type(precision)
    if stored == "fp32":
        return model
    try:
        proto = onnx.load_from_string(model)
    except Exception as error:  # protobuf's DecodeError and its relatives share no public base class
        raise ModelError(f"These bytes are no ONNX model ({error}); give those of an .onnx file.") from error
    return _to_float16(proto) if stored == "fp16" else _to_bfloat16(proto)


def _to_float16(proto: onnx.ModelProto) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Nothing is exempt: TensorRT has fp16 kernels for what onnxruntime's own CPU kernels have not.
    half = convert_float_to_float16(proto, keep_io_types=False, op_block_list=[])
    data: bytes = half.SerializeToString(deterministic=True)
    return data


def _to_bfloat16(proto: onnx.ModelProto) -> bytes:
    model = ir.serde.deserialize_model(proto)
    opset = int(model.opset_imports.get("", 0))
    for graph in model.graphs():
        fixed = {value for node in graph for value in _fixed_inputs(node, opset)}
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
            if value.dtype == ir.DataType.FLOAT and value not in fixed:
                value.type = ir.TensorType(ir.DataType.BFLOAT16)
                if value.is_initializer() and value.const_value is not None:
                    value.const_value = _rounded(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and node.outputs[0] not in fixed:
                    tensor = attribute.as_tensor()
                    if tensor.dtype == ir.DataType.FLOAT:
                        node.attributes[name] = ir.AttrTensor(name, _rounded(tensor))
                elif name in _TYPE_ATTRIBUTES and attribute.value == ir.DataType.FLOAT.value:
                    node.attributes[name] = ir.AttrInt64(name, ir.DataType.BFLOAT16.value)
    data: bytes = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return data


def _fixed_inputs(node: ir.Node, opset: int) -> list[ir.Value]:
    """Inputs whose type the operator fixes to float32."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return []
    count = len(schema.inputs)
    return [
        value
        for index, value in enumerate(node.inputs)
        if value is not None and index < count and schema.inputs[index].types == {"tensor(float)"}
    ]


def _rounded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    array = np.asarray(tensor.numpy()).astype(ir.DataType.BFLOAT16.numpy())
    return ir.Tensor(array, dtype=ir.DataType.BFLOAT16, name=tensor.name)
