"""What is not timed, and why that can lose nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from onnx_layermerge.candidates import Candidate, Stage
from onnx_layermerge.graph import Region
from onnx_layermerge.latency import Bound, Failure, LatencyTable, Measurement, answers, fill, slopes
from onnx_layermerge.latency.bounds import MARGIN, ceiling, in_tiers, speaks_for, too_slow
from onnx_layermerge.merge import Geometry

HERE = Region(3, 6, "x", "y", (3, 5))


def stage(kernel: int, channels: int = 32, out: int | None = None, groups: int = 1, stride: int = 1) -> Stage:
    geometry = Geometry((kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2, (kernel // 2,) * 2)
    return Stage(channels, channels if out is None else out, geometry, groups)


def fit(*stages: Stage, region: Region = HERE) -> Candidate:
    return Candidate(f"fit {stages} {region}", region, "fit", stages)


def width(hidden: int) -> Candidate:
    return fit(stage(1, 32, hidden), stage(3, hidden, groups=hidden), stage(1, hidden, 32))


def test_only_strictly_more_of_the_same_work_is_spoken_for() -> None:
    assert speaks_for(fit(stage(1)), fit(stage(3))) and speaks_for(fit(stage(3)), fit(stage(7)))
    assert not speaks_for(fit(stage(3)), fit(stage(1))) and not speaks_for(fit(stage(3)), fit(stage(3)))
    elsewhere = Region(3, 6, "x", "z", (3, 5))
    assert not speaks_for(fit(stage(1)), fit(stage(3), region=elsewhere))
    assert not speaks_for(fit(stage(1)), fit(stage(3, stride=2)))
    # Depthwise code is special for some sizes: nothing follows from one size for another.
    assert not speaks_for(fit(stage(3, groups=32)), fit(stage(5, groups=32)))
    assert not speaks_for(fit(stage(3, groups=32)), fit(stage(3))) and not speaks_for(fit(), fit(stage(1)))


def test_a_width_speaks_for_a_larger_one_only_if_it_is_as_well_aligned() -> None:
    assert speaks_for(width(32), width(64)) and speaks_for(width(16), width(24)) and speaks_for(width(64), width(96))
    # 24 channels are padded to 32 by many a layout: then it is 32 that is faster.
    assert not speaks_for(width(24), width(32)) and not speaks_for(width(40), width(48))
    assert not speaks_for(width(64), width(32))


def test_tiers_put_whoever_speaks_first() -> None:
    order = [fit(stage(k)) for k in (7, 3, 1, 5)] + [fit(stage(3, groups=32)), width(64), width(32)]
    macs = {each.key: sum(s.unknowns * s.channels_out for s in each.stages) for each in order}
    tiers = in_tiers(order, macs)
    assert [sorted(s.geometry.kernel[0] for c in tier for s in c.stages[:1]) for tier in tiers] == [
        [1, 1, 3], [1, 3], [5], [7],
    ]  # fmt: skip
    place = {candidate.key: number for number, tier in enumerate(tiers) for candidate in tier}
    assert len(place) == len(order)
    assert all(place[a.key] < place[b.key] for a in order for b in order if speaks_for(a, b))


def test_the_ceiling_is_what_a_plan_would_take(measurement) -> None:
    old = measurement(10e-3)  # its interval ends at 10.1 ms
    assert ceiling(old, 0.1, 0.03, 0.002) == pytest.approx(10.1e-3 * 0.97)
    assert ceiling(old, 1.0, 0.03, 0.002) == pytest.approx(8.1e-3), "2 ms of the network are more than 3 % of the block"
    assert ceiling(old, 10.0, 0.03, 0.002) < 0, "the whole block is less than that"
    assert ceiling(Failure("no"), 0.1, 0.03, 0.002) == ceiling(None, 0.1, 0.03, 0.002) == -math.inf


def test_too_slow_is_said_by_lower_ends_alone(measurement) -> None:
    assert too_slow(Bound(2.0, 5), 1.9) and not too_slow(Bound(2.0, 5), 1.9, MARGIN)
    value = measurement(2.0)
    assert too_slow(value, value.low_s * 0.999) and not too_slow(value, value.low_s)
    assert not too_slow(None, 0.0) and not too_slow(Failure("no"), 0.0)


def slow(fake, name: str, ceiling_s: float):
    return dataclasses.replace(fake.block(name), ceiling_s=ceiling_s)


def test_five_samples_above_the_ceiling_are_enough(machine, noise) -> None:
    fake = machine({name: noise(1e-3, noise=0.01, seed=2) for name in "abc"})
    options = {"clock": fake.clock, "cap_s": 60.0}
    results = slopes([slow(fake, "a", 0.9e-3), slow(fake, "b", 1.2e-3), slow(fake, "c", 0.3e-3)], fake, **options)
    a, b, c = (results[f"key-{name}"] for name in "abc")
    assert isinstance(a, Bound) and a.n == 5 and 0.9e-3 < a.at_least_s <= 1.03e-3
    assert isinstance(b, Measurement) and b.n >= 20, "below its ceiling it is measured as if there were none"
    assert isinstance(c, Bound) and c.n == 2, "three times the ceiling needs no five samples"
    assert fake.open_now == []


def test_one_sample_below_the_ceiling_is_the_benefit_of_the_doubt(machine) -> None:
    runs_of_three: list[int] = []

    def now_and_then_fast(copies: int, run: int) -> float:
        if copies == 3:
            runs_of_three.append(run)
        return 1e-3 * copies * (0.5 if copies == 3 and len(runs_of_three) % 4 == 0 else 1.0)

    fake = machine({"a": now_and_then_fast})
    value = slopes([slow(fake, "a", 0.95e-3)], fake, clock=fake.clock)["key-a"]
    assert isinstance(value, Measurement)


def test_a_bound_answers_for_lower_ceilings_only_and_never_as_a_time(machine, noise, tmp_path: Path) -> None:
    fake = machine({"a": noise(1e-3)})
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        first = fill(table, fake, [slow(fake, "a", 0.5e-3)], clock=fake.clock)["key-a"]
        assert isinstance(first.value, Bound) and first.seconds is None
        runs = len(fake.runs)
        assert fill(table, fake, [slow(fake, "a", 0.4e-3)], clock=fake.clock)["key-a"] == first
        assert len(fake.runs) == runs, "already known to be above this one"
        full = fill(table, fake, [fake.block("a")], clock=fake.clock)["key-a"]
        assert isinstance(full.value, Measurement), "where the cost itself is asked for, a bound is no answer"
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        assert table.get(fake.describe(), "key-a") == full
    assert answers(full.value) and not answers(None) and answers(Failure("no"))


def test_an_iterator_may_decide_by_what_was_stored_before_a_mark(machine, noise) -> None:
    fake = machine({name: noise(1e-3) for name in "abcd"})
    stored: list[str] = []
    seen: list[list[str]] = []

    def blocks():
        yield fake.block("a")
        yield fake.block("b")
        seen.append(list(stored))
        yield None
        seen.append(sorted(stored))
        yield None
        yield fake.block("c")
        yield None

    results = slopes(blocks(), fake, clock=fake.clock, store=lambda spec, value: stored.append(spec.key))
    assert seen == [[], ["key-a", "key-b"]] and results.keys() == {"key-a", "key-b", "key-c"}


def test_a_budget_keeps_what_has_an_interval_and_leaves_out_the_rest(machine, noise) -> None:
    fake = machine({name: noise(1e-3, noise=0.3) for name in "abcdefgh"})
    blocks = [fake.block(name) for name in "abcdefgh"]
    results = slopes(blocks, fake, clock=fake.clock, group=2, cap_s=60.0, max_rounds=100, budget_s=1.0)
    assert 0 < len(results) < len(blocks) and fake.open_now == []
    assert list(results) == sorted(results), "in the order given"
    assert fake.clock().wall_s < 1.1
    assert all(isinstance(value, Measurement) and value.n >= 6 for value in results.values())
    assert "cap" in {value.stop_reason for value in results.values() if isinstance(value, Measurement)}
