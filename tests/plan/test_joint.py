"""Two blocks that push the outputs the same way cost more together than apart; the search sees it."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import pytest

from onnx_layermerge.errors import OlmError
from onnx_layermerge.plan import Choice, Joint, improve, nearby, solve
from onnx_layermerge.plan._joint import GAMMA


def moves(*rows: list[float]) -> dict[str, np.ndarray]:
    return {f"c{number}": np.array(row, np.float32) for number, row in enumerate(rows)}


def test_the_joint_loss_is_the_sum_and_what_moves_share() -> None:
    joint = Joint.of({"c0": 0.04, "c1": 0.09, "c2": 0.01}, moves([1, 0], [5, 0], [0, 2]))
    assert joint.loss(["c1"]) == pytest.approx(0.09)  # the length of a move is its loss, whatever the sketch had
    assert joint.loss(["c0", "c1"]) == pytest.approx(0.13 + 2 * GAMMA * 0.2 * 0.3)
    assert joint.loss(["c0", "c2"]) == pytest.approx(0.05)
    against = Joint.of({"c0": 0.04, "c1": 0.09}, moves([1, 0], [-5, 0]))
    assert against.loss(["c0", "c1"]) == pytest.approx(0.13 - 2 * GAMMA * 0.2 * 0.3)


def test_a_block_that_moves_nothing_costs_its_loss_alone() -> None:
    joint = Joint.of({"c0": 0.0, "c1": 0.5}, moves([0, 0], [1, 1]))
    assert joint.loss(["c0", "c1"]) == pytest.approx(0.5)


def test_the_search_leaves_a_plan_whose_blocks_add_up_badly() -> None:
    choices = [Choice("c0", 0, 1, 1.0, 1.0), Choice("c1", 1, 2, 1.0, 1.0), Choice("c2", 2, 3, 1.0, 1.1)]
    joint = Joint.of({one.key: one.loss for one in choices}, moves([1, 0], [1, 0], [0, 1]))
    by_sum = solve(choices).at(2.0)
    assert by_sum is not None and by_sum.keys == ("c0", "c1")
    better = improve(by_sum.keys, choices, joint, 2.0)
    assert len(better) == 2 and "c2" in better and joint.loss(better) < joint.loss(by_sum.keys)


@pytest.mark.parametrize("seed", range(20))
def test_every_result_is_disjoint_saves_enough_and_is_no_worse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = []
    for number in range(14):
        start = int(rng.integers(0, 10))
        saving = float(rng.uniform(0.2, 1))
        choices.append(Choice(f"c{number}", start, start + int(rng.integers(1, 4)), saving, float(rng.uniform(0, 1))))
    joint = Joint.of({one.key: one.loss for one in choices}, {one.key: rng.standard_normal(5) for one in choices})
    frontier = solve(choices)
    wanted = 0.6 * frontier.best_saving
    start_plan = frontier.at(wanted)
    assert start_plan is not None
    found = improve(start_plan.keys, choices, joint, wanted)
    members = [one for one in choices if one.key in found]
    assert [one.key for one in sorted(members, key=lambda one: one.start)] == list(found)
    assert sum(one.saving_s for one in members) >= wanted
    assert all(a.stop <= b.start or b.stop <= a.start for a, b in combinations(members, 2))
    assert joint.loss(found) <= joint.loss(start_plan.keys) + 1e-12


def test_losses_and_moves_must_belong_together() -> None:
    with pytest.raises(OlmError, match="score these blocks again"):
        Joint.of({"c0": 1.0}, moves([1], [1]))
    joint = Joint.of({"c0": 1.0}, moves([1]))
    with pytest.raises(OlmError, match="among the choices"):
        improve(["c0", "c9"], [Choice("c0", 0, 1, 1.0, 1.0)], joint, 0.5)


def line(seed: int) -> tuple[list[Choice], Joint, tuple[str, ...], float]:
    rng = np.random.default_rng(seed)
    choices = [
        Choice(f"c{at}.{size}", at, at + 1, size / 4, float(rng.uniform(0.5, 1) * size))
        for at in range(12)
        for size in (1, 2, 4)
    ]
    joint = Joint.of({one.key: one.loss for one in choices}, {one.key: rng.standard_normal(5) for one in choices})
    centre = solve(choices).at(5.0)
    assert centre is not None
    return choices, joint, centre.keys, 5.0


def test_plans_nearby_are_valid_differ_more_and_more_and_follow_the_seed() -> None:
    choices, joint, centre, wanted = line(3)
    by_key = {one.key: one for one in choices}
    drawn = list(islice(nearby(centre, choices, joint, wanted, seed=0), 60))
    assert drawn == list(islice(nearby(centre, choices, joint, wanted, seed=0), 60))
    assert drawn != list(islice(nearby(centre, choices, joint, wanted, seed=1), 60))
    for keys in drawn:
        members = [by_key[key] for key in keys]
        assert sum(one.saving_s for one in members) >= wanted
        assert len({one.start for one in members}) == len(members)
    distance = [len(set(keys) ^ set(centre)) for keys in drawn]
    assert np.mean(distance[:10]) < np.mean(distance[-10:])
    assert len(set(drawn)) > 10


def test_nothing_lies_near_where_so_much_cannot_be_saved() -> None:
    choices, joint, centre, _ = line(3)
    assert list(islice(nearby(centre, choices, joint, 100.0, seed=0), 3)) == []
