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
