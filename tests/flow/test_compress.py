"""The main job on a device whose clock obeys: what is written, what is said, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge import (
    DataError,
    ImageOptions,
    ModelError,
    OlmError,
    OutputError,
    Report,
    TargetError,
    UsageError,
    compress,
)
from onnx_layermerge.flow import _compress, _weights
from onnx_layermerge.flow._data import NO_DATA
from onnx_layermerge.importance import Divergence
from onnx_layermerge.recover import build
from onnx_layermerge.report import as_json
from tests.flow import jobs
from tests.machine import Machine, install

Made = tuple[Report, onnx.ModelProto, onnx.ModelProto]


def run(folder: Path, make: Any = jobs.residual_net, *, name: str = "out.onnx", **options: Any) -> Made:
    net, path = jobs.save(make, folder)
    options = {"speedup": 1.4, "calib": jobs.samples(net), "rivals": 2, "profile": folder / "table.json"} | options
    report = compress(path, folder / name, **options)
    made = onnx.load(folder / name)
    onnx.checker.check_model(made, full_check=True)
    return report, onnx.load(path), made


def weights(model: onnx.ModelProto) -> dict[str, bytes]:
    """Bytes of the weights of each convolution, by the name of its output."""
    arrays = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    return {node.output[0]: arrays[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}


def interface(model: onnx.ModelProto) -> list[bytes]:
    return [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished job, and the same again with the table it left behind."""

    machine: Machine
    folder: Path
    report: Report
    before: onnx.ModelProto
    after: onnx.ModelProto
    built: int
    again: Report


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        machine = install(patch)
        report, before, after = run(folder)
        built = machine.built
        again, _, _ = run(folder, name="again.onnx")
        yield Done(machine, folder, report, before, after, built, again)


def test_what_was_asked_is_what_the_machine_says(done: Done) -> None:
    costs = [done.machine.cost_s(model.SerializeToString()) for model in (done.before, done.after)]
    assert done.report.speedup.ratio == pytest.approx(costs[0] / costs[1], rel=1e-6)
    assert done.report.speedup.low >= 1.4 == done.report.asked
    assert done.machine.open_now == 0


def test_the_report_is_whole(done: Done) -> None:
    report, before = done.report, done.before
    assert (report.input, report.output) == (str(done.folder / "in.onnx"), str(done.folder / "out.onnx"))
    assert report.method == "olm" and report.device == done.machine.describe().text() and report.seed == 0
    assert report.convs_before == 5 == len(weights(before)) and report.convs_after == len(weights(done.after))
    assert report.blocks and report.timed_blocks > 0
    for block in report.blocks:
        assert block.saving_ms > 0 and block.convs >= 1
        assert block.recipe in ("drop", "fit", "low-rank", "merge", "width")
        assert (block.fit_error is None) == (block.recipe in ("drop", "merge"))
    assert report.validation is not None and 0 <= report.validation.kl < np.inf
    # Random weights, two dozen samples.
    expected = ("know their own samples", "equations for each unknown")
    assert all(any(words in warning for words in expected) for warning in report.warnings), report.warnings
    taken = tuple(block.name for block in report.blocks)
    assert taken not in [rejected.blocks for rejected in report.rejected]
    # The table's prediction is base + Σ (new − old) of exact times.
    saved = sum(block.saving_ms for block in report.blocks) / 1e3
    base = done.machine.cost_s(before.SerializeToString())
    assert report.predicted == pytest.approx(base / (base - saved), rel=0.02)
    read = json.loads(as_json(report))
    assert read["blocks"][0]["name"] == report.blocks[0].name
    assert set(read["seconds"]) >= {"time blocks", "score blocks", "build and verify"}


def test_the_report_holds_what_a_page_draws(done: Done) -> None:
    report = done.report
    assert report.expected == pytest.approx(sum(block.loss_alone for block in report.blocks)) and report.divergence >= 0
    sides = ((report.before, "replaced", done.before), (report.after, "made", done.after))
    for sketch, names, model in sides:
        convs = [line for line in sketch.lines if line.kind == "conv"]
        assert {line.name for line in convs} == {node.name for node in model.graph.node if node.op_type == "Conv"}
        for number, block in enumerate(report.blocks, 1):
            assert tuple(line.name for line in convs if line.block == number) == getattr(block, names)
    for block in report.blocks:
        assert len(block.was) == len(block.replaced) == block.convs and len(block.now) == len(block.made)
        assert block.old_ms > block.saving_ms > 0
    assert [point.speedup for point in report.points] == sorted(point.speedup for point in report.points)
    assert len(report.points) > 3 and report.drop_only and report.points[-1].loss > report.points[1].loss
    assert report.rejected and all(plan.predicted > 1 and plan.expected >= 0 for plan in report.rejected)
    assert report.keys.output == hashlib.sha256((done.folder / "out.onnx").read_bytes()).hexdigest()
    assert report.keys.device == done.machine.describe().digest() and report.command == ()


