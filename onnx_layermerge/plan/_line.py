"""What the program takes and gives: choices on a line of positions, solutions, their frontier."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from onnx_layermerge.errors import OlmError, UsageError


@dataclass(frozen=True)
class Choice:
    """One replacement: the positions [start, stop) stand as another block.

    Args:
        key: Name of the replacement, unique among the choices of one program.
        start: First position replaced, 0-based.
        stop: First position after it; choices exclude each other when their intervals overlap.
        saving_s: T_old − T_new in seconds; at or below zero the choice is never taken.
        loss: What the replacement costs, finite and not negative, in any additive unit.

    Raises:
        OlmError: The interval is empty, or a number is not finite, or the loss is negative.
    """

    key: str
    start: int
    stop: int
    saving_s: float
    loss: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise OlmError(
                f"choice {self.key!r} covers the positions [{self.start}, {self.stop}): "
                "give it an interval with 0 <= start < stop"
            )
        if not math.isfinite(self.saving_s):
            raise OlmError(
                f"choice {self.key!r} has a saving of {self.saving_s} s: "
                "time this block again, or leave it out"
            )
        if not math.isfinite(self.loss) or self.loss < 0:
            raise OlmError(
                f"choice {self.key!r} has a loss of {self.loss}: "
                "score this block again with a finite loss >= 0, or leave it out"
            )


@dataclass(frozen=True)
class Solution:
    """A set of disjoint choices: their keys in position order and their true, unrounded sums."""

    keys: tuple[str, ...]
    saving_s: float
    loss: float


@dataclass(frozen=True)
class Frontier:
    """All solutions worth having, from the cheapest to the one that saves most.

    Attributes:
        points: Never empty; saving and loss both strictly increase. The first point is the empty
            solution unless something can be saved at no loss; the last one is exact, whatever the steps.
        unit_s: Seconds in one step of the budget axis (0.0 when nothing saves anything).
    """

    points: tuple[Solution, ...]
    unit_s: float

    @property
    def best_saving(self) -> float:
        """The greatest saving that any set of disjoint choices reaches, in seconds."""
        return self.points[-1].saving_s

    def at(self, saving_s: float) -> Solution | None:
        """The point of least loss that truly saves at least `saving_s` seconds; None if none does.

        Raises:
            UsageError: `saving_s` is NaN.
        """
        if math.isnan(saving_s):
            raise UsageError("the wanted saving is not a number: ask for a saving in seconds")
        index = bisect_left(self.points, saving_s, key=lambda point: point.saving_s)
        return self.points[index] if index < len(self.points) else None
