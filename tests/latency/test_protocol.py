"""The block protocol on a fake machine with a virtual clock: no real time passes."""

from __future__ import annotations

import pytest

from onnx_layermerge.errors import DeviceError, ModelError, UsageError
from onnx_layermerge.latency import Failure, LatencyTable, Measurement, fill, slopes


def test_fixed_costs_cancel_and_noise_averages_out(machine, noise) -> None:
    names = [f"b{i}" for i in range(7)]
    costs = {name: noise((i + 1) * 1e-3, fixed_s=2e-3, seed=i) for i, name in enumerate(names)}
    fake = machine(costs)
    results = slopes([fake.block(n) for n in names], fake, clock=fake.clock, cap_s=60.0)
    for i, name in enumerate(names):
        value = results[f"key-{name}"]
        assert isinstance(value, Measurement)
        # The 2 ms that each run costs anyway would be 33 % to 200 % of it.
        assert value.seconds == pytest.approx((i + 1) * 1e-3, rel=0.02)
        assert value.low_s <= value.seconds <= value.high_s
        assert value.wall_s == pytest.approx(2 * value.seconds, rel=1e-9)
    assert fake.open_now == []


def test_one_sided_spikes_and_slow_drift_leave_the_median(machine, noise) -> None:
    steady = noise(1e-3, fixed_s=5e-3, noise=0.001)

    def hostile(copies: int, run: int) -> float:
        spike = 20e-3 if (run * 2654435761) % 10 == 0 else 0.0  # every tenth run
        return steady(copies, run) * (1 + run / 2000) + spike

    fake = machine({"a": hostile})
    value = slopes([fake.block("a")], fake, clock=fake.clock, cap_s=60.0, max_rounds=60)["key-a"]
    assert isinstance(value, Measurement)
    assert value.seconds == pytest.approx(1e-3, rel=0.15), "a mean would be off by 100 % or more"
    assert value.outliers > 0


def test_equal_keys_are_timed_once(machine, noise) -> None:
    fake = machine({"a": noise(1e-3), "b": noise(1e-3)})
    results = slopes([fake.block("a"), fake.block("b"), fake.block("a")], fake, clock=fake.clock)
    assert list(results) and set(results) == {"key-a", "key-b"}
    assert fake.built.count("a 3") == 1


def test_same_seed_takes_the_same_runs_and_another_seed_other_orders(machine, noise) -> None:
    def runs(seed: int) -> list[str]:
        fake = machine({n: noise(1e-3) for n in "abcd"})
        slopes([fake.block(n) for n in "abcd"], fake, clock=fake.clock, seed=seed)
        return list(fake.runs)

    assert runs(1) == runs(1)
    assert runs(1) != runs(2)


def test_blocks_are_shuffled_within_rounds_and_the_two_runs_of_a_pair_adjoin(machine, noise) -> None:
    fake = machine({n: noise(1.1e-3, noise=0.05) for n in "abcdef"})
    slopes(
        [fake.block(n) for n in "abcdef"],
        fake,
        clock=fake.clock,
        min_rounds=10,
        max_rounds=10,
        cap_s=60,
        target=0.0,
    )
    timed = fake.runs[-10 * 14 :]  # ten rounds: the anchor twice (once to warm it), six pairs
    orders = set()
    for start in range(0, len(timed), 14):
        pairs = [timed[i : i + 2] for i in range(start + 2, start + 14, 2)]
        assert sorted("".join(sorted(x[0] for x in pair)) for pair in pairs) == [2 * n for n in "abcdef"]
        assert all({x[2] for x in pair} == {"1", "3"} for pair in pairs)
        orders.add("".join(pair[0][0] for pair in pairs))
    assert len(orders) > 5
    firsts = [timed[i][2] for i in range(len(timed)) if timed[i][0] == "a" and timed[i - 1][0] != "a"]
    assert 3 <= sum(x == "1" for x in firsts) <= 7, "each of the two goes first about equally often"


def test_memory_is_bounded_by_groups(machine, noise) -> None:
    names = [f"b{i}" for i in range(10)]
    fake = machine({n: noise(1e-3) for n in names})
    assert len(slopes([fake.block(n) for n in names], fake, clock=fake.clock, group=3)) == 10
    assert fake.most_open == 3 * 2 + 1, "two models a block, and the anchor"


