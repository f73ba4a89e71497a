"""Several models, a budget, what is skipped; on a device whose clock obeys, so that every time is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge import DeviceError, UsageError, plan, profile
from onnx_layermerge.flow import _sheet, overview
from onnx_layermerge.flow._latencies import base_latency, latencies
from onnx_layermerge.flow._prepare import prepare
from onnx_layermerge.flow._sheet import sheet_of
from onnx_layermerge.flow._timed import LEAST_GAIN, LEAST_SHARE, useful
from onnx_layermerge.latency import Bound, Failure, LatencyTable, Measurement, fill
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def wide_net() -> tuple[zoo.Net, str]:
    """Convolutions 1×1 in front of 3×3: many a dense replacement is slower than what it replaces."""
    net = zoo.Net(seed=5)
    value = net.relu(net.conv(net.input("image", ("batch", 4, 6, 6)), "stem", 16), "r")
    for number in range(3):
        inner = net.relu(net.conv(value, f"a{number}", 4, 1), f"h{number}")
        deep = net.relu(net.conv(inner, f"b{number}", 4, 3), f"k{number}")
        value = net.relu(net.add(net.conv(deep, f"c{number}", 16, 1), value, f"s{number}"), f"r{number}")
    return net, net.classifier(value)


def test_bounds_and_skips_lose_no_useful_candidate(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    prepared = prepare(path)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        timed = latencies(prepared, machine, table)
        kept = {candidate.key for candidate in useful(prepared, timed)}
        sheet = sheet_of(prepared)
        assert timed.bounded > 0 and timed.skipped > 0
        assert timed.timed + timed.bounded + timed.skipped == len(sheet.blocks)
        values = {key: entry.value for key, entry in table.entries(machine.describe()).items()}
        assert sum(isinstance(value, Bound) for value in values.values()) == timed.bounded
        base_s = base_latency(prepared, machine, table)
    with LatencyTable.open(tmp_path / "all.sqlite") as table:  # everything timed in full
        full = fill(table, machine, list(sheet.blocks.values()), clock=machine.clock)
    worth = set()
    for use in sheet.uses:
        old, new = full[use.old].value, full[use.new].value
        assert isinstance(old, Measurement) and isinstance(new, Measurement)
        if old.seconds - new.seconds >= max(LEAST_GAIN * old.seconds, LEAST_SHARE * base_s):
            worth.add(use.candidate.key)
    assert kept == worth and 0 < len(kept) < len(sheet.uses)


def test_a_second_run_measures_and_builds_nothing(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    first = profile([path], profile=tmp_path / "t.sqlite")
    built = machine.built
    again = profile([path], profile=tmp_path / "t.sqlite")
    assert machine.built == built
    assert (again.timed, again.reused) == (0, first.timed + first.reused)
    assert (again.bounded, again.skipped, again.left) == (first.bounded, first.skipped, ())


def test_models_share_what_is_equal(machine: Machine, tmp_path: Path) -> None:
    _, one = jobs.save(wide_net, tmp_path)
    net, output = wide_net()
    net.weights = {name: value * 2 for name, value in net.weights.items()}
    two = net.save(tmp_path / "two.onnx", output)
    together = profile([one, two], profile=tmp_path / "t.sqlite")
    alone = profile([one], profile=tmp_path / "alone.sqlite")
    assert (together.timed, together.bounded) == (alone.timed, alone.bounded)
    assert together.candidates == 2 * alone.candidates and together.base_ms.keys() == {str(one), str(two)}


def test_a_budget_stops_in_time_and_says_what_is_left(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path = jobs.save(wide_net, tmp_path)
    monkeypatch.setattr("onnx_layermerge.flow._queue.PORTION", 6)
    monkeypatch.setattr("onnx_layermerge.flow._latencies.now_s", lambda: machine.now_s)
    whole = profile([path], profile=tmp_path / "whole.sqlite")
    half_s = machine.now_s / 2
    start = machine.now_s
    part = profile([path], profile=tmp_path / "t.sqlite", budget_s=half_s)
    assert half_s <= machine.now_s - start < half_s + 0.2, "no more than a sample or two over"
    assert 0 < part.timed + part.bounded < whole.timed + whole.bounded
    assert part.timed + part.bounded + part.skipped + len(part.left) == whole.timed + whole.bounded + whole.skipped
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        labels = {entry.label for entry in table.entries(machine.describe()).values()}
    assert labels and labels.isdisjoint(part.left)
    # What there is serves a plan as it is, and the next profile goes on from it.
    report = plan(path, calib=jobs.samples(net), profile=tmp_path / "t.sqlite")
    assert report.points
    rest = profile([path], profile=tmp_path / "t.sqlite")
    assert rest.timed == 0 and rest.left == ()


def test_the_most_useful_blocks_come_first(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a large network is worth more than one of a small network."""
    monkeypatch.setattr("onnx_layermerge.flow._queue.PORTION", 4)
    monkeypatch.setattr("onnx_layermerge.flow._latencies.now_s", lambda: machine.now_s)
    small = zoo.Net(seed=1)
    small_path = small.save(tmp_path / "small.onnx", jobs.blocks(small, small.input("x", (1, 6, 4, 4)), 2, 6, 8))
    large = zoo.Net(seed=2)
    large_path = large.save(tmp_path / "large.onnx", jobs.blocks(large, large.input("x", (1, 24, 9, 9)), 2, 24, 64))
    report = profile([small_path, large_path], profile=tmp_path / "t.sqlite", budget_s=150.0)
    assert report.left and report.models_left == ()
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        known = set(table.entries(machine.describe()))
    of_small, of_large = ({use.new for use in sheet_of(prepare(path)).uses} for path in (small_path, large_path))
    assert len(known & of_large) / len(of_large) > len(known & of_small) / len(of_small)


