"""Nodes in any order are read as onnxruntime reads them; sorted ones stay where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import load, read
from onnx_layermerge.graph._order import _is_sorted, edges_of, sort_nodes
from tests import zoo


def places(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node]


def reverse(holder: onnx.GraphProto | onnx.FunctionProto) -> None:
    nodes = list(holder.node)[::-1]
    del holder.node[:]
    holder.node.extend(nodes)


@pytest.mark.parametrize("name", ["residual", "inverted", "squeeze"])
def test_a_reversed_file_computes_the_same(name: str, tmp_path: Path) -> None:
    net, output = zoo.ALL[name]()
    wanted = net.proto(output)
    mixed = net.proto(output)
    reverse(mixed.graph)
    onnx.save(mixed, tmp_path / "m.onnx")
    feeds = zoo.feeds_for(net)
    got = zoo.run(read(tmp_path / "m.onnx").model, feeds)[output]
    np.testing.assert_allclose(got, zoo.run(wanted, feeds)[output], rtol=0, atol=1e-5)


def test_nodes_move_no_further_than_they_must() -> None:
    net, output = zoo.residual()
    model = net.proto(output)
    before = places(model)
    sort_nodes(model)
    assert places(model) == before
    # What a converter appends for an input that it casts.
    model.graph.node.append(helper.make_node("Identity", ["x"], ["cast"]))
    model.graph.node[0].input[0] = "cast"
    sort_nodes(model)
    assert places(model) == ["cast", *before]


BODIES = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
agraph (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
<float[3, 3, 1, 1] k, bool yes = {1}> {
    c = Conv(x, k)
    later = local.act (c)
    y = If(yes) <
        then_branch = then_graph () => (float[N, 3, 4, 4] t) {
            c2 = Conv(later, k)
            d = Relu(c2)
            t = Add(d, x)
        },
        else_branch = else_graph () => (float[N, 3, 4, 4] d) { d = Neg(c) }
    >
}
<opset_import: ["": 17], domain: "local">
act (a) => (out) {
    r = Relu(a)
    out = Neg(r)
}
"""


def bodies() -> onnx.ModelProto:
    model = parser.parse_model(BODIES)
    weight = np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "k"))
    kept = [value for value in model.graph.value_info if value.name != "k"]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return model


def test_bodies_and_functions_are_sorted_and_what_they_read_comes_first(tmp_path: Path) -> None:
    wanted, mixed = bodies(), bodies()
    reverse(mixed.graph)
    reverse(mixed.functions[0])
    for attribute in mixed.graph.node[0].attribute:
        reverse(attribute.g)
    onnx.save(mixed, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(zoo.run(model, {"x": x})["y"], zoo.run(wanted, {"x": x})["y"])


@pytest.mark.parametrize(
    "edges",
    [
        ["x>a", "a>b", "b>c"],
        ["a>b", "x>a"],
        ["a>a"],
        ["x>a", "x,>b,", "a,b>c"],  # an input and an output that are left out
        ["x>a", "a>b", "x>a"],  # made twice
        ["b>c", "x>b", "x>b"],
    ],
)
def test_nodes_are_sorted_where_every_edge_leads_on(edges: list[str]) -> None:
    halves = [[part.split(",") for part in edge.split(">")] for edge in edges]
    nodes = [helper.make_node("Relu", sources, made) for sources, made in halves]
    onward = all(source < place for place, sources in enumerate(edges_of(nodes)) for source in sources)
    assert _is_sorted(nodes) == onward


def test_a_cycle_is_refused_as_one_wherever_the_rest_stands(tmp_path: Path) -> None:
    net, output = zoo.residual()
    model = net.proto(output)
    model.graph.node[2].input[0] = "c2"
    reverse(model.graph)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="reads what is made from its own output, a cycle of 3"):
        load(tmp_path / "m.onnx")


def test_a_body_may_call_its_own_values_as_it_likes() -> None:
    """No edge leads from a name that a body makes for itself to the node outside that makes another of that name."""
    inner = [helper.make_node("Relu", ["x"], ["same"]), helper.make_node("Neg", ["same"], ["o"])]
    body = helper.make_graph(inner, "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("If", ["yes"], ["branched"], then_branch=body, else_branch=body),
        helper.make_node("Abs", ["late"], ["end"]),
        helper.make_node("Exp", ["branched"], ["same"]),
        helper.make_node("Neg", ["same"], ["late"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    sort_nodes(model)
    assert places(model) == ["branched", "same", "late", "end"]