def test_the_interface_stays_and_the_origin_is_written_down(done: Done) -> None:
    before, after = done.before, done.after
    assert interface(after) == interface(before)
    assert before.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert after.opset_import == before.opset_import and after.ir_version == before.ir_version
    notes = {entry.key: entry.value for entry in after.metadata_props}
    assert json.loads(notes["olm.plan"]) == [block.name for block in done.report.blocks]
    assert notes["olm.speedup.asked"] == "1.4" and len(notes["olm.input.sha256"]) == 64
    assert {"olm.version", "olm.device", "olm.seed", "olm.method", "olm.calibration.sha256"} <= set(notes)


def test_layers_outside_the_plan_are_the_inputs_own(done: Done) -> None:
    old, new = weights(done.before), weights(done.after)
    touched = {name for block in done.report.blocks for name in old if name in inside(block.name)}
    touched |= set(done.report.refitted)
    untouched = set(old) - touched
    assert untouched and all(new[name] == old[name] for name in untouched)


def inside(key: str) -> set[str]:
    """Convolutions between the first and the last node named in a key."""
    order = ["stem", "r", *(f"{part}{number}" for number in range(2) for part in "ahbsr")]
    first, _, last = key.split(" [")[0].split()[-1].partition("…")
    return set(order[order.index(first) : order.index(last or first) + 1])


def test_a_second_run_times_nothing_and_writes_the_same_bytes(done: Done) -> None:
    first, second = done.report, done.again
    assert first.timed_blocks > 0 and first.measured_now
    assert second.timed_blocks == 0 and second.reused_blocks == first.timed_blocks + first.reused_blocks
    assert not second.measured_now and done.machine.built == done.built
    assert (done.folder / "out.onnx").read_bytes() == (done.folder / "again.onnx").read_bytes()
    volatile = {"output": "", "seconds": {}, "measured_now": True, "timed_blocks": 0, "reused_blocks": 0}
    assert dataclasses.replace(first, **volatile) == dataclasses.replace(second, **volatile)


def test_without_data_blocks_are_only_dropped_and_that_is_said(machine: Machine, tmp_path: Path) -> None:
    report, before, after = run(tmp_path, calib=None, speedup=1.2)
    assert NO_DATA in report.warnings and report.validation is None
    assert {block.recipe for block in report.blocks} == {"drop"}
    old, new = weights(before), weights(after)
    assert all(new[name] == old[name] for name in new)


@pytest.mark.parametrize("calib", [True, False])
def test_what_cannot_be_reached_names_the_best_and_writes_nothing(
    calib: bool, machine: Machine, tmp_path: Path
) -> None:
    options = {} if calib else {"calib": None}
    with pytest.raises(TargetError, match=r"50× .*the best measured speed-up is [1-9]\d*\.\d\d×") as caught:
        run(tmp_path, speedup=50.0, **options)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out.onnx").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"in.onnx", "table.json", "table.json.lock"}


def test_a_backend_of_ones_own_is_taken_as_it_is(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compress, "open_backend", None)
    report, _, _ = run(tmp_path, backend=machine)
    assert report.speedup.ratio >= 1.4 and machine.built > 0 and report.device == machine.describe().text()
    for words in ({"device": "cuda:0"}, {"precision": "fp16"}):
        with pytest.raises(UsageError, match="leave out those of the call"):
            run(tmp_path, backend=machine, **words)


def test_a_fixed_batch_stays_fixed(machine: Machine, tmp_path: Path) -> None:
    report, before, after = run(tmp_path, lambda: jobs.residual_net((1, 4, 6, 6)))
    assert interface(after) == interface(before)
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert report.validation is not None and np.isfinite(report.validation.kl)


def test_a_model_with_two_inputs(machine: Machine, tmp_path: Path) -> None:
    report, before, after = run(tmp_path, jobs.two_inputs, speedup=1.2)
    assert [value.name for value in after.graph.input] == ["left", "right"]
    assert interface(after) == interface(before) and report.speedup.low >= 1.2


def test_a_separate_validation_source_decides(machine: Machine, tmp_path: Path) -> None:
    net, _ = jobs.residual_net()
    report, _, after = run(tmp_path, val=jobs.samples(net, 20, seed=7), method="drop", speedup=1.15)
    assert "+" in {entry.key: entry.value for entry in after.metadata_props}["olm.calibration.sha256"]
    assert report.validation is not None


@pytest.mark.parametrize(("method", "recipes"), [("drop", {"drop"}), ("layermerge", {"merge"})])
def test_other_methods_choose_among_their_own(method: str, recipes: set[str], machine: Machine, tmp_path: Path) -> None:
    report, _, _ = run(tmp_path, method=method, speedup=1.15)
    assert {block.recipe for block in report.blocks} == recipes and report.method == method


