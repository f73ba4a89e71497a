from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.fit import elimination_order


def problem(channels: int, size: int, outputs: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A [D, D] of correlated columns and the W [D, O] that solves least squares with it."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((400, channels * size)) @ rng.standard_normal((channels * size, channels * size))
    target = rng.standard_normal((400, outputs))
    matrix = rows.T @ rows / len(rows)
    ridge = 1e-2 * np.trace(matrix) / len(matrix)
    return matrix, np.linalg.solve(matrix + ridge * np.eye(len(matrix)), rows.T @ target / len(rows))


def greedy(matrix: np.ndarray, weight: np.ndarray, ridge: float, channels: int, least: int) -> list[int]:
    """Take out, one after another, the channel whose loss the others make up for best, each time solved anew."""
    size = len(matrix) // channels
    system = matrix + ridge * np.eye(len(matrix))
    cross = system @ weight

    def raised(alive: list[int]) -> float:
        columns = (np.array(alive)[:, None] * size + np.arange(size)).ravel()
        solved = np.linalg.solve(system[np.ix_(columns, columns)], cross[columns])
        return -float((cross[columns] * solved).sum())  # ‖·‖² up to a constant

    alive, gone = list(range(channels)), []
    while len(alive) > least:
        worst = min(alive, key=lambda channel: raised([other for other in alive if other != channel]))
        alive.remove(worst)
        gone.append(worst)
    return gone + alive


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("least", [1, 5])
def test_the_order_is_that_of_solving_anew_each_time(size: int, seed: int, least: int) -> None:
    matrix, weight = problem(9, size, seed=seed)
    ridge = 1e-2 * float(np.trace(matrix)) / len(matrix)
    assert elimination_order(matrix, weight, ridge, 9, least).tolist() == greedy(matrix, weight, ridge, 9, least)


def test_a_channel_that_does_nothing_goes_first() -> None:
    matrix, weight = problem(6, 4)
    weight.reshape(6, 4, -1)[2] = 0
    assert elimination_order(matrix, weight, 1e-3, 6, 1)[0] == 2


def test_one_of_two_equal_channels_goes_first() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 6))
    rows[:, 4] = rows[:, 1]
    weight = rng.standard_normal((6, 2)) + 3.0
    matrix = rows.T @ rows / 300
    assert elimination_order(matrix, weight, 1e-6, 6, 1)[0] in (1, 4)


def test_every_channel_is_named_once_and_many_go_at_a_time() -> None:
    matrix, weight = problem(130, 1)
    order = elimination_order(matrix, weight, 1e-2, 130, 8)
    assert sorted(order.tolist()) == list(range(130))
    assert sorted(order[-8:].tolist()) == order[-8:].tolist()  # the survivors are not sorted out