def test_a_budget_must_be_a_time(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    for budget_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--budget"):
            profile([path], profile=tmp_path / "t.sqlite", budget_s=budget_s)


def test_a_region_that_cannot_be_timed_costs_its_replacements_no_time(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(wide_net, tmp_path)
    prepared = prepare(path)
    sheet = sheet_of(prepared)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        for key in {use.old for use in sheet.uses}:
            table.put(machine.describe(), key, "keep", Failure("crashed (SIGSEGV)"))
        timed = latencies(prepared, machine, table)
        assert timed.timed == timed.bounded == 0
        assert timed.failed == {use.candidate.key: "crashed (SIGSEGV)" for use in sheet.uses}


def test_remembered_keys_are_those_that_would_be_computed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sheet, "REMEMBERED_FROM", 1)
    net, path = jobs.save(wide_net, tmp_path)
    first = sheet_of(prepare(path))
    (memory,) = (tmp_path / "cache" / "olm" / "keys").iterdir()

    def refuse(*_: object) -> None:
        raise AssertionError("a block is built for its key")

    with monkeypatch.context() as patch:
        for name in ("region_block", "replacement_block", "structure_key"):
            patch.setattr(_sheet, name, refuse)
        again = sheet_of(prepare(path))
    assert again.base == first.base
    assert [(use.old, use.new) for use in again.uses] == [(use.old, use.new) for use in first.uses]
    # Built when it is timed, and then the same model.
    again = sheet_of(prepare(path))
    for key, spec in first.blocks.items():
        assert again.blocks[key].build(3) == spec.build(3) and again.blocks[key].shapes(3) == spec.shapes(3)
        assert again.blocks[key].label == spec.label
    # Other weights, another shape, or a damaged file are other keys, or no memory at all.
    sheet_of(prepare(path, shapes={"image": (2, 4, 6, 6)}))
    net.weights["stem.w"] = net.weights["stem.w"] + np.float32(1)
    sheet_of(prepare(net.save(tmp_path / "other.onnx", "scores")))
    assert len(list(memory.parent.iterdir())) == 3
    memory.write_text('{"a": 1}')
    assert sheet_of(prepare(path)).base == first.base


def test_an_overview_counts_what_a_table_holds_and_creates_none(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    assert overview(profile=path).held == () and not path.exists()
    _, model = jobs.save(wide_net, tmp_path)
    report = profile([model], profile=path)
    with LatencyTable.open(path) as table:
        table.put(machine.describe(), "key", "block", Failure("crashed (SIGSEGV)"))
    found = overview(profile=path)
    (held,) = found.held
    assert held.device == machine.describe().text() and held.models == 1 and held.newest is not None
    assert (held.blocks, held.failures, held.bounds) == (report.timed + report.bounded + 1, 1, report.bounded)
    assert [each.name for each in found.backends if each.usable] == ["onnxruntime"]


def test_an_unknown_device_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no device 'npu'"):
        profile([tmp_path / "none.onnx"], device="npu", profile=tmp_path / "t.sqlite")
    with pytest.raises(DeviceError, match="no device 'npu'"):
        overview(device="npu")
