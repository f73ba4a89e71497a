"""A whole graph as a module: names, shared weights, taps, gradients, types."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.errors import ModelError  # noqa: E402
from onnx_layermerge.graph import Session, load, write  # noqa: E402
from onnx_layermerge.recover.training import onnx_module, put_back, unsupported_nodes  # noqa: E402
from onnx_layermerge.recover.training._module import parameter_name  # noqa: E402
from tests import zoo  # noqa: E402


def module_of(net: zoo.Net, *outputs: str) -> Any:
    return onnx_module(ir.from_proto(net.proto(*outputs)))


def tensors(feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


@pytest.mark.parametrize("name", zoo.ALL)
def test_networks_give_what_onnxruntime_gives_and_come_back_whole(name: str, tmp_path: Path) -> None:
    net, output = zoo.ALL[name]()
    path = net.save(tmp_path / "in.onnx", output)
    model = load(path)
    module = onnx_module(model)
    feeds = zoo.feeds_for(net)
    with torch.no_grad():
        got = module(tensors(feeds))[output].numpy()
    np.testing.assert_allclose(got, zoo.run(onnx.load(path), feeds)[output], rtol=1e-5, atol=1e-5)
    assert put_back(model, {name: weight.detach().numpy() for name, weight in module.weights.items()}) == ()
    write(model, tmp_path / "out.onnx")
    before, after = (
        {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(file).graph.initializer}
        for file in (path, tmp_path / "out.onnx")
    )
    assert before == after


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=8), st.text(max_size=8))
def test_different_initializers_have_different_names_that_torch_allows(one: str, other: str) -> None:
    assert (parameter_name(one) == parameter_name(other)) == (one == other)
    assert "." not in parameter_name(one) and parameter_name(one)


def test_names_with_dots_and_those_of_torch_itself_are_parameters() -> None:
    names = ["a.b", "a%2Eb", "a_b", "forward", "training"]
    net = zoo.Net()
    value = net.input()
    for number, name in enumerate(names):
        net.nodes.append(helper.make_node("Conv", [value, name], [f"v{number}"], name=f"v{number}"))
        net.constant(name, zoo.np.random.default_rng(number).standard_normal((4, 4, 1, 1)).astype(np.float32))
        value = f"v{number}"
    module = module_of(net, value)
    assert list(module.weights) == names
    assert len(dict(module.named_parameters())) == len(names)
    for name in names:
        np.testing.assert_array_equal(module.weights[name].detach(), net.weights[name])


def test_a_shared_initializer_is_one_parameter_with_the_gradients_of_all_its_uses() -> None:
    net = zoo.Net()
    weight = net.constant("w", np.full((4, 4, 1, 1), 0.1, np.float32))
    x = net.input()
    one = net.node("Conv", x, weight, name="one")
    two = net.node("Conv", one, weight, name="two")
    module = module_of(net, two)
    assert len(list(module.parameters())) == 1
    feeds = zoo.feeds_for(net)
    module(tensors(feeds))[two].sum().backward()
    w = torch.full((4, 4, 1, 1), 0.1, requires_grad=True)
    x = torch.from_numpy(feeds["x"])
    torch.conv2d(torch.conv2d(x, w), w).sum().backward()
    np.testing.assert_allclose(module.weights["w"].grad, w.grad, rtol=1e-4)


def test_taps_are_values_inside_and_what_no_output_needs_is_not_computed() -> None:
    net, output = zoo.residual()
    model = ir.from_proto(net.proto(output))
    module, feeds = onnx_module(model), zoo.feeds_for(net)
    proto = net.proto(output)
    proto.graph.output.append(helper.make_empty_tensor_value_info("r1"))
    wanted = Session(proto.SerializeToString()).run(feeds)
    got = module(tensors(feeds), ["r1", "x"])
    assert set(got) == {output, "r1", "x"}
    np.testing.assert_allclose(got["r1"].detach(), wanted["r1"], rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyError):
        module(tensors(feeds), ["nowhere"])
    assert set(module.value_names) >= {"c0", "r1", output}


def test_every_weight_of_the_networks_gets_a_gradient() -> None:
    for name in zoo.ALL:
        net, output = zoo.ALL[name]()
        module = module_of(net, output)
        module(tensors(zoo.feeds_for(net)))[output].square().mean().backward()
        assert module.weights and all(bool((w.grad != 0).any()) for w in module.weights.values()), name


STRIDED = """
import torch
from tests import zoo
from tests.recover.training.test_module import module_of, tensors
torch.set_num_threads(1)
net, output = zoo.downsample()
module, feeds = module_of(net, output), tensors(zoo.feeds_for(net))
for _ in range(40):
    module(feeds)[output].square().mean().backward()
