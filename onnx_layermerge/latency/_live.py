"""A block while it is timed: its two models in memory, and one more slope with every round.

A block may come with a ceiling, the cost above which nobody wants it. `LOOK` samples that all lie
above it settle the block as a `Bound`: the least of n samples is below the true median with
probability 1 - 2**-n, 97 % for n = 5, whatever their distribution. Two samples are enough when
both are above `FAR` times the ceiling.
"""

from __future__ import annotations

import numpy as np

from onnx_layermerge.latency._clock import Clock
from onnx_layermerge.latency._sampling import balanced_orders, repeats_for, sample, warm_up
from onnx_layermerge.latency._spec import R1, R2, BlockSpec
from onnx_layermerge.latency._statistics import Bound, Failure, StopReason, Value, median_interval, summarize
from onnx_layermerge.latency._watch import with_cold
from onnx_layermerge.latency.backends import Backend, Runnable

__all__ = ["Live"]

LOOK = 5
FAR = 2.0


class Live:
    """A block whose two models are loaded, and the slopes seen so far."""

    def __init__(self, spec: BlockSpec, rng: np.random.Generator) -> None:
        self.spec = spec
        self.runnables: list[Runnable] = []
        self.model_bytes = 0
        self.once_s = 0.0
        self.repeats = 1
        self.slopes: list[float] = []
        self.walls: list[float] = []
        self.spent_s = 0.0
        self._orders = balanced_orders(rng)

    def load(self, backend: Backend, clock: Clock, warm_up_s: float) -> None:
        for copies in (R1, R2):
            model = self.spec.build(copies)
            self.model_bytes += len(model)
            self.runnables.append(backend.build(model, self.spec.shapes(copies)))
        self.once_s, _ = (warm_up(r, clock, least_s=warm_up_s, least_runs=2, settle=0) for r in self.runnables)
        self.repeats = repeats_for(self.once_s)

    def round(self, clock: Clock) -> None:
        start = clock().wall_s
        one, many = self.runnables
        if next(self._orders):
            t1, t2 = sample(one, self.repeats, clock), sample(many, self.repeats, clock)
        else:
            t2, t1 = sample(many, self.repeats, clock), sample(one, self.repeats, clock)
        self.slopes.append((t2.seconds - t1.seconds) / (R2 - R1))
        self.walls.append((t2.wall_s - t1.wall_s) / (R2 - R1))
        self.spent_s += clock().wall_s - start

    def bound(self) -> Bound | None:
        """What the look has shown, if that is more than the ceiling."""
        n, ceiling_s = len(self.slopes), self.spec.ceiling_s
        if 2 <= n <= LOOK:
            least = min(self.slopes)
            if least > (ceiling_s if n == LOOK else FAR * ceiling_s):
                return Bound(least, n)
        return None

    def result(self, reason: StopReason) -> Value:
        if median_interval(sorted(self.slopes))[1] < 0:
            return Failure(f"{R2} copies of the block ran faster than {R1}, so it has no cost of its own")
        one, many = self.runnables
        return with_cold(summarize(self.slopes, self.walls, reason), one, many, R2 - R1)

    def close(self) -> None:
        while self.runnables:
            self.runnables.pop().close()
