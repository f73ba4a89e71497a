"""One block timed again every round; what changes in its time changed on the machine."""

from __future__ import annotations

import contextlib

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency._clock import Clock
from onnx_layermerge.latency._sampling import repeats_for, sample, warm_up
from onnx_layermerge.latency._spec import R1, BlockSpec
from onnx_layermerge.latency._statistics import FEWEST_ROUNDS, median, median_interval
from onnx_layermerge.latency.backends import Backend

__all__ = ["Anchor"]

DRIFT_TOLERANCE = 0.03


class Anchor:
    """One block timed again every round; what changes in its time changed on the machine."""

    def __init__(self, spec: BlockSpec, backend: Backend, clock: Clock, warm_up_s: float) -> None:
        self._runnable = backend.build(spec.build(R1), spec.shapes(R1))
        with contextlib.ExitStack() as undo:
            undo.callback(self._runnable.close)
            self._repeats = repeats_for(warm_up(self._runnable, clock, least_s=warm_up_s), 1e-3)
            undo.pop_all()
        self._clock = clock
        self._groups: list[list[float]] = []

    def new_group(self) -> None:
        self._groups.append([])

    def round(self) -> None:
        # An anchor that stops working costs the drift warning, not the profile.
        with contextlib.suppress(ModelError):
            self._runnable.run()  # what the block before left in the caches is not the machine's doing
            self._groups[-1].append(sample(self._runnable, self._repeats, self._clock).seconds)

    def warning(self) -> str | None:
        """Compare every half group with the first one; name the largest significant change."""
        halves = []
        for times in self._groups:
            cut = len(times) // 2 if len(times) >= 2 * FEWEST_ROUNDS else len(times)
            halves += [sorted(part) for part in (times[:cut], times[cut:]) if len(part) >= FEWEST_ROUNDS]
        worst = 0.0
        for half in halves[1:]:
            low, high = median_interval(half)
            first_low, first_high = median_interval(halves[0])
            change = median(half) / median(halves[0]) - 1
            if (low > first_high or high < first_low) and abs(change) > max(abs(worst), DRIFT_TOLERANCE):
                worst = change
        if not worst:
            return None
        return (
            f"The machine became {abs(worst):.0%} {'slower' if worst > 0 else 'faster'} while blocks were"
            " being timed; profile again on an idle machine if the predictions turn out wrong."
        )

    def close(self) -> None:
        self._runnable.close()
