"""The program against every subset of small instances, and what its frontier promises on any instance."""

from __future__ import annotations

import math
import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_layermerge.errors import OlmError, UsageError
from onnx_layermerge.plan import Choice, Frontier, Solution, solve

EMPTY = Solution((), 0.0, 0.0)


def every_solution(choices: list[Choice]) -> list[Solution]:
    """All sets of disjoint choices, by taking or leaving each in turn; sums as the room defines them."""
    sets: list[list[Choice]] = [[]]
    for choice in sorted(choices, key=lambda one: one.start):
        sets += [[*taken, choice] for taken in sets if not taken or taken[-1].stop <= choice.start]
    return [
        Solution(
            tuple(one.key for one in taken),
            math.fsum(one.saving_s for one in taken),
            math.fsum(one.loss for one in taken),
        )
        for taken in sets
    ]


def pareto(solutions: list[Solution]) -> tuple[Solution, ...]:
    """The definition itself, pair by pair, with the documented order among equals."""

    def beats(a: Solution, b: Solution) -> bool:
        if (a.saving_s, a.loss) == (b.saving_s, b.loss):
            return (len(a.keys), a.keys) < (len(b.keys), b.keys)
        return a.saving_s >= b.saving_s and a.loss <= b.loss

    kept = [one for one in solutions if not any(beats(other, one) for other in solutions)]
    return tuple(sorted(kept, key=lambda one: one.saving_s))


