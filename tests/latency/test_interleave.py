from __future__ import annotations

import pytest

from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.latency import interleave, measure


def test_ratio_is_the_speed_up_of_b_over_a(machine, noise) -> None:
    fake = machine({"a": noise(3e-3, seed=1), "b": noise(2e-3, seed=2)})
    result = interleave(fake.runnable("a"), fake.runnable("b"), clock=fake.clock)
    assert result.ratio == pytest.approx(1.5, rel=0.01)
    assert result.low <= result.ratio <= result.high
    assert (result.high - result.low) / 2 <= 0.01 * result.ratio
    assert (result.a_s, result.b_s) == (pytest.approx(3e-3, rel=0.01), pytest.approx(2e-3, rel=0.01))
    assert result.wall_ratio == pytest.approx(result.ratio, rel=1e-9)
    assert result.stop_reason == "precise" and result.n == 30


def test_interval_covers_the_true_ratio_about_as_often_as_it_says(machine, noise) -> None:
    hits = 0
    for seed in range(100):
        fake = machine({"a": noise(3e-3, noise=0.2, seed=seed), "b": noise(2e-3, noise=0.2, seed=999 - seed)})
        result = interleave(
            fake.runnable("a"), fake.runnable("b"), clock=fake.clock, min_rounds=30, max_rounds=30, seed=seed
        )
        hits += result.low <= 1.5 <= result.high
    assert hits >= 90  # 95 expected; 89 or fewer would come up once in 85 such tests


def test_spikes_and_a_slowing_machine_do_not_move_the_ratio(machine, noise) -> None:
    base_a, base_b = noise(3e-3, noise=0.005, seed=1), noise(2e-3, noise=0.005, seed=2)

    def hostile(base):  # type: ignore[no-untyped-def]
        # Each run in eight is hit by another process; the machine becomes half as fast by and by.
        return lambda c, r: base(c, r) * (1 + r / 400) + (10e-3 if (r * 40503) % 8 == 3 else 0.0)

    fake = machine({"a": hostile(base_a), "b": hostile(base_b)})
    result = interleave(fake.runnable("a"), fake.runnable("b"), clock=fake.clock, cap_s=1e9)
    assert result.ratio == pytest.approx(1.5, rel=0.02)


def test_equal_models_are_equal_even_if_the_first_place_of_a_round_is_slower(machine) -> None:
    last = {"name": ""}

    def place(name: str):  # type: ignore[no-untyped-def]
        def cost(copies: int, run: int) -> float:
            cold = last["name"] != name
            last["name"] = name
            return 2e-3 * (1.1 if cold else 1.0)

        return cost

    fake = machine({"a": place("a"), "b": place("b")})
    result = interleave(fake.runnable("a"), fake.runnable("b"), clock=fake.clock, max_rounds=100)
    assert result.ratio == pytest.approx(1.0, abs=1e-9)
    assert result.n % 2 == 0


def test_orders_are_random_and_balanced(machine, noise) -> None:
    fake = machine({"a": noise(2e-3), "b": noise(2e-3)})
    a, b = fake.runnable("a"), fake.runnable("b")
    interleave(a, b, clock=fake.clock, min_rounds=40, max_rounds=40)
    rounds = [
        "".join(x[0] for x in fake.runs[i : i + 2]) for i in range(len(fake.runs) - 80, len(fake.runs), 2)
    ]
    assert sorted(set(rounds)) == ["ab", "ba"] and rounds.count("ab") == 20
    assert rounds != ["ab", "ba"] * 20 and rounds != ["ba", "ab"] * 20


@pytest.mark.parametrize(
    ("options", "reason", "n"),
    [
        ({"max_rounds": 50, "cap_s": 1e9}, "rounds", 50),
        ({"max_rounds": 50, "cap_s": 0.1}, "cap", 11),  # wall time is twice 5 ms a round
        ({"max_rounds": 50, "cap_s": 1e-9}, "cap", 6),
    ],
)
def test_stop_reason(machine, options, reason, n) -> None:
    steps = iter(range(10**6))
    fake = machine({"a": lambda c, r: 2.4e-3 + 2e-3 * (next(steps) % 2), "b": lambda c, r: 1.6e-3})
    result = interleave(fake.runnable("a"), fake.runnable("b"), clock=fake.clock, **options)
    assert result.stop_reason == reason
    assert abs(result.n - n) <= 1


def test_errors_are_sentences(machine, noise) -> None:
    fake = machine({"a": lambda c, r: 0.0, "b": noise(1e-3)})
    with pytest.raises(UsageError):
        interleave(fake.runnable("b"), fake.runnable("b"), clock=fake.clock, min_rounds=3)
    stuck = machine({"a": lambda c, r: 1e-3})
    with pytest.raises(ModelError, match="no measurable time"):
        interleave(
            stuck.runnable("a"),
            stuck.runnable("a"),
            clock=lambda: stuck.clock()._replace(seconds=0.0),
        )


def test_measure_reports_median_and_reaches_the_end_of_its_progress(machine, noise) -> None:
    fake = machine({"a": noise(4e-3, noise=0.02)})
    seen: list[tuple[int, int]] = []
    value = measure(fake.runnable("a"), clock=fake.clock, progress=lambda d, t, _: seen.append((d, t)))
    assert value.seconds == pytest.approx(4e-3, rel=0.01)
    assert value.stop_reason == "precise"
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