"""


def test_the_gradient_of_a_pointwise_convolution_with_a_stride_stays_within_its_memory() -> None:
    """In a process of its own: what it broke was the allocator's, and another test's."""
    ended = subprocess.run([sys.executable, "-c", STRIDED], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_channels_of_a_place_lie_side_by_side_through_a_network_of_pictures() -> None:
    net, output = zoo.inverted()
    module = module_of(net, output)
    names = [name for name in module.value_names if name != output]
    found = module(tensors(zoo.feeds_for(net)), names)
    pictures = [value for value in found.values() if value.ndim == 4]
    assert pictures
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in pictures)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_narrow_floats_are_computed_in_float32_and_wide_ones_as_they_are(dtype: Any) -> None:
    net = zoo.Net(dtype=dtype)
    value = net.relu(net.conv(net.input(), "c"), "r")
    module = module_of(net, value)
    got = module(tensors(zoo.feeds_for(net)))[value]
    assert got.dtype == (torch.float32 if dtype == np.float16 else torch.float64)
    wide = zoo.Net(dtype=np.float64)
    wide.weights = {name: array.astype(np.float64) for name, array in net.weights.items()}
    wide.node("Conv", wide.input(), "c.w", "c.b", name="c", pads=[1] * 4)
    feeds = {name: array.astype(np.float64) for name, array in zoo.feeds_for(net).items()}
    exact = zoo.run(wide.proto(wide.node("Relu", "c", name="r")), feeds)["r"]
    np.testing.assert_allclose(got.detach(), exact, rtol=1e-5, atol=1e-5)


def test_functions_of_the_model_are_looked_into() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = own.twice (x, w) }
        <domain: "own", opset_import: ["": 17]>
        twice (a, b) => (c) { m = MatMul (a, b)  c = Add (m, m) }
        """
    )
    held = ir.from_proto(model)
    module = onnx_module(held)
    got = module({"x": torch.tensor([[1.0, 1.0]])})["y"]
    np.testing.assert_array_equal(got.detach(), [[8, 12]])
    assert list(module.weights) == ["w"] and len(list(held.graph)) == 1


def test_operators_without_a_function_are_named_with_their_node() -> None:
    net = zoo.Net()
    value = net.node("RandomNormalLike", net.conv(net.input(), "c"), name="drawn")
    model = ir.from_proto(net.proto(value))
    assert [node.name for node in unsupported_nodes(model)] == ["drawn"]
    with pytest.raises(ModelError, match="'drawn' has the operator RandomNormalLike"):
        onnx_module(model)


def test_control_flow_is_refused() -> None:
    body = parser.parse_graph("inner () => (float[1] z) { z = Constant<value = float[1] {1.0}>() }")
    node = helper.make_node("If", ["b"], ["y"], name="choice", then_branch=body, else_branch=body)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("b", 9, [])], [helper.make_tensor_value_info("y", 1, [1])]
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    with pytest.raises(ModelError, match="'choice' has the operator If"):
        onnx_module(model)


def test_sizes_that_are_computed_follow_the_input() -> None:
    net = zoo.Net()
    x = net.conv(net.input(shape=("N", 4, "H", "W")), "c")
    shape = net.node("Shape", x, name="shape", end=2)
    sizes = net.node("Concat", shape, net.constant("rest", np.array([-1])), name="sizes", axis=0)
    value = net.node("ReduceMean", net.node("Reshape", x, sizes, name="flat"), name="y", axes=[2], keepdims=0)
    module = module_of(net, value)
    for n, h, w in itertools.product((1, 3), (4, 5), (6,)):
        feeds = {"x": np.random.default_rng(0).standard_normal((n, 4, h, w)).astype(np.float32)}
        got = module(tensors(feeds))[value].detach()
        np.testing.assert_allclose(got, zoo.run(net.proto(value), feeds)[value], rtol=1e-5, atol=1e-6)


def test_bounds_are_no_buffers_so_that_no_device_is_asked_for_them() -> None:
    net = zoo.Net()
    value = net.batch_norm(net.relu6(net.conv(net.input(), "c"), "six"), "norm")
    module = module_of(net, value)
    assert set(dict(module.named_buffers())) == {parameter_name("norm.mean"), parameter_name("norm.var")}