def network(count: int, length: int, width: int, seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    choices = []
    for number in range(count):
        start = int(rng.integers(0, length))
        stop = min(length, start + 1 + int(rng.integers(0, width)))
        saving_s = float(rng.uniform(-0.1, 0.9)) * 1e-4 * (stop - start)
        choices.append(Choice(f"block{number:03}", start, stop, saving_s, float(rng.lognormal(-3, 1.2))))
    return choices


@st.composite
def instances(
    draw: st.DrawFn, savings: st.SearchStrategy[float], losses: st.SearchStrategy[float]
) -> list[Choice]:
    """Up to 12 choices on up to 9 positions; keys are shuffled against the positions."""
    count = draw(st.integers(0, 12))
    keys = draw(st.permutations([f"k{number:02}" for number in range(count)]))
    spans = [(draw(st.integers(0, 8)), draw(st.integers(1, 4))) for _ in range(count)]
    return [
        Choice(key, start, start + width, draw(savings), draw(losses))
        for key, (start, width) in zip(keys, spans, strict=True)
    ]


# Few distinct values, zero among them, so that ties of every kind are common.
whole = instances(st.integers(-1, 6).map(float), st.integers(0, 4).map(float))
real = instances(st.floats(-0.1, 1.0, allow_subnormal=False), st.floats(0.0, 1.0, allow_subnormal=False))


@settings(max_examples=300, deadline=None)
@given(whole, st.integers(1, 3))
def test_whole_savings_on_whole_steps_give_the_exact_frontier_with_its_ties(
    choices: list[Choice], finer: int
) -> None:
    expected = pareto(every_solution(choices))
    best = int(expected[-1].saving_s)
    frontier = solve(choices, steps=max(1, best * finer))
    assert frontier.points == expected
    assert frontier.best_saving == best


@settings(max_examples=200, deadline=None)
@given(real, st.sampled_from([1, 7, 50, 1000]), st.floats(0.01, 1.0))
def test_rounding_hides_at_most_one_unit_for_each_block(
    choices: list[Choice], steps: int, share: float
) -> None:
    everything = every_solution(choices)
    best = max(one.saving_s for one in everything)
    maximum = best * share if best * share > 0 else None
    frontier = solve(choices, max_saving_s=maximum, steps=steps)
    assert frontier.best_saving == pytest.approx(best, rel=1e-15)
    top = maximum if maximum is not None else best
    for wanted in (0.0, 0.3 * top, 0.8 * top, top):
        found = frontier.at(wanted)
        if found is None:  # only the last place of the greatest sum can be missed
            assert wanted > frontier.best_saving
            continue
        reachable = [one.loss for one in everything if one.saving_s >= wanted]
        unit_s = frontier.unit_s * (1 + 1e-12)
        bound = [one.loss for one in everything if one.saving_s >= wanted + len(one.keys) * unit_s]
        assert found.saving_s >= wanted
        assert found.loss >= min(reachable)
        assert found.loss <= min(bound, default=math.inf) * (1 + 1e-12)


@pytest.mark.parametrize(("length", "width"), [(60, 8), (300, 4), (40, 40)])
def test_every_point_is_a_legal_set_with_its_true_sums(length: int, width: int) -> None:
    choices = network(200, length, width, seed=length)
    by_key = {choice.key: choice for choice in choices}
    frontier = solve(choices, steps=997)  # a prime: no saving falls on a whole step
    for point in frontier.points:
        taken = [by_key[key] for key in point.keys]
        assert all(left.stop <= right.start for left, right in pairwise(taken))
        assert point.saving_s == math.fsum(one.saving_s for one in taken)
        assert point.loss == math.fsum(one.loss for one in taken)
        assert all(one.saving_s > 0 for one in taken)
    for low, high in pairwise(frontier.points):
        assert low.saving_s < high.saving_s and low.loss < high.loss
    assert frontier.points[0] == EMPTY
    assert len(frontier.points) > 5


def test_the_order_of_the_choices_does_not_matter() -> None:
    choices = [Choice(f"{n:02}", n % 7, n % 7 + 1 + n % 3, 1.0 + n % 4, 0.0 + n % 3) for n in range(40)]
    shuffled = choices.copy()
    random.Random(5).shuffle(shuffled)
    assert solve(shuffled, steps=100) == solve(choices, steps=100)


def test_a_limit_refines_the_axis_below_it_and_keeps_the_greatest_saving() -> None:
    choices = network(200, 60, 3, seed=11)
    whole_axis = solve(choices, steps=100)
    wanted = 0.25 * whole_axis.best_saving
    limited = solve(choices, max_saving_s=wanted, steps=100)
    assert limited.unit_s == pytest.approx(whole_axis.unit_s / 4, rel=1e-12)
    assert limited.points[-1] == whole_axis.points[-1]
    fine, coarse = limited.at(wanted), whole_axis.at(wanted)
    assert fine is not None and coarse is not None and fine.loss < coarse.loss
    assert solve(choices, max_saving_s=math.inf, steps=100) == whole_axis


USELESS = [Choice("slower", 0, 2, -1e-3, 0.0), Choice("equal", 2, 3, 0.0, 0.0)]


@pytest.mark.parametrize("choices", [[], USELESS])
def test_nothing_to_save_is_one_empty_solution(choices: list[Choice]) -> None:
    frontier = solve(choices)
    assert frontier == Frontier((EMPTY,), 0.0)
    assert frontier.at(0.0) == EMPTY
    assert frontier.at(1e-9) is None


def test_what_costs_nothing_is_always_taken() -> None:
    frontier = solve([Choice("free", 0, 1, 1.0, 0.0), Choice("dear", 1, 2, 2.0, 0.5)], steps=3)
    assert frontier.points == (Solution(("free",), 1.0, 0.0), Solution(("free", "dear"), 3.0, 0.5))


def test_a_loss_too_small_for_the_sum_still_gives_its_saving() -> None:
    speck, dear = Choice("a", 1, 2, 3.0, 1e-126), Choice("b", 0, 1, 8.0, 1.0)
    found = solve([speck, dear, Choice("c", 1, 2, 4.0, 1.0)], steps=12).at(11.0)
    assert found == Solution(("b", "a"), 11.0, 1.0)


def test_touching_blocks_go_together_and_overlapping_ones_do_not() -> None:
    touching = [Choice("a", 0, 2, 1.0, 1.0), Choice("b", 2, 4, 1.0, 1.0)]
    assert solve(touching, steps=2).points[-1].keys == ("a", "b")
    overlapping = [Choice("a", 0, 3, 1.0, 1.0), Choice("b", 2, 4, 1.0, 2.0)]
    assert [point.keys for point in solve(overlapping, steps=1).points] == [(), ("a",)]


def test_savings_far_below_one_step_overflow_nothing() -> None:
    choices = [Choice("a", 0, 1, 1.0, 0.1), Choice("b", 1, 2, 1.0, 0.2)]
    frontier = solve(choices, max_saving_s=5e-324, steps=10)
    assert [point.keys for point in frontier.points] == [(), ("a",), ("a", "b")]


def test_a_long_line_of_narrow_blocks_keeps_only_the_table_of_first_choices() -> None:
    steps = 5_000  # with few distinct sums, so that the points themselves weigh little
    choices = [Choice(f"{n:03}", n, n + 1 + n % 5, 1.0 + n % 3, 1.0 + n % 2) for n in range(400)]
    tracemalloc.start()
    try:
        solve(choices, steps=steps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    table = len(choices) * steps * np.dtype(np.int16).itemsize
    assert table < peak < 2 * table  # every row of losses, were it kept, would add four tables


def test_a_key_used_twice_is_refused_by_name() -> None:
    with pytest.raises(OlmError, match="'twin'"):
        solve([Choice("twin", 0, 1, 1.0, 0.1), Choice("twin", 1, 2, 1.0, 0.1)])


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match="steps"):
        solve([], steps=steps)


@pytest.mark.parametrize("maximum", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(maximum: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        solve([], max_saving_s=maximum)
