"""What is done with whole tables: which device is meant, which of two entries stays, which have changed."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from onnx_layermerge.errors import ProfileError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._json_form import Entry, Pair
from onnx_layermerge.latency._statistics import FEWEST_ROUNDS, Bound, Failure, Measurement

Policy = Literal["keep", "narrower", "replace"]
"""Of two entries for the same block and device: the one that is there, the better known, or the new one."""
Outcome = Literal["added", "replaced", "kept", "same"]
_SHORTEST_DIGEST = 4


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of the entries that were merged into a table: new, taken over the old one, not taken, equal."""

    added: int = 0
    replaced: int = 0
    kept: int = 0
    same: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Counts:
        """Count the outcomes."""
        found = collections.Counter(outcomes)
        return cls(found["added"], found["replaced"], found["kept"], found["same"])


def narrower(new: Entry | Pair, old: Entry | Pair) -> bool:
    """Whether the new entry is known better: measured before bounded before failed, then by the 95 % interval.

    Fewer than six samples have no such interval, so they come behind those that have one.
    """
    return _doubt(new) < _doubt(old)


def _doubt(item: Entry | Pair) -> tuple[int, bool, float]:
    value = item.value
    if isinstance(value, Failure):
        return 2, False, 0.0
    if isinstance(value, Bound):
        return 1, False, -value.at_least_s
    width = value.half_width_s if isinstance(value, Measurement) else (value.high - value.low) / 2
    return 0, value.n < FEWEST_ROUNDS, width


def expendable(item: Entry | Pair, before_s: float | None, failed: bool) -> bool:
    """Whether an entry is older than a time and, if asked for, a failure; one without a date is never old."""
    if failed and not isinstance(item.value, Failure):
        return False
    return before_s is None or (item.at_s is not None and item.at_s < before_s)


def differs(a: Entry | Pair, b: Entry | Pair) -> bool:
    """Whether two measurements of the same thing contradict each other: their 95 % intervals do not meet.

    A failure contradicts whatever is none, but no other failure, whatever the words.
    """
    low_a, high_a = _interval(a)
    low_b, high_b = _interval(b)
    failed = isinstance(a.value, Failure), isinstance(b.value, Failure)
    return failed[0] != failed[1] or high_a < low_b or high_b < low_a


def _interval(item: Entry | Pair) -> tuple[float, float]:
    value = item.value
    if isinstance(value, Failure):
        return 0.0, math.inf
    if isinstance(value, Bound):
        return value.at_least_s, math.inf
    return (value.low_s, value.high_s) if isinstance(value, Measurement) else (value.low, value.high)


def select(devices: Sequence[DeviceKey], words: str, where: object) -> DeviceKey:
    """The one device that ``words`` mean: its digest or the start of it, or a part of its text form in any case.

    Raises:
        ProfileError: none or several; the sentence names the choices. ``where`` is what it calls the table.
    """
    for device in devices:
        if words in (device.digest(), device.text()):
            return device
    wanted = words.casefold()
    found = [
        device
        for device in devices
        if wanted in device.text().casefold()
        or (len(wanted) >= _SHORTEST_DIGEST and device.digest().startswith(wanted))
    ]
    if len(found) == 1:
        return found[0]
    if not devices:
        raise ProfileError(f"{where} holds no measurements; fill it with olm profile.")
    problem = f"{len(found)} devices of {where} match" if found else f"No device of {where} matches"
    raise ProfileError(f"{problem} {words!r}; name one of: {listed(found or devices)}.")


def listed(devices: Sequence[DeviceKey]) -> str:
    """Devices in one line, each with the digest that names it without doubt."""
    return "; ".join(f"{device.text()} ({device.digest()})" for device in devices)
