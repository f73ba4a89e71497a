"""A plan that turned out faster than asked gives back what it does not need."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._loop import FINE, Loop, Plan
from onnx_layermerge.flow._prepare import prepare
from onnx_layermerge.flow._timed import useful
from onnx_layermerge.latency import LatencyTable
from onnx_layermerge.plan import Choice
from tests.flow import jobs
from tests.flow.test_profile import wide_net
from tests.machine import Machine


@pytest.fixture
def job(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A loop, and a plan of several blocks with its choices; the last of them costs most."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, path = jobs.save(wide_net, tmp_path)
    prepared = prepare(path)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        timed = latencies(prepared, machine, table)
        apart = []
        for candidate in sorted(useful(prepared, timed), key=lambda c: (c.region.stop - c.region.start, c.key)):
            if all(candidate.region.stop <= o.region.start or o.region.stop <= candidate.region.start for o in apart):
                apart.append(candidate)
        apart.sort(key=lambda candidate: candidate.region.start)
        choices = [
            Choice(c.key, c.region.start, c.region.stop, timed.savings_s[c.key], 1.0 + number)
            for number, c in enumerate(apart)
        ]
        loop = Loop(prepared, timed, machine, table)
        keys = tuple(choice.key for choice in choices)
        assert len(keys) >= 3
        yield loop, Plan(keys, "kl", loop.predicted(keys), loop.time(keys), sum(c.loss for c in choices)), choices


def test_what_is_left_meets_the_target_and_nothing_more_can_go(job) -> None:
    loop, plan, choices = job
    speedup = 1 + 0.4 * (plan.measured.low - 1)
    found = loop.relaxed(plan, choices, speedup)
    assert set(found.keys) < set(plan.keys) and found.loss < plan.loss
    assert found.measured.low >= speedup
    assert loop.relaxed(found, choices, speedup) == found
    for key in found.keys:
        rest = tuple(other for other in found.keys if other != key)
        assert not rest or loop.time(rest).low < speedup


def in_forms(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Loop, list[Choice], Plan]:
    """One block in its fastest form, and all others beside it, slower ones first, each as lossy as it is fast."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    _, path = jobs.save(wide_net, folder)
    prepared = prepare(path)
    table = LatencyTable.open(folder / "t.json")
    timed = latencies(prepared, machine, table)
    places: dict[tuple[int, int], list[Choice]] = {}
    for c in useful(prepared, timed):
        saving = timed.savings_s[c.key]
        choice = Choice(c.key, c.region.start, c.region.stop, saving, 1e3 * saving)
        places.setdefault((choice.start, choice.stop), []).append(choice)
    forms = sorted(max(places.values(), key=len), key=lambda choice: choice.saving_s)
    assert len(forms) >= 3 and forms[0].saving_s < forms[1].saving_s < forms[-1].saving_s
    loop = Loop(prepared, timed, machine, table)
    keys = (forms[-1].key,)
    return loop, forms, Plan(keys, "kl", loop.predicted(keys), loop.time(keys), forms[-1].loss)


def test_what_cannot_go_becomes_gentler(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, forms, plan = in_forms(machine, tmp_path, monkeypatch)
    enough = loop.time((forms[1].key,)).low
    found = loop.relaxed(plan, forms, enough * 0.9999)
    assert found.keys == (forms[1].key,) and found.loss == forms[1].loss
    assert loop.relaxed(plan, forms, plan.measured.low * 0.9999) is plan


def test_the_lossiest_goes_first(job) -> None:
    loop, plan, choices = job
    savings = [choice.saving_s for choice in choices]
    if savings[-1] > sum(savings) / 2:
        pytest.skip("the lossiest block saves too much to go")
    without_last = tuple(plan.keys[:-1])
    found = loop.relaxed(plan, choices, loop.time(without_last).low * 0.999)
    assert plan.keys[-1] not in found.keys


def test_a_plan_that_needs_all_it_has_stays(job) -> None:
    loop, plan, choices = job
    assert loop.relaxed(plan, choices, plan.measured.low * 0.9999) is plan


def test_a_trimmed_plan_is_the_least_lossy_of_the_same_blocks_or_fewer(job) -> None:
    loop, plan, choices = job
    speedup = 1 + 0.5 * (plan.measured.low - 1)
    found = loop.trimmed(plan, choices, speedup)
    assert set(found.keys) < set(plan.keys) and found.measured.low >= speedup
    fewer = [rest for size in range(1, len(plan.keys)) for rest in combinations(plan.keys, size)]
    losses = {choice.key: choice.loss for choice in choices}
    enough = [sum(losses[key] for key in rest) for rest in fewer if loop.time(rest, FINE).low >= speedup]
    assert found.loss == pytest.approx(min(enough))


def test_a_plan_is_trimmed_to_gentler_forms_of_its_blocks(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, forms, plan = in_forms(machine, tmp_path, monkeypatch)
    enough = loop.time((forms[1].key,), FINE).low
    found = loop.trimmed(plan, forms, enough * 0.9999)
    assert found.keys == (forms[1].key,) and found.measured == loop.closely[found.keys]


def test_what_is_near_enough_is_not_trimmed_and_timed_once(job) -> None:
    loop, plan, choices = job
    assert loop.trimmed(plan, choices, plan.measured.low * 0.999) is plan
    assert set(loop.closely) == {plan.keys}


def test_a_plan_that_is_too_slow_when_timed_closely_is_left_to_its_measurement(
    job, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, plan, choices = job
    loop.closely[plan.keys] = replace(plan.measured, low=1.0)
    assert loop.trimmed(plan, choices, plan.measured.low) is plan
