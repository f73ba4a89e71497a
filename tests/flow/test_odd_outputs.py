"""Outputs that are not one row of numbers for each sample, and outputs that say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_layermerge import DataError, Report, compress
from onnx_layermerge.flow import verify
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine


def save(folder: Path, net: zoo.Net, *outputs: str) -> Path:
    return net.save(folder / "in.onnx", *outputs)


def with_selection(folder: Path, *, alone: bool = False) -> Path:
    """Scores, and the places where they are positive: as many as there happen to be."""
    net, scores = jobs.residual_net()
    path = save(folder, net, scores)
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    model.graph.node.append(helper.make_node("Greater", [scores, "zero"], ["above"], name="above"))
    model.graph.node.append(helper.make_node("NonZero", ["above"], ["places"], name="places"))
    if alone:
        del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("places", TensorProto.INT64, [2, "k"]))
    onnx.save(model, path)
    return path


def turned_net() -> tuple[zoo.Net, str]:
    """[time, sample, feature], as text recognition has it; six steps."""
    net, _ = jobs.residual_net()
    net.nodes = [node for node in net.nodes if not node.name.startswith("scores")]
    del net.weights["scores.w"]
    lines = net.node("ReduceMean", "r1", name="lines", axes=[2], keepdims=0)
    return net, net.node("Transpose", lines, name="turned", perm=[2, 0, 1])


def run(path: Path, count: int = 32, **options: object) -> Report:
    given = {"speedup": 1.2, "rivals": 2, "calib": jobs.samples(jobs.residual_net()[0], count), "method": "drop"}
    profile = path.with_name("table.json")
    return compress(path, path.with_name("out.onnx"), profile=profile, **{**given, **options})  # type: ignore[arg-type]


# 64 leave one whole batch to judge by, on which nothing shows that the size depends on the data.
@pytest.mark.parametrize("count", [64, 45])
def test_an_output_whose_size_depends_on_the_data_is_left_out_with_a_word(
    machine: Machine, tmp_path: Path, count: int
) -> None:
    path = with_selection(tmp_path)
    report = run(path, count)
    assert [output.name for output in report.outputs] == ["scores"]
    assert report.validation is not None and np.isfinite(report.validation.kl)
    assert sum("'places' depends on what is in the samples" in each for each in report.warnings) == 1
    found = verify(path, path, calib=jobs.samples(jobs.residual_net()[0], count))
    assert [output.name for output in found.outputs] == ["scores"] and len(found.warnings) == 1
    assert "'places'" in found.warnings[0] and found.quality is not None and found.quality.agreement == 1


def test_without_samples_it_is_left_out_too(machine: Machine, tmp_path: Path) -> None:
    assert sum("'places' depends" in each for each in run(with_selection(tmp_path), calib=None).warnings) == 1


def test_nothing_but_such_an_output_is_an_error(machine: Machine, tmp_path: Path) -> None:
    path = with_selection(tmp_path, alone=True)
    samples = jobs.samples(jobs.residual_net()[0])
    for attempt in (lambda: run(path), lambda: run(path, calib=None), lambda: verify(path, path, calib=samples)):
        with pytest.raises(DataError, match="'places' depends .*: cut the model in front of NonMaxS"):
            attempt()
    assert not path.with_name("out.onnx").exists()


# 15 of 61 are held out: one short batch; 96 are fitted on in whole batches, the last of which is of 8.
@pytest.mark.parametrize("count", [61, 96])
def test_samples_on_a_later_axis_go_through_the_whole_job(machine: Machine, tmp_path: Path, count: int) -> None:
    net, output = turned_net()
    path = save(tmp_path, net, output)
    report = run(path, count, method="olm")
    assert report.validation is not None and 0 < report.validation.relative < 1
    assert report.fits is None or np.isfinite(report.fits.held_out_loss)
    assert verify(path, path.with_name("out.onnx"), calib=jobs.samples(net, count)).warnings == ()


def test_a_model_that_says_the_same_to_all_samples_is_an_error(machine: Machine, tmp_path: Path) -> None:
    net, scores = jobs.residual_net()
    net.weights["scores.w"][:] = 0
    path = save(tmp_path, net, scores)
    with pytest.raises(DataError, match=r"same values of output 'scores' .*: check the samples' range .* weights\.$"):
        run(path)
    assert not path.with_name("out.onnx").exists()
    found = verify(path, path, calib=jobs.samples(net))
    assert len(found.warnings) == 1 and "the same values of output 'scores'" in found.warnings[0]


def test_rows_of_a_sample_that_are_those_of_every_other_are_told(machine: Machine, tmp_path: Path) -> None:
    """[N · 6, 3]: six rows a sample, each unlike the next; beside as many of a constant."""
    net, scores = jobs.residual_net()
    nothing = net.node("Mul", "r", net.constant("none", np.zeros(1, np.float32)), name="nothing")
    places = net.constant("p", np.arange(216.0, dtype=np.float32).reshape(6, 6, 6))
    places = net.node("Add", nothing, places, name="add")
    rows = net.node("Reshape", places, net.constant("sizes", np.array([-1, 36], np.int64)), name="rows")
    anchors = net.node("Identity", net.constant("anchors.w", np.ones((192, 36), np.float32)), name="anchors")
    path = save(tmp_path, net, scores, rows, anchors)
    dead = [each for each in run(path).warnings if "same values" in each]
    assert len(dead) == 1 and "'rows'" in dead[0] and "anchors" not in dead[0]
    found = verify(path, path, calib=jobs.samples(net))
    assert len(found.warnings) == 1 and "'rows'" in found.warnings[0]


def test_a_size_that_is_another_only_in_the_other_source_depends_on_the_data(machine: Machine, tmp_path: Path) -> None:
    """Samples that are all above zero to fit on, and all below to judge by: everything is found, or nothing near it."""
    net = zoo.Net(seed=11)
    image = net.input("image", (1, 4, 6, 6))
    scores = jobs.blocks(net, net.relu(net.conv(image, "stem", 6), "r"))
    path = save(tmp_path, net, scores)
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    model.graph.node.append(helper.make_node("Greater", [image, "zero"], ["above"], name="above"))
    model.graph.node.append(helper.make_node("NonZero", ["above"], ["places"], name="places"))
    model.graph.node.append(helper.make_node("Transpose", ["places"], ["listed"], name="listed"))
    model.graph.output.append(helper.make_tensor_value_info("listed", TensorProto.INT64, ["k", 4]))
    onnx.save(model, path)
    calib = {"image": np.abs(jobs.samples(jobs.residual_net()[0])["image"]) + 0.1}
    val = {"image": calib["image"][:16].copy() * 0.9}
    val["image"][:, :, :3] *= -1
    report = run(path, calib=calib, val=val)
    assert sum("'listed' depends on what is in the samples" in each for each in report.warnings) == 1


def test_a_decoder_sees_from_the_first_what_it_sees_in_the_end(machine: Machine, tmp_path: Path) -> None:
    """Samples in front, though the model has them on a later axis, and nothing whose size depends on the data."""
    seen: list[dict[str, tuple[int, ...]]] = []

    def boxes(outputs: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
        seen.append({name: values.shape for name, values in outputs.items()})
        return [(np.eye(4)[:1], values[0, :1], [0]) for values in outputs["turned"]]

    net, output = turned_net()
    path = save(tmp_path, net, output)
    report = run(path, decoder=boxes)
    assert report.boxes is not None and report.boxes.original == len(jobs.samples(net)["image"]) // 4
    verify(path, path, calib=jobs.samples(net), decoder=boxes)
    assert {shape[1:] for shapes in seen for shape in shapes.values()} == {(6, 6)}
    assert [shapes["turned"][0] for shapes in seen] == [8, 8, 8, 16, 32, 32]


def test_one_dead_output_beside_another_is_told(machine: Machine, tmp_path: Path) -> None:
    net, scores = jobs.residual_net()
    dead = net.node("Mul", scores, net.constant("none", np.zeros(5, np.float32)), name="dead")
    report = run(save(tmp_path, net, scores, dead))
    assert sum("the same values of output 'dead'" in each for each in report.warnings) == 1


def test_samples_that_a_model_tells_apart_are_no_news(machine: Machine, tmp_path: Path) -> None:
    net, scores = jobs.residual_net()
    warnings = run(save(tmp_path, net, scores)).warnings
    assert not any("same values" in each or "depends on what is in" in each for each in warnings)


def test_constants_and_words_beside_the_scores_stop_nothing(machine: Machine, tmp_path: Path) -> None:
    """A constant longer than there are samples, and one label a sample."""
    net, scores = jobs.residual_net()
    anchors = net.node("Identity", net.constant("anchors.w", np.ones(200, np.float32)), name="anchors")
    path = save(tmp_path, net, scores, anchors)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("ArgMax", [scores], ["place"], name="place", axis=1, keepdims=0))
    words = {"keys_int64s": range(5), "values_strings": ["a", "b", "c", "d", "e"]}
    model.graph.node.append(
        helper.make_node("LabelEncoder", ["place"], ["word"], name="word", domain="ai.onnx.ml", **words)
    )
    model.graph.output.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["batch"]))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.save(model, path)
    report = run(path)
    assert not any("same values" in warning for warning in report.warnings)
    assert verify(path, path, calib=jobs.samples(net)).warnings == ()
