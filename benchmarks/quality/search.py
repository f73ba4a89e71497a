"""How much of something (a share of channels to take out) gives the wanted *measured* speed-up.

Rivals have one knob.  It is turned up in coarse steps until a try is fast enough, then the last step is bisected; each
try is timed against the original file, interleaved, by the product's own verification.  (Not bisected from the ends: a
tool that rounds to tiles may leave narrow layers alone when asked for too much, and be slower for it.)  Of the tries
within TOLERANCE of the target the one that took out least wins, those at or above the target first.  Channels mostly
come in whole tiles, so that several shares give one structure; it is timed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobs import TOLERANCE

from onnx_layermerge.errors import TargetError
from onnx_layermerge.latency import Backend
from onnx_layermerge.verify import measured_speedup, structure_key

__all__ = ["Found", "pick", "search"]

STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ROUNDS = 6
# A knob this far along needs no finer steps.
ENOUGH = 1.012


@dataclass(frozen=True)
class Found:
    """The share chosen, the speed-up that was measured in the search, and every try as (share, speed-up)."""

    share: float
    speedup: float
    tried: tuple[tuple[float, float], ...]

    @property
    def words(self) -> str:
        return f"{self.share:.1%} taken out"


def search(
    make: Callable[[float], bytes],
    original: bytes,
    target: float,
    backend: Backend,
    bound: Mapping[str, tuple[int, ...]],
    *,
    cap_s: float = 6.0,
    say: Callable[[str], None] = lambda words: None,
) -> Found:
    """The share to take out; ``make(share)`` gives a model of that structure (weights do not matter).

    Raises:
        TargetError: the fastest try stays more than TOLERANCE below the target.
    """
    timed: dict[str, float] = {}
    tried: list[tuple[float, float]] = []

    def attempt(share: float) -> float:
        model = make(share)
        key = structure_key(model, bound)
        if key not in timed:
            ratio, _ = measured_speedup(backend, original, model, bound, cap_s=cap_s, target_half_width=0.006)
            timed[key] = ratio.ratio
        tried.append((share, timed[key]))
        say(f"{share:.1%} taken out: {timed[key]:.3f}x")
        return timed[key]

    low = high = 0.0
    speed = 1.0
    for high in STEPS:
        speed = attempt(high)
        if speed >= target:
            break
        low = high
    for _ in range(ROUNDS if speed >= target else 0):
        if 1 <= speed / target <= ENOUGH:
            break
        middle = (low + high) / 2
        speed = attempt(middle)
        low, high = (low, middle) if speed >= target else (middle, high)
    share, speedup = pick(tried, target)
    return Found(share, speedup, tuple(tried))


def pick(tried: list[tuple[float, float]], target: float) -> tuple[float, float]:
    """The try to keep; see the head of this file.

    Raises:
        TargetError: none reaches the target, nor comes near it.
    """
    above = sorted(one for one in tried if one[1] >= target)
    near = [one for one in tried if abs(math.log(one[1] / target)) <= math.log1p(TOLERANCE)]
    for group in ([one for one in above if one in near], sorted(near, key=lambda one: -one[1]), above):
        if group:
            return group[0]
    best = max(speed for _, speed in tried)
    raise TargetError(f"{target:g}× cannot be reached this way; the best measured speed-up is {best:.2f}×.")
