"""Shapes inferred without a second model are those of onnx_ir's own pass."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from onnx_layermerge.graph._shapes import infer_shapes
from tests import zoo
from tests.graph.folding import CASES, function_of_its_own


def bare(name: str) -> ir.Model:
    """A model whose nodes say nothing of shapes and types."""
    net, output = CASES[name][0]() if name in CASES else zoo.ALL[name]()
    model = ir.from_proto(net.proto(output))
    outputs = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = value.type = None
    return model


@pytest.mark.parametrize("name", [*(name for name in CASES if CASES[name][0] is not function_of_its_own), *zoo.ALL])
def test_as_the_pass_does(name: str) -> None:
    ours, wanted = bare(name), bare(name)
    assert infer_shapes(ours) == bool(ShapeInferencePass()(wanted).modified)
    for node, other in zip(ours.graph, wanted.graph, strict=True):
        for value, same in zip(node.outputs, other.outputs, strict=True):
            assert value.shape == same.shape and value.dtype == same.dtype, node.name
    before = bare(name).graph.initializers
    assert list(ours.graph.initializers) == list(before)
    for key, value in ours.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), before[key].const_value.numpy())


def test_what_is_known_is_not_asked_for_again() -> None:
    model = bare(next(iter(zoo.ALL)))
    assert infer_shapes(model)
    assert not infer_shapes(model)


def test_values_of_one_shape_do_not_share_it() -> None:
    model = bare("residual")
    assert infer_shapes(model)
    first, second = (node.outputs[0] for node in list(model.graph)[:2])
    assert first.shape == second.shape and first.shape is not None
    first.shape[0] = 77
    assert second.shape is not None and second.shape[0] != 77


def test_a_model_that_contradicts_itself_stays_as_it_is() -> None:
    net = zoo.Net()
    c = net.conv(net.input(shape=(1, 4, 8, 8)), "c")
    model = ir.from_proto(net.proto(net.node("Add", c, net.conv(c, "d"), name="sum")))
    model.graph.node("d").attributes["pads"] = ir.AttrInt64s("pads", [0] * 4)
    for node in model.graph:
        node.outputs[0].shape = node.outputs[0].type = None
    assert not infer_shapes(model)
    assert all(node.outputs[0].shape is None for node in model.graph)
