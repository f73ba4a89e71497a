"""In which order the blocks of one or several networks are timed, and which of them need not be.

1. What is replaced comes before what replaces it, since it sets the ceiling (``latency/bounds.py``).
2. Among replacements, whoever speaks for others is timed before them.
3. With an end in sight (a budget) the blocks come in portions, the most useful first: the saving to be expected from
   the arithmetic alone, summed over all candidates that share the block.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx_layermerge.flow._sheet import Sheet, Use
from onnx_layermerge.latency import BlockSpec, Bound, DeviceKey, LatencyTable, Value, answers
from onnx_layermerge.latency.bounds import MARGIN, ceiling, in_tiers, speaks_for, too_slow

__all__ = ["Queue", "Tally"]

PORTION = 24


@dataclass
class Tally:
    """Blocks by what became of them.

    ``timed`` now or ``reused`` from the table, failures included; ``bounded``: given up after a look, now or in an
    earlier run; ``skipped``: known to be too slow without a look; ``total`` of all.
    """

    total: int = 0
    timed: int = 0
    reused: int = 0
    bounded: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        return self.timed + self.reused + self.bounded + self.skipped

    def words(self) -> str:
        """What there is of each kind, for the progress."""
        kinds = ("timed", "reused", "bounded", "skipped")
        return ", ".join(f"{getattr(self, kind)} {kind}" for kind in kinds if getattr(self, kind)) or "none done"


class Queue:
    """The blocks to time, as an iterator for ``fill``; give ``stored`` each result as it comes.

    Args:
        sheets: each with the seconds of its whole network.
        least_gain, least_share: what a candidate must save at least, of its block and of its network.
        hurried: in portions, the most useful first.
    """

    def __init__(
        self,
        sheets: Sequence[tuple[Sheet, float]],
        table: LatencyTable,
        device: DeviceKey,
        *,
        least_gain: float,
        least_share: float,
        hurried: bool,
    ) -> None:
        self._table, self._device, self._hurried = table, device, hurried
        self._least = least_gain, least_share
        self._specs: dict[str, BlockSpec] = {}
        self._uses: dict[str, list[tuple[Use, float]]] = {}
        self._tier: dict[str, int] = {}
        self._speakers: dict[int, list[Use]] = {}
        self._worth: dict[str, float] = {}
        self._handled: set[str] = set()
        self._known: dict[str, Value | None] = {}
        for sheet, base_s in sheets:
            self._add(sheet, base_s)
        self.tally = Tally(len(self._specs))

    def _add(self, sheet: Sheet, base_s: float) -> None:
        network = sheet.prepared.network
        whole = max(1, network.cost_macs(0, len(network.order), dict(sheet.prepared.shapes)))
        for key, spec in sheet.blocks.items():
            self._specs.setdefault(key, spec)
        by_candidate = {use.candidate.key: use for use in sheet.uses}
        families: dict[tuple[int, int, str], list[Use]] = {}
        for use in sheet.uses:
            region = use.candidate.region
            families.setdefault((region.start, region.stop, region.exit), []).append(use)
            self._uses.setdefault(use.new, []).append((use, base_s))
            saved_s = base_s * max(0, use.old_macs - use.new_macs) / whole
            for key in (use.old, use.new):
                self._worth[key] = self._worth.get(key, 0.0) + saved_s
        for family in families.values():
            for use in family:
                self._speakers[id(use)] = [one for one in family if speaks_for(one.candidate, use.candidate)]
        macs = {use.candidate.key: use.new_macs for use in sheet.uses}
        for number, tier in enumerate(in_tiers((use.candidate for use in sheet.uses), macs)):
            for candidate in tier:
                key = by_candidate[candidate.key].new
                self._tier[key] = max(number, self._tier.get(key, 0))

    def __iter__(self) -> Iterator[BlockSpec | None]:
        news = sorted(self._uses, key=lambda key: (-self._worth[key], key))
        size = PORTION if self._hurried else max(1, len(news))
        for start in range(0, len(news), size):
            portion = news[start : start + size]
            olds = dict.fromkeys(use.old for key in portion for use, _ in self._uses[key])
            yield from self._whole(sorted(olds, key=lambda key: (-self._worth[key], key)))
            yield None
            for tier in range(1 + max(self._tier[key] for key in portion)):
                for key in portion:
                    if self._tier[key] == tier:
                        yield from self._bounded(key)
                yield None

    def _whole(self, keys: Sequence[str]) -> Iterator[BlockSpec]:
        for key in keys:
            if key in self._handled:
                continue
            if answers(self._value(key)):
                self._reused(key)
            else:
                yield self._specs[key]

    def _bounded(self, key: str) -> Iterator[BlockSpec]:
        """The replacement with its ceiling, unless it is known, or known to be of no use."""
        value = self._value(key)
        limit_s = max(self._ceiling(use, base_s) for use, base_s in self._uses[key])
        if key in self._handled:
            return
        if answers(value, limit_s):
            self._reused(key)
        elif limit_s <= 0:
            self.tally.skipped += 1
            self._handled.add(key)
        else:
            yield dataclasses.replace(self._specs[key], ceiling_s=limit_s)

    def _ceiling(self, use: Use, base_s: float) -> float:
        """Of one use; −∞ when another replacement speaks for it and was too slow."""
        limit_s = ceiling(self._value(use.old), base_s, *self._least)
        spoken = any(too_slow(self._value(one.new), limit_s, MARGIN) for one in self._speakers[id(use)])
        return -math.inf if spoken else limit_s

    def _value(self, key: str) -> Value | None:
        if key not in self._known:
            entry = self._table.get(self._device, key)
            self._known[key] = None if entry is None else entry.value
        return self._known[key]

    def _reused(self, key: str) -> None:
        self._handled.add(key)
        if isinstance(self._value(key), Bound):
            self.tally.bounded += 1
        else:
            self.tally.reused += 1

    def stored(self, spec: BlockSpec, value: Value) -> None:
        """Count a result that has just been committed."""
        self._handled.add(spec.key)
        self._known[spec.key] = value
        if isinstance(value, Bound):
            self.tally.bounded += 1
        else:
            self.tally.timed += 1

    def left(self) -> list[str]:
        """Labels of the blocks that were not come to, the most useful first."""
        keys = sorted(set(self._specs) - self._handled, key=lambda key: (-self._worth[key], key))
        return [self._specs[key].label for key in keys]