def test_large_models_make_small_groups(machine, noise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_layermerge.latency._protocol.GROUP_BYTES", 6)  # "a 1" and "a 3"
    fake = machine({n: noise(1e-3) for n in "abcd"})
    slopes([fake.block(n) for n in "abcd"], fake, clock=fake.clock)
    assert fake.most_open == 3


def test_a_large_model_that_fails_does_not_end_the_queue(machine, noise, monkeypatch) -> None:
    monkeypatch.setattr("onnx_layermerge.latency._protocol.GROUP_BYTES", 6)
    fake = machine({"a": noise(1e-3)})
    results = slopes([fake.block("unbuildable"), fake.block("a")], fake, clock=fake.clock)
    assert isinstance(results["key-a"], Measurement)


def test_no_blocks_are_no_work_and_no_group_is_refused(machine) -> None:
    assert slopes([], machine({}), progress=lambda *_: pytest.fail("nothing to show")) == {}
    with pytest.raises(UsageError):
        slopes([machine({}).block("a")], machine({}), group=0)


def test_stop_reasons_are_stored(machine, noise) -> None:
    def reason(level: float, **options: float) -> tuple[str, int]:
        fake = machine({"a": noise(1e-3, noise=level)})
        value = slopes([fake.block("a")], fake, clock=fake.clock, min_rounds=16, max_rounds=40, **options)[
            "key-a"
        ]
        assert isinstance(value, Measurement)
        return value.stop_reason, value.n

    assert reason(0.001, cap_s=60.0) == ("precise", 16)
    assert reason(0.3, cap_s=60.0) == ("rounds", 40)
    assert reason(0.3, cap_s=60.0, floor_s=1e-3) == ("floor", 16)
    stopped, n = reason(0.3, cap_s=0.08)  # a round takes 2 x 4 ms of wall time
    assert stopped == "cap" and 9 <= n <= 12


def test_failures_are_results_and_the_rest_goes_on(machine, noise) -> None:
    def breaks_later(copies: int, run: int) -> float:
        if run > 60:
            raise ModelError("the kernel crashed")
        return 1e-3 * copies

    fake = machine({"a": noise(1e-3), "b": breaks_later})
    blocks = [fake.block("unbuildable"), fake.block("b"), fake.block("a")]
    stored = {}
    results = slopes(
        blocks, fake, clock=fake.clock, store=lambda spec, v: stored.__setitem__(spec.key, v), target=0.0
    )
    assert results["key-unbuildable"] == Failure("cannot build unbuildable 1")
    assert results["key-b"] == Failure("the kernel crashed")
    assert isinstance(results["key-a"], Measurement)
    assert stored == results
    assert fake.open_now == []


def test_a_lost_device_ends_it_and_leaves_nothing_open(machine, noise) -> None:
    def lost(copies: int, run: int) -> float:
        if run > 50:
            raise DeviceError("the device was lost")
        return 1e-3

    fake = machine({"a": noise(1e-3), "b": lost})
    with pytest.raises(DeviceError):
        slopes([fake.block("a"), fake.block("b")], fake, clock=fake.clock, target=0.0)
    assert fake.open_now == []


def test_more_copies_that_run_faster_are_no_cost(machine) -> None:
    fake = machine({"a": lambda copies, run: 1e-3 / copies})
    result = slopes([fake.block("a")], fake, clock=fake.clock)["key-a"]
    assert isinstance(result, Failure) and "faster" in result.reason


def test_tiny_blocks_are_repeated_within_a_sample(machine, noise) -> None:
    fake = machine({"a": noise(1e-6, fixed_s=3e-6)})
    value = slopes([fake.block("a")], fake, clock=fake.clock)["key-a"]
    assert isinstance(value, Measurement)
    assert value.seconds == pytest.approx(1e-6, rel=0.02)
    assert len(fake.runs) > 2 * 40 * value.n, "a sample of 4 us runs lasts 200 us"


def test_drift_of_the_machine_is_one_warning(machine, noise) -> None:
    def run(growth: float) -> list[str]:
        quiet = noise(1e-3, noise=0.002)
        fake = machine({n: lambda c, r: quiet(c, r) * (1 + growth * (r > 300)) for n in "abcdef"})
        warnings: list[str] = []
        blocks = [fake.block(n) for n in "abcdef"]
        slopes(blocks, fake, clock=fake.clock, group=2, cap_s=60, warn=warnings.append)
        return warnings

    assert run(0.0) == []
    (warning,) = run(0.2)
    assert "20% slower" in warning
    assert "10% faster" in run(-0.1)[0]


def test_progress_grows_to_its_end(machine, noise) -> None:
    fake = machine({n: noise(1e-3) for n in "abcde"})
    seen: list[tuple[int, int, str]] = []
    slopes(
        [fake.block(n) for n in [*"abcde", "unbuildable"]],
        fake,
        clock=fake.clock,
        group=2,
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    shares = [done / total for done, total, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0 and shares[-1] == 1
    assert any("building b" in what for *_, what in seen)


def test_fill_times_only_what_the_table_lacks(machine, noise, tmp_path) -> None:
    fake = machine({n: noise(1e-3) for n in "abc"})
    blocks = [fake.block(n) for n in ["a", "b", "unbuildable"]]
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        first = fill(table, fake, blocks, clock=fake.clock)
        runs, built = len(fake.runs), len(fake.built)
        assert fill(table, fake, blocks, clock=fake.clock) == first
        assert (len(fake.runs), len(fake.built)) == (runs, built), "a warm table times nothing"
        more = fill(table, fake, [*blocks, fake.block("c")], clock=fake.clock)
        assert set(more) == {"key-a", "key-b", "key-c", "key-unbuildable"}
        assert set(fake.built[built:]) == {"c 1", "c 3"}
        assert more["key-a"].seconds == first["key-a"].seconds
        assert more["key-unbuildable"].seconds is None


def test_fill_keeps_what_was_measured_before_a_crash(machine, noise, tmp_path) -> None:
    def lost(copies: int, run: int) -> float:
        raise DeviceError("the device was lost")

    fake = machine({"a": noise(1e-3), "b": lost})
    path = tmp_path / "t.sqlite"
    with LatencyTable.open(path) as table, pytest.raises(DeviceError):
        fill(table, fake, [fake.block("unbuildable"), fake.block("b")], clock=fake.clock)
    with LatencyTable.open(path) as table:
        assert list(table.entries(fake.describe())) == ["key-unbuildable"]