def test_only_named_layers_are_refitted_and_only_where_it_helps(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"rivals": 1, "speedup": 1.4}
    off, before, plain = run(tmp_path, jobs.long_net, refit_mode="off", **asked)
    monkeypatch.setattr(_weights, "GAIN", 100.0)
    on, _, after = run(tmp_path, jobs.long_net, name="on.onnx", **asked)
    assert off.refitted == () and on.refitted and off.blocks == on.blocks
    old, new, unmoved = weights(before), weights(after), weights(plain)
    changed = {name for name in set(old) & set(new) if new[name] != unmoved[name]}
    assert set(on.refitted) == changed != set(old) & set(new)
    notes = {entry.key: entry.value for entry in after.metadata_props}
    assert json.loads(notes["olm.refitted"]) == list(on.refitted)
    assert "olm.refitted" not in {entry.key for entry in plain.metadata_props}
    monkeypatch.setattr(_weights, "GAIN", 0.0)
    assert run(tmp_path, jobs.long_net, **asked)[0].refitted == ()


def test_the_written_weights_saw_all_samples_and_the_figures_did_not(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, Any]] = []

    def spied(*words: Any, **options: Any) -> Any:
        built = build(*words, **options)
        made.append((options["images"], built.model))
        return built

    monkeypatch.setattr(_weights, "build", spied)
    monkeypatch.setattr(_weights, "quality", lambda *_: Divergence(0.0, 0.0, 1.0))  # taken, however well it does
    net, _ = jobs.residual_net()
    plain = {"refit_mode": "off", "effort": "quick"}
    report, _, after = run(tmp_path, calib=jobs.samples(net, 48), **plain)
    assert (report.fitted_on, report.judged_on) == (48, 36) and [images for images, _ in made] == [48]
    written = {node.inputs[1].const_value.numpy().tobytes() for node in made[0][1].graph if node.op_type == "Conv"}
    assert set(weights(after).values()) == written
    monkeypatch.setattr(_weights, "quality", lambda *_: Divergence(9e9, 1.0, 0.0))
    worse, _, other = run(tmp_path, calib=jobs.samples(net, 48), **plain)
    assert worse.fitted_on == worse.judged_on == 36 and set(weights(other).values()) != written
    told, _, _ = run(tmp_path, calib=jobs.samples(net, 48), val=jobs.samples(net, 12, seed=9), **plain)
    assert told.fitted_on == told.judged_on == 48


def test_progress_of_a_stage_never_runs_backwards_or_past_its_end(machine: Machine, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(stage: str, done: int, total: int, what: str) -> None:
        assert isinstance(what, str) and (total == 0 or 0 <= done <= total), (stage, done, total)
        seen.setdefault(stage, []).append((done, total))

    run(tmp_path, progress=note)
    assert set(seen) >= {"read", "time", "score", "plan", "build", "verify"}
    for stage in ("read", "score", "build"):
        done = [step for step, _ in seen[stage]]
        assert done == sorted(done), stage


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"speedup": 1.0}, UsageError, "makes no sense"),
        ({"speedup": float("nan")}, UsageError, "makes no sense"),
        ({"speedup": float("inf")}, UsageError, "makes no sense"),
        ({"refit_mode": "always"}, UsageError, "choose off or auto"),
        ({"samples": 1}, UsageError, "at least 2"),
        ({"rivals": 0}, UsageError, "at least 1"),
        ({"method": "magic"}, UsageError, "choose from olm, drop, layermerge"),
        ({"shapes": {"pixels": (1, 4, 6, 6)}}, UsageError, "names input 'pixels'"),
        ({"calib": {"image": np.zeros((8, 3, 6, 6), "f")}}, DataError, "image"),
        ({"calib": "nowhere"}, DataError, "no calibration data at nowhere"),
        ({"name": "missing/out.onnx"}, OutputError, "does not exist"),
        ({"name": "in.onnx"}, OutputError, "is the input itself"),
    ],
)
def test_mistakes_end_in_one_sentence(
    options: dict[str, Any], error: type[OlmError], said: str, machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        run(tmp_path, **options)
    assert not (tmp_path / "out.onnx").exists() and machine.built == 0


def test_an_input_that_is_no_model(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        compress(tmp_path / "none.onnx", tmp_path / "out.onnx", speedup=1.5)


def test_image_options_without_images_are_warned_about(machine: Machine, tmp_path: Path) -> None:
    report, _, _ = run(tmp_path, images=ImageOptions(scale=2.0), method="drop", speedup=1.15)
    assert any("image options have no effect" in warning for warning in report.warnings)
