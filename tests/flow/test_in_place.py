"""What copies promise and the network does not keep is found by timing whole plans, recipe by recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import ModelError
from onnx_layermerge.flow import _in_place
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._prepare import Prepared, prepare
from onnx_layermerge.flow._recorded import recorded
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.latency import LatencyTable, Ratio
from tests.flow import jobs
from tests.flow.test_profile import wide_net
from tests.machine import Machine

KEPT = {"drop": 0.9, "fit": 0.95, "width": 1.1}


@pytest.fixture
def promised(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Prepared, Timed]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, path = jobs.save(wide_net, tmp_path)
    prepared = prepare(path)
    monkeypatch.setattr("onnx_layermerge.flow._latencies.in_place", lambda prepared, timed, *_, **__: timed)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        return prepared, latencies(prepared, machine, table)


def device_that_keeps(timed: Timed, kept: dict[str, float]) -> _in_place.Measure:
    def measure(plan: Sequence[Candidate]) -> Ratio:
        saved = sum(kept[candidate.recipe] * timed.savings_s[candidate.key] for candidate in plan)
        ratio = timed.base_s / (timed.base_s - saved)
        return Ratio(ratio, ratio, ratio, timed.base_s, timed.base_s - saved, ratio, 30, "precise")

    return measure


def test_each_recipe_gets_the_share_of_its_promise_that_plans_kept(promised: tuple[Prepared, Timed]) -> None:
    prepared, timed = promised
    recipes = {candidate.recipe for candidate in prepared.candidates}
    kept = {recipe: KEPT.get(recipe, 1.0) for recipe in recipes}
    scaled = _in_place._scaled(prepared, timed, device_that_keeps(timed, kept))
    assert scaled.in_place is not None and len(recipes) > 1
    for candidate in prepared.candidates:
        if candidate.key in timed.savings_s:
            expected = kept[candidate.recipe] * timed.savings_s[candidate.key]
            assert scaled.savings_s[candidate.key] == pytest.approx(expected, rel=1e-6)


def test_a_fault_is_not_taken_for_a_bias(promised: tuple[Prepared, Timed]) -> None:
    prepared, timed = promised
    tenth = dict.fromkeys({candidate.recipe for candidate in prepared.candidates}, 0.1)
    scaled = _in_place._scaled(prepared, timed, device_that_keeps(timed, tenth))
    assert scaled.in_place is not None and set(scaled.in_place.values()) == {_in_place.SANE[0]}


def test_plans_that_cannot_be_timed_leave_the_promise_as_it_is(promised: tuple[Prepared, Timed]) -> None:
    prepared, timed = promised

    def broken(plan: Sequence[Candidate]) -> Ratio:
        raise ModelError("the backend cannot run it")

    assert _in_place._scaled(prepared, timed, broken) == timed
    assert _in_place._scaled(prepared, timed, lambda plan: None) == timed


def test_plans_are_disjoint_and_save_no_more_than_was_asked(promised: tuple[Prepared, Timed]) -> None:
    prepared, timed = promised
    pool = [c for c in prepared.candidates if timed.savings_s.get(c.key, 0.0) > 0]
    for seed in range(5):
        plan, saved = _in_place._draw(pool, timed.savings_s, 0.3 * timed.base_s, seed)
        assert saved == pytest.approx(sum(timed.savings_s[candidate.key] for candidate in plan))
        assert 0.15 * timed.base_s <= saved <= 0.45 * timed.base_s
        for one, two in zip(plan, plan[1:], strict=False):
            assert one.region.stop <= two.region.start


def test_the_table_alone_tells_the_same(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, path = jobs.save(wide_net, tmp_path)
    prepared = prepare(path)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        live = latencies(prepared, machine, table)
        built = machine.built
        again = latencies(prepared, machine, table)
        assert live.in_place and again.in_place == live.in_place
        assert machine.built == built, "a plan that the table knows was built again"
        alone = recorded(prepared, machine.describe(), table).timed
    assert replace(alone, reused=0, bounded=0, skipped=0) == replace(live, timed=0, reused=0, bounded=0, skipped=0)


def test_no_time_left_leaves_the_promise(machine: Machine, promised: tuple[Prepared, Timed], tmp_path: Path) -> None:
    prepared, timed = promised
    with LatencyTable.open(tmp_path / "u.sqlite") as table:
        assert _in_place.in_place(prepared, timed, machine, table, stop_s=0.0).in_place is None
