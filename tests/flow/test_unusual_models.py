"""Models that are legal but not of the usual kind go through the whole job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_layermerge import DataError, compress
from tests import zoo
from tests.flow import jobs
from tests.machine import install


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def save(folder: Path, change: Callable[[onnx.ModelProto], None] = lambda model: None, **options: object) -> Path:
    """The residual network, changed, on disk."""
    net, output = jobs.residual_net(**options)  # type: ignore[arg-type]
    path = net.save(folder / "in.onnx", output)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def job(path: Path, count: int = 32, **options: object) -> onnx.ModelProto:
    calib = {"image": np.random.default_rng(3).standard_normal((count, 4, 6, 6)).astype(np.float32)}
    target = path.with_name("out.onnx")
    settings = {"speedup": 1.4, "calib": calib, "rivals": 2, "profile": path.with_name("table.json")} | options
    compress(path, target, **settings)  # type: ignore[arg-type]
    onnx.checker.check_model(str(target), full_check=True)
    return onnx.load(target)


def test_a_fixed_batch_that_the_samples_do_not_fill_evenly(tmp_path: Path) -> None:
    path = save(tmp_path, shape=(4, 4, 6, 6))
    assert job(path, 30).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    with pytest.raises(DataError, match="takes 4 at once"):
        job(path, 6)


def test_a_second_pass_over_an_own_output(tmp_path: Path) -> None:
    job(save(tmp_path), speedup=1.15)
    again = tmp_path / "again"
    again.mkdir()
    second = again / "in.onnx"
    second.write_bytes((tmp_path / "out.onnx").read_bytes())
    made = job(second, speedup=1.15)
    names = [tensor.name for tensor in made.graph.initializer]
    assert len(names) == len(set(names))


def test_weights_that_are_listed_as_inputs(tmp_path: Path) -> None:
    def listed(model: onnx.ModelProto) -> None:
        model.ir_version = 3
        model.opset_import[0].version = 13
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    made = job(save(tmp_path, listed))
    assert "image" in [value.name for value in made.graph.input]


def test_weights_in_a_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    job(path)
    (tmp_path / "weights.bin").unlink()
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)  # needs nothing beside it


def test_an_embedding_that_is_added_to_every_pixel(tmp_path: Path) -> None:
    net = zoo.Net(seed=5)
    image, shift = net.input("image", ("batch", 4, 6, 6)), net.input("shift", ("batch", 6, 1, 1))
    stem = net.relu(net.add(net.conv(image, "stem", 6), shift, "shifted"), "r")
    path = net.save(tmp_path / "in.onnx", jobs.blocks(net, stem))
    calib = {**jobs.samples(net)}
    made = job(path, calib=calib)
    assert [value.name for value in made.graph.input] == ["image", "shift"]


def gated(kernel: int, join: str, *, pooled: bool, turned: bool) -> tuple[zoo.Net, str]:
    """A branch of one channel, or of one pixel, that all of the trunk is joined with."""
    net = zoo.Net(seed=6)
    trunk = net.relu(net.conv(net.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    source = net.node("GlobalAveragePool", trunk, name="pool") if pooled else trunk
    branch = net.conv(net.relu(net.conv(source, "a", 24, kernel), "ar"), "b", 6 if pooled else 1, kernel)
    sides = (trunk, branch) if turned else (branch, trunk)
    value = net.relu(net.node(join, *sides, name="join", channels=6), "jr")
    return net, jobs.blocks(net, value, count=1)


@pytest.mark.parametrize("join", ["Add", "Sum", "Mul"])
@pytest.mark.parametrize(("pooled", "turned"), [(False, False), (False, True), (True, False)])
def test_a_branch_that_is_broadcast_over_the_trunk(join: str, pooled: bool, turned: bool, tmp_path: Path) -> None:
    net, output = gated(1 if pooled else 3, join, pooled=pooled, turned=turned)
    job(net.save(tmp_path / "in.onnx", output), calib=jobs.samples(net), speedup=1.6)


def test_an_answer_in_integers_protects_itself(tmp_path: Path) -> None:
    def answer(model: onnx.ModelProto) -> None:
        scores = model.graph.output[0].name
        model.graph.node.append(helper.make_node("ArgMax", [scores], ["answer"], axis=1, keepdims=0))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("answer", onnx.TensorProto.INT64, ["batch"]))

    assert job(save(tmp_path, answer)).graph.output[0].name == "answer"


def test_clip_bounds_with_an_axis(tmp_path: Path) -> None:
    def clipped(model: onnx.ModelProto) -> None:
        for name, bound in (("low", 0.0), ("high", 6.0)):
            model.graph.initializer.append(numpy_helper.from_array(np.array([bound], np.float32), name))
        for node in model.graph.node:
            if node.op_type == "Relu" and node.output[0].startswith("h"):
                node.op_type = "Clip"
                node.input.extend(["low", "high"])

    job(save(tmp_path, clipped))


def test_an_operator_of_another_domain_in_the_middle(tmp_path: Path) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.name == "r0":
                node.op_type, node.domain = "QuickGelu", "com.microsoft"
        del model.graph.value_info[:]
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    made = job(save(tmp_path, foreign))
    assert [node.op_type for node in made.graph.node if node.domain] == ["QuickGelu"]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    weights = {tensor.name for tensor in made.graph.initializer}
    values = [value for value in made.graph.value_info if value.name not in weights]
    assert "r0" in [value.name for value in values]
    assert not any(dim.dim_value for value in values for dim in value.type.tensor_type.shape.dim[:1])


def test_an_answer_of_truth_values_behind_a_convolution(tmp_path: Path) -> None:
    net = zoo.Net(seed=5)
    value = net.relu(net.conv(net.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    value = net.relu(net.conv(net.relu(net.conv(value, "a", 16), "h"), "b", 6), "s")
    value = net.conv(value, "mask", 2, 1)
    path = net.save(tmp_path / "in.onnx", value)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    model.graph.node.append(helper.make_node("Greater", [value, "zero"], ["answer"], name="answer"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("answer", onnx.TensorProto.BOOL, ["batch", 2, 6, 6]))
    onnx.save(model, path)
    assert job(path, speedup=1.1).graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BOOL


def test_nodes_in_the_order_in_which_a_converter_left_them(tmp_path: Path) -> None:
    def appended(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Identity", ["image"], ["image.cast"], name="cast"))
        model.graph.node[0].input[0] = "image.cast"

    job(save(tmp_path, appended))
