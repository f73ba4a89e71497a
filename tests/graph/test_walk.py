"""Graphs and tensors inside nodes are found, and only nodes that cannot hold any are passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper, numpy_helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import load
from onnx_layermerge.graph._walk import all_nodes, all_tensors, bodies, may_hold
from tests import zoo

LOOKED_FOR = (
    *(AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.TENSOR, AttributeProto.TENSORS),
    *(AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS),
)


def test_no_version_of_an_operator_holds_what_the_newest_does_not() -> None:
    found = 0
    for schema in onnx.defs.get_all_schemas_with_history():
        for attribute in schema.attributes.values():
            if attribute.type.value in LOOKED_FOR:
                found += 1
                assert may_hold(schema.name, schema.domain, (attribute.type.value,)), schema.name
    assert found > 50
    assert not may_hold("Conv", "", LOOKED_FOR) and may_hold("Conv", "local", LOOKED_FOR)


def inner() -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(2, np.float32), "k"))
    out = helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [2])
    return helper.make_graph([constant, helper.make_node("Relu", ["k"], ["o"])], "inner", [], [out])


def test_bodies_of_operators_that_onnx_does_not_know_are_walked() -> None:
    node = helper.make_node("Twice", ["x"], ["y"], domain="local", body=inner(), more=[inner(), inner()])
    assert [body.name for body in bodies(node)] == ["inner"] * 3
    assert [each.op_type for each in all_nodes([node])] == ["Twice", *["Constant", "Relu"] * 3]
    graph = helper.make_graph([node], "g", [], [])
    assert [name for name, _ in all_tensors(helper.make_model(graph))] == ["k"] * 3


NAN = numpy_helper.from_array(np.full(1, np.nan, np.float32), "t")


@pytest.mark.parametrize("held", [inner(), NAN], ids=["graph", "tensor"])
def test_what_an_operator_has_no_place_for_is_refused(held: object, tmp_path: Path) -> None:
    """It is not looked at where graphs and tensors are; so nobody else may come to see it either."""
    net = zoo.Net()
    model = net.proto(net.relu(net.conv(net.input(), "c"), "r"))
    model.graph.node[-1].attribute.append(helper.make_attribute("extra", held))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is not a valid ONNX model .*extra"):
        load(tmp_path / "m.onnx")
