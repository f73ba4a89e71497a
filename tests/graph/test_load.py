"""What is read, what comes back converted, and where the weights are afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Session, load, to_bytes
from onnx_layermerge.graph._load import converted_from
from tests import zoo

X = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)


def simple(opset: int, ir_version: int) -> onnx.ModelProto:
    net = zoo.Net()
    net.relu(net.conv(net.input(shape=("N", 4, 6, 6)), "c1", 3), "r1")
    model = net.proto("r1")
    model.opset_import[0].version, model.ir_version = opset, ir_version
    return model


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_from_7_on_is_read_as_it_is(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(simple(opset, 3 if opset < 9 else onnx.IR_VERSION), path)
    if opset < 9:  # up to IR version 3 weights are inputs too
        proto = onnx.load(path)
        for tensor in proto.graph.initializer:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        onnx.save(proto, path)
    model = load(path)
    assert model.graph.opset_imports[""] == opset and converted_from(model) is None


def old(opset: int, ir_version: int, batch: int | str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Conv, Add along axis 1, BatchNormalization, Mul along axis 1, a plain Add, Dropout, Gemm: as of 2017."""
    draw = np.random.default_rng(1)
    shapes = {"w": (6, 4, 3, 3), "shift": (6,), "factor": (6,), "scale": (6,), "bias": (6,), "mean": (6,), "var": (6,)}
    shapes |= {"head": (6 * 36, 5), "offset": (5,)}
    arrays = {name: draw.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    consumed = {"consumed_inputs": [0, 0]} if opset < 6 else {}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "shift"], ["a"], broadcast=1, axis=1, **consumed),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["n"], is_test=1, epsilon=1e-3)
        if opset >= 6
        else helper.make_node(
            "BatchNormalization",
            ["a", "scale", "bias", "mean", "var"],
            ["n"],
            is_test=1,
            epsilon=1e-3,
            consumed_inputs=[0, 0, 0, 1, 1],
        ),
        helper.make_node("Mul", ["n", "factor"], ["m"], broadcast=1, axis=-3, **consumed),
        helper.make_node("Add", ["m", "c"], ["s"], **consumed),
        helper.make_node("Dropout", ["s"], ["d"], is_test=1, **({"consumed_inputs": [0]} if opset < 6 else {})),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "offset"], ["y"], broadcast=1),
    ]
    info = helper.make_tensor_value_info
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    listed = [info(each.name, TensorProto.FLOAT, each.dims) for each in weights]
    inputs = [info("x", TensorProto.FLOAT, [batch, 4, 6, 6]), *listed]
    graph = helper.make_graph(nodes, "old", inputs, [info("y", TensorProto.FLOAT, [batch, 5])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    if ir_version < 3:
        model.ir_version = ir_version
        del model.opset_import[:]
    return model, arrays


@pytest.mark.parametrize(("opset", "ir_version"), [(1, 2), (1, 3), (5, 3), (6, 3)])
@pytest.mark.parametrize("batch", [2, "N"])
def test_older_opsets_are_converted_and_compute_the_same(
    opset: int, ir_version: int, batch: int | str, tmp_path: Path
) -> None:
    proto, arrays = old(opset, ir_version, batch)
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert converted_from(model) == converted_from(model.clone()) == opset and model.graph.opset_imports[""] >= 7
    got = Session(model).run({"x": X})["y"]

    def along_channels(name: str) -> np.ndarray:
        return arrays[name].astype(np.float64).reshape(6, 1, 1)

    padded = np.pad(X.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", windows, arrays["w"])
    shifted = conv + along_channels("shift")
    normal = (shifted - along_channels("mean")) / np.sqrt(along_channels("var") + 1e-3)
    total = (normal * along_channels("scale") + along_channels("bias")) * along_channels("factor") + conv
    np.testing.assert_allclose(got, total.reshape(2, -1) @ arrays["head"] + arrays["offset"], rtol=1e-4)


def test_an_old_model_with_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    proto, _ = old(6, 3, 2)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ModelError, match="opset 6 together with weights in other files"):
        load(tmp_path / "m.onnx")


def external(folder: Path) -> tuple[Path, onnx.ModelProto]:
    net = zoo.Net(seed=4)
    path = net.save(folder / "m.onnx", net.relu(net.conv(net.input(shape=("N", 4, 6, 6)), "c1", 32), "r1"))
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path, onnx.load(path)


def test_weights_elsewhere_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the path is relative and the directory changes afterwards."""
    path, proto = external(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = load(Path(path.name))
    monkeypatch.chdir("/")
    weight = model.graph.initializers["c1.w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), numpy_helper.to_array(proto.graph.initializer[0]))
    assert not weight.numpy().flags.owndata


def test_a_constant_elsewhere_comes_along(tmp_path: Path) -> None:
    """Writers move initializers, not attributes, so these have to be in memory."""
    path, proto = external(tmp_path)
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "c.bin").write_bytes(values.tobytes())
    held = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value="c.bin")
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], value=held))
    proto.graph.output.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [6]))
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    os.unlink(tmp_path / "c.bin")
    np.testing.assert_array_equal(Session(model).run({"x": X})["k"], values)


def test_bytes_of_a_small_model_need_no_file(tmp_path: Path) -> None:
    path, proto = external(tmp_path)
    data = to_bytes(load(path))
    (tmp_path / "w.bin").unlink()
    whole = Session(proto.SerializeToString()).run({"x": X})["r1"]
    np.testing.assert_array_equal(Session(data).run({"x": X})["r1"], whole)


def test_a_file_that_is_too_large_for_protobuf_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # no blocks on the disk, so nothing is really that large
    with pytest.raises(ModelError, match="larger than a protobuf message of 2 GB; save its weights as external data"):
        load(path)


def test_weights_leave_their_message_and_come_back_as_they_were(tmp_path: Path) -> None:
    """Whatever field of the protobuf they are in; only the raw ones become arrays."""
    net = zoo.Net(opset=22)
    proto = net.proto(net.relu(net.conv(net.input(), "c"), "r"))
    proto.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]))
    brain = helper.make_tensor("brain", TensorProto.BFLOAT16, [2], np.uint16([0x3F80, 0x4000]).tobytes(), raw=True)
    proto.graph.initializer.append(brain)
    held = numpy_helper.from_array(np.arange(3.0), "held")
    held.doc_string = "three numbers"
    proto.graph.node.append(helper.make_node("Constant", [], ["constant"], name="constant", value=held))
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    wanted = ir.to_proto(ir.from_proto(proto))
    assert ir.to_proto(model) == wanted
    arrays = {name: isinstance(v.const_value, ir.Tensor) for name, v in model.graph.initializers.items()}
    assert arrays == {"c.w": True, "c.b": True, "typed": False, "brain": False}
    assert isinstance(model.graph.node("constant").attributes["value"].value, ir.Tensor)
