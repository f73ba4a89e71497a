"""The walks give what onnx_ir's own give, in the same order."""

from __future__ import annotations

import onnx_ir as ir
from onnx import parser

from onnx_layermerge.graph._graphs import all_graphs, all_nodes

NESTED = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[2] x, bool c) => (float[2] y) {
    a = Relu(x)
    b = If(c) <
        then_branch = one () => (float[2] t) {
            p = Neg(a)
            q = If(c) <
                then_branch = two () => (float[2] u) { u = Abs(p) },
                else_branch = three () => (float[2] v) { v = Exp(p) }
            >
            t = Add(q, p)
        },
        else_branch = four () => (float[2] w) { w = local.act(a) }
    >
    y = Neg(b)
}
<opset_import: ["": 17], domain: "local">
act (s) => (o) {
    yes = Constant <value = bool[1] {1}> ()
    o = If(yes) <
        then_branch = five () => (float[2] m) { m = Relu(s) },
        else_branch = six () => (float[2] n) { n = Neg(s) }
    >
}
"""


def test_nested_graphs_and_functions_are_walked_as_onnx_ir_does() -> None:
    model = ir.from_proto(parser.parse_model(NESTED))
    names = [graph.name for graph in all_graphs(model.graph)]
    assert names == [graph.name for graph in model.graphs()] == ["g", "one", "two", "three", "four"]
    assert list(all_nodes(model.graph)) == list(model.graph.all_nodes())
    (function,) = model.functions.values()
    assert [graph.name for graph in all_graphs(function)] == ["five", "six"]
    assert list(all_nodes(function)) == list(function.all_nodes()) and len(list(all_nodes(function))) == 4
