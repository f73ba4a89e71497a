"""A plan as a file: written, followed for other weights, locked to the bytes, and refused where it does not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge import (
    DeviceError,
    EngineOptions,
    OutputError,
    PlanError,
    Report,
    TargetError,
    UsageError,
    compress,
    explain,
)
from onnx_layermerge.flow import _compress, _replay, _search
from onnx_layermerge.flow._plan_file import structure_of
from onnx_layermerge.flow._prepare import prepare
from onnx_layermerge.latency import Ratio
from onnx_layermerge.report import render_html, render_markdown
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine, install

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Made:
    """A model, its samples, and what a run with a plan file left behind."""

    folder: Path
    source: Path
    options: dict[str, Any]
    report: Report
    plan: Path
    machine: Machine

    def again(self, name: str, source: Path | None = None, **options: Any) -> Report:
        """The same call with another output, and what else differs."""
        return compress(source or self.source, self.folder / name, **{**self.options, **options})

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("plan")
    net, path = jobs.save(jobs.residual_net, folder)
    plan = folder / "plan.json"
    options = {
        "speedup": 1.4, "calib": jobs.samples(net), "rivals": 2, "profile": folder / "table.json", "plan": plan
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        machine = install(patch)
        report = compress(path, folder / "out.onnx", **options)
        yield Made(folder, path, options, report, plan, machine)


@pytest.fixture
def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing blocks, scoring them or drawing plans is a mistake from here on."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a plan that is followed searches nothing")

    for name in ("latencies", "scored", "choose"):
        monkeypatch.setattr(_search, name, never)


def retrained(made: Made, name: str = "retrained.onnx") -> Path:
    """The same graph with other weights, as after another training."""
    model, rng = onnx.load(made.source), np.random.default_rng(7)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim:
            moved = values + 0.05 * values.std() * rng.standard_normal(values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    onnx.save(model, made.folder / name)
    return made.folder / name


def edited(made: Made, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    value = json.loads(made.plan.read_text(encoding="utf-8"))
    change(value)
    path = made.folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_plan_is_a_small_file_with_what_was_found(finished: Made) -> None:
    text = finished.plan.read_text(encoding="utf-8")
    value = json.loads(text)
    schema = json.loads((ROOT / "docs" / "schemas" / "plan.v1.json").read_text(encoding="utf-8"))
    jsonschema.validate(value, schema)
    assert set(value) == set(schema["properties"]) and text.startswith('{\n  "schema": "olm.plan/1",\n')
    assert [block["name"] for block in value["blocks"]] == [block.name for block in finished.report.blocks]
    assert value["output"] == hashlib.sha256(finished.bytes_of("out.onnx")).hexdigest()
    assert value["input"] == hashlib.sha256(finished.source.read_bytes()).hexdigest()
    assert value["speedup"]["ratio"] == finished.report.speedup.ratio
    lines = text.splitlines()  # a block or a layer to a line
    for block in value["blocks"]:
        name = json.dumps(block["name"], ensure_ascii=False)
        assert sum(f'"name": {name}' in line for line in lines) == 1


@pytest.mark.usefixtures("unsearched")
def test_a_locked_plan_gives_the_same_bytes_and_times_nothing(finished: Made) -> None:
    built = finished.machine.built
    report = finished.again("locked.onnx", lock=True)
    assert finished.bytes_of("locked.onnx") == finished.bytes_of("out.onnx")
    assert finished.machine.built == built and not report.measured_now
    assert report.speedup == finished.report.speedup and report.device == finished.report.device
    assert [block.name for block in report.blocks] == [block.name for block in finished.report.blocks]
    assert [block.saving_ms for block in report.blocks] == pytest.approx(
        [block.saving_ms for block in finished.report.blocks], rel=1e-3
    )
    for page in (render_html(report), render_markdown(report)):
        assert "recorded in the plan that was followed" in page and "latency table, measured" not in page


@pytest.mark.usefixtures("unsearched")
def test_a_followed_plan_is_measured_here(finished: Made) -> None:
    before = finished.plan.read_bytes()
    report = finished.again("followed.onnx")
    assert report.measured_now and report.speedup.low >= 1.4
    assert finished.bytes_of("followed.onnx") == finished.bytes_of("out.onnx")
    assert finished.plan.read_bytes() == before


@pytest.mark.usefixtures("unsearched")
def test_other_weights_take_the_same_blocks_and_fits_of_their_own(finished: Made) -> None:
    source = retrained(finished)
    report = finished.again("other.onnx", source)
    assert [block.name for block in report.blocks] == [block.name for block in finished.report.blocks]
    assert finished.bytes_of("other.onnx") != finished.bytes_of("out.onnx")
    assert report.validation is not None and finished.report.validation is not None
    assert report.validation.relative < 3 * finished.report.validation.relative + 0.01
    told = explain(finished.folder / "other.onnx")
    assert [block.name for block in told.blocks] == [block.name for block in report.blocks]
    with pytest.raises(PlanError, match="is locked, but since it was made the model .* changed"):
        finished.again("locked-other.onnx", source, lock=True)
    assert not (finished.folder / "locked-other.onnx").exists()


def test_a_lock_names_other_samples(finished: Made) -> None:
    others = {name: values[::-1].copy() + 0.5 for name, values in finished.options["calib"].items()}
    with pytest.raises(PlanError, match="since it was made the samples"):
        finished.again("samples.onnx", calib=others, lock=True)


def test_a_lock_names_what_gave_other_bytes(finished: Made) -> None:
    def older(value: dict[str, Any]) -> None:
        value["output"] = "0" * 64
        value["versions"]["numpy"] = "1.0.0"

    plan = edited(finished, "older.json", older)
    with pytest.raises(PlanError, match=r"gave other bytes than it records; what differs: numpy is .*, was 1\.0\.0;"):
        finished.again("bytes.onnx", plan=plan, lock=True)
    same = edited(finished, "same.json", lambda value: value.update(output="0" * 64))
    with pytest.raises(PlanError, match="please report it"):
        finished.again("bytes.onnx", plan=same, lock=True)
    assert not (finished.folder / "bytes.onnx").exists()


@pytest.mark.parametrize("lock", [False, True])
def test_another_structure_is_refused(finished: Made, tmp_path: Path, lock: bool) -> None:
    _, other = jobs.save(jobs.long_net, tmp_path)
    with pytest.raises(PlanError, match="has another structure than the model of .*plan.json .*plan anew"):
        finished.again("structure.onnx", other, lock=lock, calib=None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"speedup": 1.3}, r"--speedup 1\.3 \(the plan: 1\.4\)"),
        ({"seed": 3}, "--seed 3"),
        ({"effort": "quick", "method": "drop"}, "--method drop .*--effort quick"),
        ({"device": "cuda:1"}, r"--device cuda \(the plan: cpu\)"),
        ({"backend": "nonsense"}, "--backend nonsense"),
        ({"precision": "fp16"}, "--precision fp16"),
        ({"engines": EngineOptions(level=2)}, "--opt-level 2"),
    ],
)
@pytest.mark.parametrize("lock", [False, True])
def test_other_options_are_named(finished: Made, options: dict[str, Any], named: str, lock: bool) -> None:
    with pytest.raises(PlanError, match=named):
        finished.again("options.onnx", lock=lock, **options)


def test_blocks_that_are_not_on_offer_are_named(finished: Made) -> None:
    plan = edited(finished, "blocks.json", lambda value: value["blocks"][0].update(name="fit 9x9 nowhere"))
    with pytest.raises(PlanError, match=r"not on offer now \(fit 9x9 nowhere\); remove the file"):
        finished.again("blocks.onnx", plan=plan)
    with pytest.raises(PlanError, match="give --calib"):
        finished.again("blocks.onnx", calib=None)


def test_without_its_device_what_the_plan_measured_stands(finished: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise DeviceError("There is no such device here.")

    monkeypatch.setattr(_compress, "open_backend", gone)
    source = retrained(finished, "weekly.onnx")
    report = finished.again("weekly-out.onnx", source)
    assert report.speedup == finished.report.speedup and not report.measured_now
    assert report.device == finished.report.device
    assert any("nothing was timed here (There is no such device here)" in warning for warning in report.warnings)
    assert not finished.again("here.onnx", lock=True).measured_now
    with pytest.raises(DeviceError):
        finished.again("anew.onnx", plan=finished.folder / "none-yet.json")
    other = edited(finished, "other-output.json", lambda value: value.update(output_structure="x"))
    with pytest.raises(DeviceError, match="has another structure than what was timed"):
        finished.again("anew.onnx", plan=other)
    assert not (finished.folder / "anew.onnx").exists()


def test_a_plan_that_is_too_slow_now_says_so(finished: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Ratio(1.38, 1.36, 1.41, 1e-3, 1e-3 / 1.38, 1.38, 40, "precise")
    monkeypatch.setattr(_replay, "as_written", lambda *_, **__: (slow, True))
    with pytest.raises(TargetError, match=r"the plan gives 1\.380× \[1\.360, 1\.410\] here, not surely 1\.4×"):
        finished.again("slow.onnx")
    assert not (finished.folder / "slow.onnx").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no plan of olm compress"),
        ("[]", "is no plan of olm compress"),
        ("{}", "is no plan of olm compress"),
        ('{"schema": "olm.plan/1"}', "is no plan of olm compress"),
        ('{"schema": "olm.plan/2"}', "is of the form olm.plan/2, not olm.plan/1"),
        ("\x00\x01", "is no plan of olm compress"),
        ("[" * 100_000, "is no plan of olm compress"),
    ],
)
def test_what_is_no_plan_is_refused(finished: Made, text: str, told: str) -> None:
    path = finished.folder / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=told):
        finished.again("broken.onnx", plan=path)


@pytest.mark.parametrize("field", ["blocks", "speedup", "settings", "kept", "output", "recovery"])
def test_a_field_of_another_kind_is_refused(finished: Made, field: str) -> None:
    path = edited(finished, "field.json", lambda value: value.update({field: 7}))
    with pytest.raises(PlanError):
        finished.again("field.onnx", plan=path, lock=True)


def _twice(value: dict[str, Any]) -> None:
    value["blocks"].append(value["blocks"][0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_twice, "it has no blocks, or one twice"),
        (lambda value: value.update(blocks=[]), "it has no blocks"),
        (lambda value: value["speedup"].update(ratio=100.0), "the speed-up that it records"),
        (lambda value: value["speedup"].update(low=1.39), "the speed-up that it records"),
        (lambda value: value["speedup"].update(b_s=0.0), "a measured number is not above 0"),
        (lambda value: value["speedup"].update(ratio=None), "a measured number is not above 0"),
        (lambda value: value["blocks"][0].update(kl=1.7e308), "divergence is out of range"),
        (lambda value: value["blocks"][0].update(old_ms=None), "a block has no time"),
        (lambda value: value["kept"].update(stem=[9, 9, "x"]), "kept for no reason"),
        (lambda value: value["kept"].update(stem="\ud800"), "is no plan of olm compress"),
        (lambda value: value.update(basis=float("inf")), "is no plan of olm compress"),
    ],
)
def test_what_no_run_has_written_is_refused(
    finished: Made, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    plan = edited(finished, "hand.json", change)
    for lock in (False, True):
        with pytest.raises(PlanError, match=told):
            finished.again("hand.onnx", plan=plan, lock=lock)
    assert not (finished.folder / "hand.onnx").exists()


def test_blocks_that_overlap_are_refused(finished: Made) -> None:
    prepared = prepare(finished.source)
    one = next(each for each in prepared.candidates if each.key == finished.report.blocks[0].name)
    other = next(
        each
        for each in prepared.candidates
        if each.key != one.key and each.region.start < one.region.stop and one.region.start < each.region.stop
    )

    def overlap(value: dict[str, Any]) -> None:
        value["blocks"] = [value["blocks"][0], {**value["blocks"][0], "name": other.key}]

    with pytest.raises(PlanError, match="two of its blocks overlap"):
        finished.again("overlap.onnx", plan=edited(finished, "overlap.json", overlap))


def test_a_plan_from_another_device_says_whose_times_its_blocks_have(finished: Made) -> None:
    plan = edited(finished, "elsewhere.json", lambda value: value.update(device="far away", device_digest="0"))
    report = finished.again("elsewhere.onnx", plan=plan)
    assert report.measured_now and report.device == finished.report.device
    assert any("times of blocks, which the report repeats, are of far away" in text for text in report.warnings)
    notes = {entry.key: entry.value for entry in onnx.load(finished.folder / "elsewhere.onnx").metadata_props}
    assert notes["olm.profile.mismatch"] == "far away"


def test_the_structure_holds_what_no_training_decides(tmp_path: Path) -> None:
    def digest(scale: float, bias: float) -> str:
        net = zoo.Net(seed=3)
        value = net.relu(net.conv(net.input("image", (1, 4, 6, 6)), "stem", 6), "r")
        shift = net.constant("shift", np.full((1, 6, 1, 1), bias, np.float32))
        scales = net.constant("scales", np.array([1, 1, scale, scale], np.float32))
        shifted = net.node("Add", net.relu(value, "again"), shift, name="shifted", channels=6)
        larger = net.node("Resize", shifted, "", scales, name="larger", channels=6, mode="nearest")
        path = net.save(tmp_path / "in.onnx", net.conv(larger, "last", 6))
        return structure_of(prepare(path))

    assert digest(2, 0.5) == digest(2, 0.7)
    assert digest(2, 0.5) != digest(4, 0.5)


def test_neither_output_nor_plan_where_one_cannot_be_written(
    finished: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("no room.")

    new = finished.folder / "new.json"
    for name in ("write", "write_plan"):
        with monkeypatch.context() as patch:
            patch.setattr(_compress, name, full)
            with pytest.raises(OutputError):
                finished.again("new.onnx", plan=new)
        assert not new.exists() and not (finished.folder / "new.onnx").exists()


def test_where_a_plan_cannot_be(finished: Made, tmp_path: Path) -> None:
    for file in (finished.source, finished.folder / "x.onnx", finished.options["profile"]):
        with pytest.raises(UsageError, match="is a file that this run reads or writes"):
            finished.again("x.onnx", plan=file)
    with pytest.raises(OutputError):
        finished.again("x.onnx", plan=tmp_path / "no" / "plan.json")
    with pytest.raises(PlanError, match="cannot be read"):
        finished.again("x.onnx", plan=tmp_path)
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    for path in (tmp_path / ("x" * 300), loop):
        with pytest.raises(PlanError, match="check the path"):
            finished.again("x.onnx", plan=path)
    with pytest.raises(UsageError, match="--lock needs a plan"):
        finished.again("x.onnx", plan=tmp_path / "none.json", lock=True)
    with pytest.raises(UsageError, match="--lock holds a run to a plan"):
        finished.again("x.onnx", plan=None, lock=True)
