"""bfloat16 there and back: bit by bit for what is left alone, by types that fit for what is new."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_ir.passes.common import IdentityEliminationPass

from onnx_layermerge.graph import Conv, Session, load, normalise, splice, to_bytes, write
from onnx_layermerge.graph._bfloat16 import narrow, widen

BRAIN, SINGLE = TensorProto.BFLOAT16, TensorProto.FLOAT
X = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)


def brain(name: str, array: np.ndarray) -> TensorProto:
    bits = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return helper.make_tensor(name, BRAIN, array.shape, bits.tobytes(), raw=True)


def mixed() -> onnx.ModelProto:
    """Conv, Relu, (to float32: Softmax, times a float32 weight, back), Conv, a filled constant, If, a function call."""
    draw = np.random.default_rng(1)
    info, node = helper.make_tensor_value_info, helper.make_node
    weights = [
        brain("w1", draw.standard_normal((4, 4, 3, 3)) / 6),
        brain("b1", draw.standard_normal(4)),
        brain("w2", draw.standard_normal((4, 4, 3, 3)) / 6),
        helper.make_tensor("gain", SINGLE, [4, 1, 1], draw.uniform(1, 2, 4)),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    body = helper.make_graph([node("Neg", ["c2"], ["t"])], "b", [], [info("t", BRAIN, None)])
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, name="c1"),
        node("Relu", ["c1"], ["r1"], name="r1"),
        node("Cast", ["r1"], ["wide"], to=SINGLE, name="up"),
        node("Softmax", ["wide"], ["soft"], axis=1, name="soft"),
        node("Mul", ["soft", "gain"], ["gained"], name="gained"),
        node("Cast", ["gained"], ["back"], to=BRAIN, name="down"),
        node("Conv", ["back", "w2"], ["c2"], pads=[1] * 4, name="c2"),
        node("ConstantOfShape", ["one"], ["filled"], value=brain("", np.array([0.5])), name="filled"),
        node("Constant", [], ["half"], value=brain("", np.array(0.25)), name="half"),
        node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body, name="if"),
        node("bend", ["chosen", "half"], ["bent"], domain="local", name="bend"),
        node("Add", ["bent", "filled"], ["y"], name="y"),
    ]
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("local", 1)]
    inside = [node("Mul", ["a", "k"], ["m"]), node("Relu", ["m"], ["o"])]
    function = helper.make_function("local", "bend", ["a", "k"], ["o"], inside, opsets[:1])
    image = info("x", BRAIN, ["N", 4, 6, 6])
    answers = [info("y", BRAIN, ["N", 4, 6, 6]), info("soft", SINGLE, ["N", 4, 6, 6])]
    graph = helper.make_graph(nodes, "mixed", [image], answers, weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function])


def types(model: ir.Model) -> dict[str, ir.DataType | None]:
    made = {str(v.name): v.dtype for node in model.graph.all_nodes() for v in node.outputs}
    return made | {str(v.name): v.dtype for v in (*model.graph.inputs, *model.graph.initializers.values())}


def bits(model: ir.Model, name: str) -> bytes:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.tobytes()


def read(path: Path) -> ir.Model:
    path.write_bytes(mixed().SerializeToString())
    return load(path)


def test_there_and_back_is_bit_by_bit_and_type_by_type(tmp_path: Path) -> None:
    model = read(tmp_path / "m.onnx")
    held = {name: bits(model, name) for name in ("w1", "b1", "w2", "gain")}
    record = widen(model)
    assert record is not None and not model.functions
    assert ir.DataType.BFLOAT16 not in types(model).values()
    assert {"w1", "x", "y", "c2", "t"} <= record.bfloat16 and {"wide", "soft", "gain"} <= record.float32
    feeds = {"x": X.astype(ml_dtypes.bfloat16).astype(np.float32)}
    wide = Session(model).run(feeds)
    assert wide["y"].dtype == np.float32 and np.abs(wide["y"]).max() > 0.5
    narrow(model, record)
    assert held == {name: bits(model, name) for name in held}
    found = types(model)
    assert {name for name, dtype in found.items() if dtype == ir.DataType.FLOAT} == record.float32
    assert {name for name, dtype in found.items() if dtype == ir.DataType.BFLOAT16} == record.bfloat16
    write(model, tmp_path / "out.onnx")
    again = load(tmp_path / "out.onnx")
    widen(again)
    np.testing.assert_array_equal(Session(again).run(feeds)["y"], wide["y"])


def test_every_bfloat16_comes_back(tmp_path: Path) -> None:
    """All finite bit patterns, subnormals and both zeros too."""
    patterns = np.arange(2**16, dtype=np.uint16)
    patterns = patterns[(patterns & 0x7F80) != 0x7F80]
    every = helper.make_tensor("every", BRAIN, patterns.shape, patterns.tobytes(), raw=True)
    info = helper.make_tensor_value_info("y", BRAIN, patterns.shape)
    graph = helper.make_graph([helper.make_node("Neg", ["every"], ["y"])], "g", [], [info], [every])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = load(tmp_path / "m.onnx")
    record = widen(model)
    assert record is not None
    values = model.graph.initializers["every"].const_value
    np.testing.assert_array_equal(
        values.numpy().view(np.uint32),
        patterns.astype(np.uint32) << 16,  # type: ignore[union-attr]
    )
    narrow(model, record)
    assert bits(model, "every") == patterns.tobytes()


def test_a_model_without_bfloat16_is_not_touched(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    model = ir.from_proto(proto)
    before = to_bytes(model)
    assert widen(model) is None and to_bytes(model) == before


@pytest.mark.parametrize("where", ["bfloat16", "float32"])
def test_new_convolutions_take_the_type_of_their_surroundings(where: str, tmp_path: Path) -> None:
    """In place of Relu (bfloat16), or of the float32 multiplication."""
    model = read(tmp_path / "m.onnx")
    held = {name: bits(model, name) for name in ("w1", "w2", "gain")}
    record = widen(model)
    assert record is not None
    value = np.full((4, 4, 1, 1), 1.0 + 2.0**-8 + 2.0**-16, np.float32)  # a little above the middle of two bfloat16
    conv = Conv(value, np.full(4, 2.0**-9, np.float32), (1, 1), (1, 1), (0,) * 4, 1)
    ends = ("c1", "r1") if where == "bfloat16" else ("soft", "gained")
    splice(model.graph, *ends, [(conv, None)], "new")
    narrow(model, record)
    weight = model.graph.initializers["new.weight"].const_value
    assert weight is not None
    if where == "bfloat16":
        assert weight.dtype == ir.DataType.BFLOAT16
        assert float(weight.numpy().flat[0]) == 1.0 + 2.0**-7  # rounded up, as it is past the middle
    else:
        assert weight.dtype == ir.DataType.FLOAT and weight.numpy().flat[0] == value.flat[0]
    assert held == {name: bits(model, name) for name in held}
    write(model, tmp_path / "out.onnx")


def test_casts_that_were_folded_away_come_back(tmp_path: Path) -> None:
    """Widened, they cast float32 to float32, and what prepares the model removes them."""
    model = read(tmp_path / "m.onnx")
    record = widen(model)
    assert record is not None
    normalise(model)
    IdentityEliminationPass()(model)
    assert not any(node.op_type == "Cast" for node in model.graph)
    narrow(model, record)
    assert types(model)["soft"] == ir.DataType.FLOAT and types(model)["c2"] == ir.DataType.BFLOAT16
    assert sum(node.op_type == "Cast" for node in model.graph) == 2
    write(model, tmp_path / "out.onnx")
