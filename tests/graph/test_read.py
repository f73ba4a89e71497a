"""From file to network: what is folded, what is refused, and that the function stays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.graph import InputInfo, bind_shapes, load, network_of, normalise, random_feeds, read, trace_shapes
from tests import zoo


def kinds(network: object) -> list[str]:
    return [node.op_type for node in network.order]  # type: ignore[attr-defined]


def assert_same(net: zoo.Net, path: Path, network: object, **options: int) -> None:
    feeds = zoo.feeds_for(net, **options)
    wanted, got = zoo.run(onnx.load(path), feeds), zoo.run(network.model, feeds)  # type: ignore[attr-defined]
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-5 * np.abs(value).max())


@pytest.mark.parametrize("name", zoo.ALL)
def test_reading_keeps_the_function(name: str, tmp_path: Path) -> None:
    net, output = zoo.ALL[name]()
    path = net.save(tmp_path / "m.onnx", output)
    network = read(path)
    assert network.outputs == (output,) and network.source == str(path)
    assert len(network.digest) == 64
    assert_same(net, path, network)


def test_batch_norm_folds_with_its_own_epsilon(tmp_path: Path) -> None:
    net = zoo.Net()
    out = net.relu(net.batch_norm(net.conv(net.input(), "c1", bias=False), "bn", epsilon=0.5), "r1")
    path = net.save(tmp_path / "m.onnx", out)
    network = read(path)
    assert kinds(network) == ["Conv", "Relu"]
    assert network.steps
    scale = net.weights["bn.scale"] / np.sqrt(net.weights["bn.var"] + np.float32(0.5))
    np.testing.assert_allclose(
        network.convs[0].weight, net.weights["c1.w"] * scale[:, None, None, None], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        network.convs[0].bias, net.weights["bn.shift"] - net.weights["bn.mean"] * scale, rtol=1e-5, atol=1e-6
    )
    assert_same(net, path, network)


def test_a_batch_norm_without_a_convolution_stays_and_is_a_barrier(tmp_path: Path) -> None:
    net = zoo.Net()
    out = net.conv(net.relu(net.batch_norm(net.relu(net.conv(net.input(), "c0"), "r0"), "bn"), "r1"), "c1")
    network = read(net.save(tmp_path / "m.onnx", out))
    assert "BatchNormalization" in kinds(network)


def test_pad_folds_into_the_convolution_behind_it(tmp_path: Path) -> None:
    net = zoo.Net()
    pads = net.constant("pads", np.array([0, 0, 0, 1, 0, 0, 2, 1], np.int64))
    padded = net.node("Pad", net.input(), pads, name="pad")
    path = net.save(tmp_path / "m.onnx", net.conv(padded, "c1", 4, pads=0, stride=2))
    network = read(path)
    assert kinds(network) == ["Conv"]
    assert network.convs[0].pads == (0, 1, 2, 1)
    assert_same(net, path, network)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad_over_a_known_size_becomes_pads(mode: str, tmp_path: Path) -> None:
    net = zoo.Net()
    path = net.save(tmp_path / "m.onnx", net.conv(net.input(shape=("N", 4, 8, 8)), "c1", stride=2, auto_pad=mode))
    network = read(path)
    assert network.convs[0].pads == ((0, 0, 1, 1) if mode == "SAME_UPPER" else (1, 1, 0, 0))
    assert_same(net, path, network)


def test_auto_pad_over_an_unknown_size_is_refused_with_a_reason(tmp_path: Path) -> None:
    net = zoo.Net()
    first = net.conv(net.input(shape=("N", 4, "H", "W")), "c1", stride=2, auto_pad="SAME_UPPER")
    path = net.save(tmp_path / "m.onnx", net.conv(first, "c2"))
    network = read(path, shapes={"x": (1, 4, 9, 9)})
    assert network.refused == {0: "auto_pad SAME over an input of unknown size"}
    assert list(network.convs) == [1]


def test_auto_pad_valid_is_no_padding(tmp_path: Path) -> None:
    net = zoo.Net()
    network = read(net.save(tmp_path / "m.onnx", net.conv(net.input(), "c1", auto_pad="VALID")))
    assert network.convs[0].pads == (0, 0, 0, 0)


def test_convolutions_of_every_kind_are_read_as_they_are(tmp_path: Path) -> None:
    net = zoo.Net()
    c1 = net.conv(net.input(), "c1", 6, bias=False)
    c2 = net.conv(c1, "c2", 9, 3, groups=3, dilation=2)
    network = net.network(net.depthwise(c2, "c3", 5, stride=2, pads=[1, 2, 2, 1]))
    first, second, third = (network.convs[position] for position in sorted(network.convs))
    assert first.bias is None and (first.channels_in, first.channels_out, first.kernel) == (4, 6, (3, 3))
    assert (second.groups, second.dilation, second.pads, second.channels_in) == (3, (2, 2), (2, 2, 2, 2), 6)
    assert (third.groups, third.stride, third.pads, third.kernel) == (9, (2, 2), (1, 2, 2, 1), (5, 5))
    np.testing.assert_array_equal(third.weight, net.weights["c3.w"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"no model at all", "is not a valid ONNX model|cannot be read as ONNX"),
        (None, "does not exist"),
    ],
)
def test_files_that_are_no_models(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        load(path)


def test_more_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a directory"):
        load(tmp_path)
    net, output = zoo.plain()
    path = net.save(tmp_path / "m.onnx", output)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="cannot be read as ONNX|not a valid ONNX"):
        load(path)
    dense = zoo.Net()
    dense.relu(dense.input(), "r")
    with pytest.raises(ModelError, match="no Conv node"):
        read(dense.save(tmp_path / "dense.onnx", "r"))


@pytest.mark.parametrize(
    ("op", "domain", "said"),
    [
        ("ConvTranspose", "", r"transposed convolutions \(ConvTranspose\) are not replaced"),
        ("FusedConv", "com.microsoft", "fused by onnxruntime's optimizer; give the original export"),
    ],
)
def test_other_convolutions_are_named_where_there_is_no_plain_one(
    op: str, domain: str, said: str, tmp_path: Path
) -> None:
    net = zoo.Net()
    proto = net.proto(net.relu(net.conv(net.input(), "c"), "r"))
    proto.graph.node[0].op_type, proto.graph.node[0].domain = op, domain
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"no Conv node; .*{said}"):
        read(tmp_path / "m.onnx")


def test_a_model_that_onnxruntime_cannot_run_is_refused(tmp_path: Path) -> None:
    net = zoo.Net()
    net.conv(net.input(shape=("N", 4, "H", "W")), "c1", pads=0)
    path = net.save(tmp_path / "m.onnx", "c1")
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        read(path, shapes={"x": (1, 4, 2, 2)})  # smaller than the kernel


INFOS = (
    InputInfo("x", ("N", 3, "H", 8), np.dtype("f4")),
    InputInfo("y", (2, 3), np.dtype("f4")),
)


def test_shapes_are_bound_from_the_option_the_model_and_the_batch() -> None:
    assert bind_shapes(INFOS, {"x": (4, 3, 6, 8)}) == {"x": (4, 3, 6, 8), "y": (2, 3)}
    assert bind_shapes(INFOS, {}, batch=5, guess=7) == {"x": (5, 3, 7, 8), "y": (2, 3)}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, r"give --shapes x:1x3x224x8"),
        ({"z": (1,)}, "names input 'z', but the model's inputs are x, y"),
        ({"x": (1, 4, 8, 8)}, "contradicts"),
        ({"x": (1, 3, 8)}, "contradicts"),
        ({"x": (1, 3, 0, 8)}, "contradicts"),
    ],
)
def test_shapes_that_cannot_be(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bind_shapes(INFOS, shapes)


def test_random_feeds_have_the_models_types_and_repeat() -> None:
    infos = (*INFOS, InputInfo("i", (1, 4), np.dtype("i8")))
    bound = bind_shapes(infos, {}, guess=4)
    first, second = random_feeds(infos, bound), random_feeds(infos, bound)
    assert {name: (value.shape, value.dtype) for name, value in first.items()} == {
        "x": ((1, 3, 4, 8), np.dtype("f4")),
        "y": ((2, 3), np.dtype("f4")),
        "i": ((1, 4), np.dtype("i8")),
    }
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_traced_shapes_are_those_of_a_run() -> None:
    network = zoo.network("inverted")
    shapes = trace_shapes(network, {"x": (3, 4, 9, 10)})
    assert shapes["stem"] == (3, 4, 4, 5) and shapes["dw"] == (3, 16, 4, 5) and shapes["dw2"] == (3, 16, 2, 2)
    assert shapes["x"] == (3, 4, 9, 10)
    with pytest.raises(ModelError, match="does not run on inputs of shape"):
        trace_shapes(network, {"x": (3, 5, 9, 10)})


def test_macs_of_a_stretch() -> None:
    network = zoo.network("downsample")
    shapes = trace_shapes(network, {"x": (1, 4, 8, 8)})
    dense = 64 * 4 * 4 * 9, 16 * 6 * 4 * 9, 16 * 6 * 6 * 9, 16 * 6 * 4
    assert network.cost_macs(0, len(network.order), shapes) == sum(dense)


def test_what_nested_graphs_read_counts_as_read_outside() -> None:
    net = zoo.Net()
    c2 = net.conv(net.conv(net.input(), "c1"), "c2")
    branch = [helper.make_graph([helper.make_node("Relu", ["c1"], [f"{side}.out"])], side, [],
              [helper.make_tensor_value_info(f"{side}.out", net.type, None)]) for side in ("then", "else")]  # fmt: skip
    flag = net.constant("flag", np.array(True))
    net.nodes.append(helper.make_node("If", [flag], ["picked"], name="picked",
                                      then_branch=branch[0], else_branch=branch[1]))  # fmt: skip
    network = net.network(net.add("picked", c2, "add"))
    names = [node.name for node in network.order]
    assert network.users(network.values["c1"]) == [names.index("c2"), len(names)]
    assert names.index("c1") < names.index("picked")


def test_normalising_keeps_opsets_and_names_every_value() -> None:
    net, output = zoo.residual()
    model = ir.from_proto(net.proto(output))
    for node in model.graph:
        node.name = None
    before = dict(model.graph.opset_imports)
    normalise(model)
    assert dict(model.graph.opset_imports) == before
    names = [node.name for node in model.graph]
    assert all(names) and len(set(names)) == len(names)
    assert network_of(model).outputs == (output,)


def test_sizes_that_nothing_binds_are_tried_one_after_the_other(tmp_path: Path) -> None:
    """A window of 300 does not fit into the first guess."""
    net = zoo.Net()
    out = net.conv(net.input(shape=("N", 1, "L")), "c1", 2, 300, pads=0, stride=16)
    assert kinds(read(net.save(tmp_path / "m.onnx", out))) == ["Conv"]


def test_the_digest_is_that_of_the_bytes_on_disk(tmp_path: Path) -> None:
    net, output = zoo.plain()
    path = net.save(tmp_path / "m.onnx", output)
    assert read(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_digest_covers_the_weights_beside_the_file(tmp_path: Path) -> None:
    net, output = zoo.plain()
    proto = net.proto(output)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    beside = tmp_path / "w.bin"
    first = read(path).digest
    assert first == hashlib.sha256(path.read_bytes() + beside.read_bytes()).hexdigest()
    weights = bytearray(beside.read_bytes())
    weights[0] ^= 1
    beside.write_bytes(bytes(weights))
    assert read(path).digest != first


def test_the_weights_are_in_memory_once(tmp_path: Path) -> None:
    """What is not folded is the very tensor that was loaded, in the file's own bytes where they lie outside."""
    net, output = zoo.plain()
    path = tmp_path / "m.onnx"
    onnx.save(net.proto(output), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    network = read(path)
    tensors = [value.const_value for value in network.model.graph.initializers.values()]
    assert len(tensors) == 6 and all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


def amplifier(gain: float) -> onnx.ModelProto:
    """sin(gain · BatchNorm(c)): from a gain of 10⁸ on, rounding alone decides what comes out."""
    net = zoo.Net()
    value = net.batch_norm(net.conv(net.input(), "c"), "bn", epsilon=0.3)
    value = net.node("Mul", value, net.constant("k", np.array(gain, "f4")), name="m")
    return net.proto(net.node("Sin", value, name="s"))


def test_a_model_whose_outputs_are_rounding_is_read_as_it_is(tmp_path: Path) -> None:
    for gain, steps in ((1.0, ("fold scales and shifts into Conv",)), (1e8, ())):
        onnx.save(amplifier(gain), tmp_path / "m.onnx")
        network = read(tmp_path / "m.onnx")
        assert network.steps == steps
        assert ("BatchNormalization" in {node.op_type for node in network.order}) == (not steps)
