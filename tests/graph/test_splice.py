from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import (
    Activation,
    Conv,
    activation_nodes,
    activation_of,
    check_target,
    extract,
    splice,
    sweep,
    to_bytes,
    write,
    write_bytes,
)
from tests import zoo


def identity(channels: int, rank: int = 2) -> Conv:
    weight = np.zeros((channels, channels, *(1,) * rank), np.float32)
    weight[range(channels), range(channels)] = 1
    return Conv(weight, None, (1,) * rank, (1,) * rank, (0,) * (2 * rank), 1)


def model_of(build: str, *more: str) -> tuple[zoo.Net, ir.Model]:
    net, output = zoo.ALL[build]()
    return net, ir.from_proto(net.proto(output, *more))


def test_a_series_takes_over_the_name_and_all_readers() -> None:
    net, model = model_of("residual")
    splice(model.graph, "c0", "r0", ((identity(6), None), (identity(6), None)), "new")
    sweep(model)
    assert [node.op_type for node in model.graph].count("Relu") == 2
    add = next(node for node in model.graph if node.op_type == "Add")
    assert "r0" in {value.name for value in add.inputs if value is not None}
    # Without the Relu: what the network would compute if c0 were read in place of r0.
    alone, output = zoo.residual()
    for node in alone.nodes:
        for index, name in enumerate(node.input):
            if name == "r0":
                node.input[index] = "c0"
    feeds = zoo.feeds_for(net)
    wanted = zoo.run(alone.proto(output), feeds)
    np.testing.assert_allclose(zoo.run(model, feeds)[output], wanted[output], rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(onnx.load_from_string(to_bytes(model)), full_check=True)


@pytest.mark.parametrize("series", [(), ((identity(6), None),)])
def test_an_output_of_the_graph_keeps_its_name(series: tuple[tuple[Conv, None], ...]) -> None:
    net, model = model_of("plain", "c2")
    splice(model.graph, "r1", "c2", series, "new")
    sweep(model)
    assert [value.name for value in model.graph.outputs] == ["c3", "c2"]
    feeds = zoo.feeds_for(net)
    got = zoo.run(model, feeds)
    np.testing.assert_allclose(got["c2"], zoo.run(extract(model, ["x"], ["r1"]), feeds)["r1"], atol=1e-6)


def test_nothing_between_the_input_and_its_first_reader() -> None:
    net = zoo.Net()
    out = net.conv(net.relu(net.conv(net.input(), "c1"), "r1"), "c2")
    model = ir.from_proto(net.proto(out))
    splice(model.graph, "x", "c1", (), "gone")
    sweep(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Conv"]
    feeds = zoo.feeds_for(net)
    assert zoo.run(model, feeds)[out].shape == feeds["x"].shape


def test_activations_travel_with_their_constants() -> None:
    net = zoo.Net()
    slope = net.constant("slope", np.arange(4, dtype=np.float32).reshape(4, 1, 1))
    network = net.network(net.node("PRelu", net.conv(net.input(), "c1"), slope, name="p"))
    model, source = network.model, network.values["c1"]
    activation = activation_of(network, 1)
    assert isinstance(activation, Activation) and activation.channelwise
    (copy,), value = activation_nodes(model.graph, source, activation, "copy")
    model.graph.append(copy)
    model.graph.outputs.append(value)
    value.name, value.type = "q", network.values["p"].type
    got = zoo.run(model, zoo.feeds_for(net))
    np.testing.assert_array_equal(got["p"], got["q"])


def test_an_activation_with_an_input_left_out() -> None:
    net = zoo.Net()
    high = net.constant("high", np.float32(2).reshape(()))
    network = net.network(net.node("Clip", net.conv(net.input(), "c1"), "", high, name="a"))
    activation = activation_of(network, 1)
    assert activation is not None and not activation.channelwise
    (step,) = activation.steps
    assert step.inputs == (0, None, np.float32(2))


def test_a_cut_out_part_computes_what_the_whole_does() -> None:
    net, model = model_of("residual")
    feeds = zoo.feeds_for(net)
    middle = zoo.run(extract(model, ["x"], ["r0", "c2"]), feeds)
    rest = extract(model, ["r0", "c2"], ["c3"])
    assert len(model.graph) == 8 and len(rest.graph) == 3
    np.testing.assert_allclose(zoo.run(rest, middle)["c3"], zoo.run(model, feeds)["c3"], rtol=1e-6, atol=1e-6)


def test_equal_parts_are_equal_bytes() -> None:
    models = [model_of("inverted")[1] for _ in range(20)]  # all alive: each at another address
    parts = [extract(model, ["x"], ["project2"]) for model in models]
    assert len({to_bytes(part) for part in parts}) == 1
    assert list(parts[0].graph.initializers) == list(models[0].graph.initializers)


def test_a_value_may_be_both_way_in_and_way_out_of_a_part() -> None:
    net, model = model_of("plain", "r1")
    feeds = zoo.feeds_for(net)
    value = zoo.run(model, feeds)["r1"]
    rest = extract(model, ["x", "r1"], ["c3", "r1"])
    np.testing.assert_array_equal(zoo.run(rest, {"x": feeds["x"], "r1": value})["r1"], value)


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"the old one")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    _, model = model_of("plain")
    with pytest.raises(OutputError, match="No space left"):
        write(model, path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(model, path)
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


def test_a_model_that_fails_the_checker_is_never_written(tmp_path: Path) -> None:
    _, model = model_of("plain")
    next(iter(model.graph)).attributes["strides"] = ir.AttrInt64s("strides", [1, 1, 1])
    with pytest.raises(OutputError, match="fails the ONNX checker"):
        write(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_what_was_meant(tmp_path: Path) -> None:
    _, model = model_of("plain")
    write(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == to_bytes(model)
    os.umask(umask := os.umask(0))
    assert (tmp_path / "out.onnx").stat().st_mode & 0o777 == 0o666 & ~umask


def test_targets_are_checked_before_any_work(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    source.write_bytes(b"x")
    (tmp_path / "same.onnx").symlink_to(source)
    assert check_target(tmp_path / "out.onnx", not_over=source) == tmp_path / "out.onnx"
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "out.onnx", "does not exist"),
        (source, "is the input itself"),
        (tmp_path / "same.onnx", "is the input itself"),
    ):
        with pytest.raises(OutputError, match=said):
            check_target(path, not_over=source)
    with pytest.raises(OutputError, match="cannot write into"):
        write_bytes(tmp_path / "missing" / "out.onnx", b"")
