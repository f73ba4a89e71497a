"""A precision is the type of every tensor."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.latency.backends.tensorrt import cast
from tests.latency.tensorrt.nets import residual
from tests.zoo import Net

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_float32_stays(precision: str) -> None:
    assert cast(residual(), precision) == residual()


@pytest.mark.parametrize("precision", TYPES)
def test_all_tensors_change_and_no_node_is_added(precision: str) -> None:
    before, after = onnx.load_from_string(residual()), onnx.load_from_string(cast(residual(), precision))
    # Before opset 22 ONNX itself has no bf16 convolution; TensorRT has.
    onnx.checker.check_model(after, full_check=precision == "fp16")
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    assert {t.data_type for t in after.graph.initializer} == {TYPES[precision]}
    values = (*after.graph.input, *after.graph.output)
    assert {value.type.tensor_type.elem_type for value in values} == {TYPES[precision]}


def test_fp16_computes_the_same_but_for_rounding() -> None:
    x = np.random.default_rng(0).standard_normal((1, 16, 14, 14)).astype(np.float32)
    (want,) = ReferenceEvaluator(onnx.load_from_string(residual())).run(None, {"x": x})
    half = ReferenceEvaluator(onnx.load_from_string(cast(residual(), "fp16")))
    (got,) = half.run(None, {"x": x.astype(np.float16)})
    assert got.dtype == np.float16
    off = np.max(np.abs(got - want)) / np.max(np.abs(want))
    assert 0 < off < 5e-3


@pytest.mark.parametrize("precision", TYPES)
def test_what_an_operator_fixes_stays_and_targets_of_casts_change(precision: str) -> None:
    net = Net()
    y = net.node("Cast", net.conv(net.input("x", (1, 8, 4, 4)), "conv1"), name="cast", to=TensorProto.FLOAT)
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    y = net.node("Resize", y, "", scales, name="resize", channels=8)
    after = onnx.load_from_string(cast(net.proto(y).SerializeToString(), precision))
    types = {t.name: t.data_type for t in after.graph.initializer}
    assert types["scales"] == TensorProto.FLOAT and types["conv1.w"] == TYPES[precision]
    assert [a.i for a in after.graph.node[1].attribute] == [TYPES[precision]]
    # Before opset 22 ONNX itself has no bf16 convolution; TensorRT has.
    onnx.checker.check_model(after, full_check=precision == "fp16")


def test_constants_beyond_the_range_of_fp16_are_clamped() -> None:
    net = Net()
    top = net.constant("top", np.array(3e38, np.float32))
    y = net.node("Clip", net.conv(net.input("x", (1, 8, 4, 4)), "conv1"), "", top, name="clip")
    after = onnx.load_from_string(cast(net.proto(y).SerializeToString(), "fp16"))
    (clamped,) = (numpy_helper.to_array(t) for t in after.graph.initializer if t.name == "top")
    assert np.isfinite(clamped) and clamped > 6e4


def test_float_constants_in_attributes_change_in_bf16() -> None:
    value = numpy_helper.from_array(np.ones(8, np.float32))
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Add", ["x", "c"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    after = onnx.load_from_string(cast(model.SerializeToString(), "bf16"))
    assert after.graph.node[0].attribute[0].t.data_type == TensorProto.BFLOAT16


def test_garbage_and_unknown_words() -> None:
    with pytest.raises(ModelError, match="no ONNX model"):
        cast(b"not a model" * 9, "fp16")
    with pytest.raises(UsageError, match="fp8 is unknown; choose from fp32, tf32, fp16, bf16"):
        cast(residual(), "fp8")


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_no_operator_is_left_in_float32_between_casts(op: str) -> None:
    net = Net()
    low = net.constant("low", np.zeros(1, np.float32))
    y = net.node(op, net.conv(net.input("x", (1, 8, 4, 4)), "conv1"), low, name="m")
    after = onnx.load_from_string(cast(net.proto(y).SerializeToString(), "fp16"))
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == ["Conv", op]
