"""Choices refuse what no program can use; the frontier answers by true savings."""

from __future__ import annotations

import math

import pytest

from onnx_layermerge.errors import OlmError, UsageError
from onnx_layermerge.plan import Choice, Frontier, Solution


@pytest.mark.parametrize(
    ("start", "stop", "saving_s", "loss"),
    [
        (0, 1, math.nan, 0.1),
        (0, 1, math.inf, 0.1),
        (0, 1, 1e-3, math.nan),
        (0, 1, 1e-3, math.inf),
        (0, 1, 1e-3, -1e-9),
        (2, 2, 1e-3, 0.1),
        (3, 2, 1e-3, 0.1),
        (-1, 2, 1e-3, 0.1),
    ],
)
def test_a_damaged_choice_is_refused_by_name(start: int, stop: int, saving_s: float, loss: float) -> None:
    with pytest.raises(OlmError, match="'stage2/fit3x3'"):
        Choice("stage2/fit3x3", start, stop, saving_s, loss)


def test_at_takes_the_cheapest_point_that_saves_enough() -> None:
    points = (Solution((), 0.0, 0.0), Solution(("a",), 1e-3, 0.1), Solution(("a", "b"), 3e-3, 0.4))
    frontier = Frontier(points, 1e-4)
    assert frontier.best_saving == 3e-3
    assert frontier.at(-1.0) is points[0]
    assert frontier.at(0.0) is points[0]
    assert frontier.at(1e-3) is points[1]
    assert frontier.at(math.nextafter(1e-3, 1)) is points[2]
    assert frontier.at(3e-3) is points[2]
    assert frontier.at(math.nextafter(3e-3, 1)) is None
    assert frontier.at(math.inf) is None


def test_at_refuses_nan() -> None:
    with pytest.raises(UsageError, match="not a number"):
        Frontier((Solution((), 0.0, 0.0),), 0.0).at(math.nan)
