"""Parts of a model run on their own, with bodies and functions, whatever the type and wherever the weights lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx_ir.passes.common import ShapeInferencePass

from onnx_layermerge.graph import Session, extract, to_bytes
from onnx_layermerge.graph._load import load
from tests import zoo

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
K = np.random.default_rng(1).standard_normal((3, 3, 1, 1)).astype(np.float32)

IF = """
<ir_version: 8, opset_import: ["": 17]>
agraph (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 3, 1, 1] k, bool yes = {1}, float three = {3.0}> {
    c = Conv(x, k)
    r = Relu(c)
    y0 = If(yes) <
        then_branch = then_graph () => (float[N, 3, 4, 4] t) {
            inner = If(yes) <
                then_branch = deep () => (float[N, 3, 4, 4] d) { d = Mul(r, three) },
                else_branch = flat () => (float[N, 3, 4, 4] e) { e = Conv(c, k) }
            >
            t = Add(inner, x)
        },
        else_branch = else_graph () => (float[N, 3, 4, 4] f) { f = Neg(c) }
    >
    y = Conv(y0, k)
}
"""

LOOP = """
<ir_version: 8, opset_import: ["": 17]>
agraph (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 3, 1, 1] k, int64 times = {2}, bool yes = {1}> {
    c = Conv(x, k)
    y0 = Loop(times, yes, c) <
        body = b (int64 i, bool go, float[N, 3, 4, 4] state) => (bool on, float[N, 3, 4, 4] next) {
            on = Identity(go)
            s = Conv(state, k)
            next = Add(s, x)
        }
    >
    y = Conv(y0, k)
}
"""

SCAN = """
<ir_version: 8, opset_import: ["": 17]>
agraph (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 3, 1, 1] k> {
    c = Conv(x, k)
    p = GlobalAveragePool(c)
    start = Sub(p, p)
    last, all = Scan <num_scan_inputs = 1, scan_input_axes = [0], body = b
        (float[N, 3, 1, 1] sum, float[3, 4, 4] one) => (float[N, 3, 1, 1] next, float[3, 4, 4] scaled) {
            next = Add(sum, p)
            scaled = Mul(one, one)
        }> (start, c)
    y0 = Add(all, last)
    y = Conv(y0, k)
}
"""

FUNCTION = """
<ir_version: 10, opset_import: ["": 17, "local": 1, "more": 1]>
agraph (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 3, 1, 1] k> {
    c = Conv(x, k)
    y0 = local.twice <slope = 0.5> (c, x)
    y = Conv(y0, k)
}
<opset_import: ["": 17, "more": 1], domain: "local">
twice <slope> (a, b) => (out) {
    bent = LeakyRelu <alpha: float = @slope> (a)
    out = more.sum (bent, b)
}
<opset_import: ["": 17], domain: "more">
sum (a, b) => (out) {
    out = Add(a, b)
}
"""


@pytest.mark.parametrize("text", [IF, LOOP, SCAN, FUNCTION], ids=["If", "Loop", "Scan", "function"])
def test_bodies_and_functions_survive_being_cut_out(text: str, tmp_path: Path) -> None:
    proto = parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(K, "k"))
    kept = [value for value in proto.graph.value_info if value.name != "k"]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    ShapeInferencePass()(model)  # inputs of a part need types
    whole = Session(proto.SerializeToString()).run({"x": X})["y"]
    np.testing.assert_array_equal(Session(model).run({"x": X})["y"], whole)
    first, rest = extract(model, ["x"], ["y0"]), extract(model, ["x", "c"], ["y"])
    behind = extract(model, ["y0"], ["y"])
    y0 = Session(first).run({"x": X})["y0"]
    np.testing.assert_array_equal(Session(behind).run({"y0": y0})["y"], whole)
    c = Session(extract(model, ["x"], ["c"])).run({"x": X})["c"]
    np.testing.assert_array_equal(Session(rest).run({"x": X, "c": c})["y"], whole)
    # What is captured counts: another value for it, another result.
    assert not np.array_equal(Session(rest).run({"x": X, "c": c + 1})["y"], whole)
    assert {op for op in ("If", "Loop", "Scan", "twice") if op in text} == {node.op_type for node in first.graph} & {
        "If",
        "Loop",
        "Scan",
        "twice",
    }


def test_half_precision_runs_on_the_cpu(tmp_path: Path) -> None:
    def built(kind: type) -> tuple[zoo.Net, str]:
        net = zoo.Net(seed=3, dtype=kind)
        r1 = net.relu(net.conv(net.input(), "c1", 6), "r1")
        return net, net.classifier(net.add(net.depthwise(r1, "c2"), r1, "add"))

    net, output = built(np.float16)
    feeds = zoo.feeds_for(net)
    got = Session(load(net.save(tmp_path / "m.onnx", output))).run(feeds)[output]
    same, _ = built(np.float32)
    for name in net.weights:
        same.weights[name] = net.weights[name].astype(np.float32)
    wanted = Session(same.proto(output).SerializeToString()).run(
        {name: value.astype(np.float32) for name, value in feeds.items()}
    )[output]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, wanted, rtol=2e-2, atol=2e-3 * abs(wanted).max())


def test_equal_parts_are_equal_bytes_and_others_are_not() -> None:
    net, output = zoo.residual()
    parts = [extract(ir.from_proto(net.proto(output)), ["x"], ["c2"]) for _ in range(2)]
    assert to_bytes(parts[0]) == to_bytes(parts[1])
    value = parts[1].graph.initializers["c1.w"]
    value.const_value = ir.tensor(value.const_value.numpy() * 2, name="c1.w")  # type: ignore[union-attr]
    assert to_bytes(parts[0]) != to_bytes(parts[1])
