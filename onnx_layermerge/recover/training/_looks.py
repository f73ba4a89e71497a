"""What the looks at held-out samples have said: the best weights so far, and whether there is any hope left."""

from __future__ import annotations

import math

import numpy as np

from onnx_layermerge.importance import Divergence
from onnx_layermerge.recover.training._call import Tensor
from onnx_layermerge.recover.training._checkpoint import Checkpoint
from onnx_layermerge.recover.training._options import Check

__all__ = ["Looks"]

# How many looks in a row end the training where they are this many times as bad as the start.  Nothing new for long is
# no reason: while the rate is high many stand still, or lose, that gain as it falls.
PATIENCE, HOPELESS = 8, 1.5
# To count, the start has to be beaten by this share of its loss, and by what float32 rounds away.
GAIN, ROUNDING = 1e-3, 1e-7


class Looks:
    """``best`` is the d of the best look, empty for the start, and ``said`` what was seen there (None: before a
    checkpoint); ``losses`` are of the steps since the last look."""

    def __init__(self, start_value: float, *, own_loss: bool) -> None:
        self._start_value = start_value
        self.best: list[Tensor] = []
        self.best_value = start_value - GAIN * abs(start_value) - (0.0 if own_loss else ROUNDING)
        self.said: tuple[float, Divergence] | None = None
        self.checks: list[Check] = []
        self.losses: list[float] = []

    def add(self, step: int, said: tuple[float, Divergence], moved: list[Tensor]) -> None:
        """A look at the weights at d = ``moved``, behind ``step`` steps."""
        value = said[0]
        self.checks.append(Check(step, float(np.mean(self.losses)), value))
        self.losses.clear()
        if math.isfinite(value) and value < self.best_value:
            self.best, self.best_value, self.said = moved, value, said

    def hopeless(self) -> bool:
        """Whether to end early."""
        most = self._start_value + (HOPELESS - 1) * abs(self._start_value) + ROUNDING
        return len(self.checks) >= PATIENCE and all(not check.value <= most for check in self.checks[-PATIENCE:])

    def restore(self, saved: Checkpoint, best: list[Tensor]) -> None:
        """Go on from a checkpoint; ``best`` is its own, on the device."""
        self.best, self.best_value = best, saved.best_value
        self.checks, self.losses = list(saved.checks), list(saved.losses)
