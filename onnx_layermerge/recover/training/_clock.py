"""How much of a training is behind, and what of that is told: by steps, or by the clock where only minutes are given.

Then nothing has to be known about the machine, and it always comes to its end.
"""

from __future__ import annotations

import math
import time

from onnx_layermerge.recover.training._options import Options, Progress

__all__ = ["Clock"]


class Clock:
    """``before_s`` are the seconds of the run that this one goes on from."""

    def __init__(self, options: Options) -> None:
        self._options, self._began = options, time.monotonic()
        self._trained_s, self._trained_steps = 0.0, 0
        self.before_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds of the training, rates that were tried included."""
        return self.before_s + time.monotonic() - self._began

    @property
    def samples_per_s(self) -> float:
        """Pace of this run's steps, over all processes."""
        return self._trained_steps * self._options.batch / max(self._trained_s, 1e-9)

    def share(self, step: int) -> float:
        """How much of the training is behind where ``step`` steps are; 1 ends it."""
        minutes, steps = self._options.minutes, self._options.steps
        spent = 0.0 if minutes is None else self.elapsed_s / (60 * minutes)
        if steps is None or spent >= 1:
            return spent
        return step / steps

    def stepped(self, seconds: float) -> None:
        """Count a step that took so long."""
        self._trained_s += seconds
        self._trained_steps += 1

    def tell(self, progress: Progress, step: int, loss: float) -> None:
        """Say how the last of ``step`` steps went, once there was one."""
        options = self._options
        pace = self._trained_s / self._trained_steps
        left_s = math.inf if options.steps is None else (options.steps - step) * pace
        if options.minutes is not None:
            left_s = min(left_s, 60 * options.minutes - self.elapsed_s)
        minutes, seconds = divmod(max(0, round(left_s)), 60)
        what = f"loss {loss:.4g}, {options.batch / pace:.3g} samples/s, {minutes}:{seconds:02d} left"
        if options.steps is not None:
            progress(step, options.steps, what)
        else:
            total = max(1, round(60 * (options.minutes or 0)))
            progress(min(int(self.elapsed_s), total), total, what)
