"""Rivals are distinct, deterministic, and every one of them truly saves what was asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from onnx_layermerge.errors import OlmError, UsageError
from onnx_layermerge.plan import Choice, Rival, rivals, solve


def bases(count: int = 120, length: int = 40) -> dict[str, list[Choice]]:
    rng = np.random.default_rng(7)
    kl = []
    for number in range(count):
        start = int(rng.integers(0, length))
        stop = min(length, start + 1 + int(rng.integers(0, 5)))
        kl.append(
            Choice(
                f"{'drop' if number % 3 == 0 else 'fit'}/{number:03}",
                start,
                stop,
                float(rng.uniform(0.05, 0.9)) * 1e-4 * (stop - start),
                float(rng.lognormal(-3, 1.2)) * (stop - start),
            )
        )
    return {
        "kl": kl,
        "sqrt_kl": [replace(choice, loss=math.sqrt(choice.loss)) for choice in kl],
        "drop_only": [choice for choice in kl if choice.key.startswith("drop")],
    }


BASES = bases()
SAVING_S = 0.6 * solve(BASES["drop_only"]).best_saving


def test_rivals_are_distinct_legal_and_reach_the_saving() -> None:
    found = rivals(BASES, saving_s=SAVING_S, count=16, seed=0)
    assert len(found) == 16
    assert len({rival.keys for rival in found}) == 16
    for rival in found:
        by_key = {choice.key: choice for choice in BASES[rival.basis]}
        taken = [by_key[key] for key in rival.keys]  # a KeyError here: a choice its basis does not hold
        assert all(left.stop <= right.start for left, right in pairwise(taken))
        assert rival.saving_s == math.fsum(choice.saving_s for choice in taken) >= SAVING_S
        assert rival.loss == math.fsum(choice.loss for choice in taken)


def test_unperturbed_plans_come_first_and_turns_are_fair() -> None:
    found = rivals(BASES, saving_s=SAVING_S, count=12, seed=0)
    assert [(rival.basis, rival.sigma) for rival in found[:3]] == [(name, 0.0) for name in BASES]
    for rival in found[:3]:
        best = solve(BASES[rival.basis], max_saving_s=SAVING_S).at(SAVING_S)
        assert best is not None
        assert (rival.keys, rival.saving_s, rival.loss) == (best.keys, best.saving_s, best.loss)
    assert all(rival.sigma > 0 for rival in found[3:])
    assert {rival.basis for rival in found[3:]} == set(BASES)
    assert {rival.sigma for rival in found[3:]} == {0.3, 0.6, 1.0}
    for rival in found[3:]:  # perturbed plans are dearer under the true losses, but for the coarser grid
        assert rival.loss >= 0.98 * next(one.loss for one in found if one.basis == rival.basis)


def test_the_seed_alone_decides() -> None:
    def draw(named: dict[str, Sequence[Choice]], seed: int) -> tuple[Rival, ...]:
        return rivals(named, saving_s=SAVING_S, count=10, seed=seed)

    turned = {name: choices[::-1] for name, choices in BASES.items()}
    assert draw(dict(BASES), 3) == draw(dict(BASES), 3) == draw(dict(turned), 3)
    assert draw(dict(BASES), 3) != draw(dict(BASES), 4)
    assert draw(dict(BASES), 3)[:3] == draw(dict(BASES), 4)[:3]


def test_fewer_wanted_are_the_first_of_more() -> None:
    more = rivals(BASES, saving_s=SAVING_S, count=10, seed=1)
    assert rivals(BASES, saving_s=SAVING_S, count=6, seed=1) == more[:6]
    assert rivals(BASES, saving_s=SAVING_S, count=2, seed=1) == more[:2]


def test_a_basis_that_cannot_save_enough_is_left_out() -> None:
    wanted = 0.5 * (solve(BASES["drop_only"]).best_saving + solve(BASES["kl"]).best_saving)
    found = rivals(BASES, saving_s=wanted, count=6, seed=0)
    assert {rival.basis for rival in found} == {"kl", "sqrt_kl"}
    assert rivals(BASES, saving_s=2 * solve(BASES["kl"]).best_saving, count=6, seed=0) == ()


def test_the_search_ends_when_there_are_not_that_many_plans() -> None:
    first, second = Choice("a", 0, 1, 1.0, 0.1), Choice("b", 0, 1, 1.0, 0.2)
    found = rivals({"kl": [first, second], "same": [first]}, saving_s=1.0, count=5, seed=0)
    assert [(rival.keys, rival.basis) for rival in found] == [(("a",), "kl"), (("b",), "kl")]


@pytest.mark.parametrize("change", [{"start": 1}, {"stop": 3}, {"saving_s": 2.0}])
def test_bases_that_disagree_about_a_choice_are_refused(change: dict[str, float]) -> None:
    first = Choice("a", 0, 2, 1.0, 0.1)
    with pytest.raises(OlmError, match=r"'relative_error'.*'a'"):
        rivals({"kl": [first], "relative_error": [replace(first, **change)]}, saving_s=1.0, count=2, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"saving_s": 0.0},
        {"saving_s": math.nan},
        {"saving_s": math.inf},
        {"count": 0},
        {"seed": -1},
        {"sigmas": ()},
        {"sigmas": (0.3, 0.0)},
        {"sigmas": (math.nan,)},
        {"sigmas": (11.0,)},
        {"bases": {}},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    arguments: dict[str, object] = {"bases": BASES, "saving_s": SAVING_S, "count": 4, "seed": 0, **wrong}
    with pytest.raises(UsageError):
        rivals(arguments.pop("bases"), **arguments)  # type: ignore[arg-type]
