"""Every step of the folding: what it folds, that it is the one that does it, and what all of them leave as it was."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_layermerge.graph import normalise, read
from onnx_layermerge.graph._normalise import FOLDING
from tests import zoo
from tests.graph.folding import (
    CASES,
    assert_same,
    batch_norm,
    computed_weights,
    constant_nodes,
    function_of_its_own,
    kinds,
    pad,
    pairs,
    prepared,
    shape_arithmetic,
    tensor_node,
    with_function,
)


@pytest.mark.parametrize("name", CASES)
def test_each_step_folds_its_case_and_no_other_step_does(name: str) -> None:
    build, step, wanted = CASES[name]
    net, output = build()
    proto = with_function(net, output) if build is function_of_its_own else net.proto(output)
    network = prepared(proto)
    assert kinds(network) == wanted
    assert network.outputs == (output,)
    assert step in network.steps or any(s.name == step and s.quiet for s in FOLDING)
    onnx.checker.check_model(ir.to_proto(network.model), full_check=True)
    assert_same(proto, network, net)
    assert kinds(prepared(proto, without=step)) != wanted or name == "constant nodes"


@pytest.mark.parametrize("name", CASES)
def test_a_tidy_step_leaves_nothing_that_nobody_reads(name: str) -> None:
    build, _, _ = CASES[name]
    net, output = build()
    model = ir.from_proto(with_function(net, output) if build is function_of_its_own else net.proto(output))
    assert any(step.tidy for step in FOLDING)
    for step in FOLDING:
        if step.apply(model) and step.tidy:
            assert not RemoveUnusedNodesPass()(model).modified, step.name
        RemoveUnusedNodesPass()(model)


def test_weights_in_constant_nodes_are_lifted_before_they_are_folded() -> None:
    net, output = constant_nodes()
    gain = tensor_node(net, "gain", np.full((4, 1, 1), 2, "f4"))
    proto = net.proto(net.node("Mul", output, gain, name="m"))
    network = prepared(proto)
    assert kinds(network) == ["Conv"] and set(network.model.graph.initializers) == {"w"}
    assert_same(proto, network, net)


def filled(net: zoo.Net, name: str, sizes: list[int], value: int) -> str:
    given = net.constant(f"{name}.sizes", np.array(sizes, np.int64))
    return net.node("ConstantOfShape", given, name=name, value=numpy_helper.from_array(np.array([value], np.int64)))


def test_a_filled_image_is_no_weight() -> None:
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    ones = net.node("ConstantOfShape", net.constant("sizes", np.array([1, 4, 64, 64])), name="ones")
    large = net.node("Resize", c, "", "", net.constant("to", np.array([1, 4, 64, 64])), name="large")
    proto = net.proto(net.add(large, ones, "sum"))
    network = prepared(proto)
    assert "ConstantOfShape" in kinds(network)
    assert sum(value.const_value.size for value in network.model.graph.initializers.values()) < 1000


@pytest.mark.parametrize("op", ["Expand", "Tile", "ConstantOfShape"])
def test_sizes_that_are_folded_do_not_make_a_tensor_that_fills_the_memory(op: str) -> None:
    net = zoo.Net()
    c = net.conv(net.input(), "c")
    sizes = filled(net, "sizes", [4], 130)  # 1.1 GB in float32
    one = net.constant("one", np.ones((1, 1, 1, 1), "f4"))
    huge = net.node(op, *([] if op == "ConstantOfShape" else [one]), sizes, name="huge")
    corner = net.node("Slice", huge, *(net.constant(f"s{end}", np.array([end] * 4)) for end in (0, 1)), name="corner")
    proto = net.proto(net.add(c, corner, "sum"))
    tracemalloc.start()
    try:
        network = prepared(proto)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert op in kinds(network) and "sizes" in network.model.graph.initializers
    assert peak < 2**26


@pytest.mark.parametrize("sizes", [[-1, 8, 4, 8], [-1, 8, 8, 8], [2, 2, 2, -1]])
def test_a_reshape_that_moves_something_stays(sizes: list[int]) -> None:
    net = zoo.Net()
    c = net.conv(net.input(shape=(2, 4, 8, "W")), "c", 4) if sizes[0] == 2 else net.conv(net.input(), "c")
    proto = net.proto(net.node("Reshape", c, net.constant("to", np.array(sizes)), name="r"))
    assert kinds(prepared(proto)) == ["Conv", "Reshape"]


@pytest.mark.parametrize("name", zoo.ALL)
def test_a_model_with_nothing_to_fold_comes_back_as_it_was(name: str) -> None:
    net, output = zoo.ALL[name]()
    proto = net.proto(output)
    network = prepared(proto)
    assert not network.steps
    made = ir.to_proto(network.model).graph
    assert [(n.name, n.op_type, *n.input, *n.output) for n in made.node] == [
        (n.name, n.op_type, *n.input, *n.output) for n in proto.graph.node
    ]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
    for label, array in net.weights.items():
        np.testing.assert_array_equal(stored[label], array)
    assert made.input == proto.graph.input and made.output == proto.graph.output


def test_nothing_of_the_optimizers_notes_is_left() -> None:
    for build in (shape_arithmetic, computed_weights, batch_norm, pairs):
        net, output = build()
        assert b"pkg.onnxscript" not in ir.to_proto(prepared(net.proto(output)).model).SerializeToString()


def test_an_identity_in_a_branch_stays_the_branchs_own() -> None:
    net = zoo.Net()
    c = net.conv(net.input(shape=(1, 4, 8, 8)), "c")
    net.inputs["flag"] = ()
    flag = net.node("Cast", "flag", name="chosen", to=onnx.TensorProto.BOOL)
    arms = [
        helper.make_graph(
            [helper.make_node(op, [c], [f"{op}.out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.out", net.type, None)],
        )
        for op in ("Identity", "Neg")
    ]
    net.nodes.append(helper.make_node("If", [flag], ["y"], name="y", then_branch=arms[0], else_branch=arms[1]))
    proto = net.proto("y")
    network = prepared(proto)
    onnx.checker.check_model(ir.to_proto(network.model))
    for chosen in (0, 1):
        feeds = {"x": zoo.feeds_for(net)["x"], "flag": np.array(chosen, "f4")}
        np.testing.assert_array_equal(zoo.run(network.model, feeds)["y"], zoo.run(proto, feeds)["y"])


def test_old_files_that_list_their_weights_as_inputs(tmp_path: Path) -> None:
    net = zoo.Net(opset=8)
    proto = net.proto(net.batch_norm(net.conv(net.input(), "c"), "bn"))
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(proto, tmp_path / "m.onnx")
    network = read(tmp_path / "m.onnx")
    assert kinds(network) == ["Conv"] and [info.name for info in network.inputs] == ["x"]


def calls_of(work: Callable[[], object]) -> int:
    """Python functions entered and generators resumed: time that no other process can touch."""
    count = 0

    def hook(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(hook)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_work_grows_with_the_graph_and_not_with_its_square() -> None:
    def deep(blocks: int) -> ir.Model:
        net = zoo.Net()
        value = net.input()
        for number in range(blocks):
            before = value
            value = net.batch_norm(net.conv(pad(net, value, f"p{number}", [1] * 4), f"c{number}", pads=0), f"b{number}")
            value = net.relu(
                net.add(net.node("Identity", value, name=f"i{number}"), before, f"a{number}"), f"r{number}"
            )
        return ir.from_proto(net.proto(value))

    small, large = deep(20), deep(80)
    normalise(deep(2))  # what is imported and remembered once
    assert calls_of(lambda: normalise(large)) < 4.6 * calls_of(lambda: normalise(small))
