"""Two networks side by side: which lines are the same, which were replaced by which, and what may be folded away.

1. Lines of a replaced block are one unit, on either side; so is every other line, known by its name.
2. The units of both sides are aligned as the longest common run of equal ones (``difflib``).
3. Of a long run that is the same on both sides only the ends are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from onnx_layermerge.report._sketch import Line

__all__ = ["Step", "align"]

# A run of at least so many equal lines is folded; what is left of it are its ends.
LEAST_FOLDED, ENDS = 5, 1


@dataclass(frozen=True)
class Step:
    """One row of the comparison: numbers of lines of either side, and of the block they belong to (0: none).

    ``same``: both sides are equal; ``folded``: they are, and are not drawn.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    block: int = 0
    same: bool = False
    folded: bool = False


@dataclass(frozen=True)
class _Unit:
    key: str
    lines: tuple[int, ...]
    block: int


def align(before: Sequence[Line], after: Sequence[Line]) -> tuple[Step, ...]:
    """The rows of the comparison, top to bottom; every line of both sides is in one of them."""
    left, right = _units(before), _units(after)
    matcher = SequenceMatcher(None, [unit.key for unit in left], [unit.key for unit in right], autojunk=False)
    steps: list[Step] = []
    for tag, l0, l1, r0, r1 in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(left[l0:l1], right[r0:r1], strict=True)
            steps += [Step(a.lines, b.lines, a.block, same=not a.block) for a, b in pairs]
            continue
        steps += [Step(unit.lines, (), unit.block) for unit in left[l0:l1]]
        steps += [Step((), unit.lines, unit.block) for unit in right[r0:r1]]
    return tuple(_folded(steps))


def _units(lines: Sequence[Line]) -> list[_Unit]:
    found = []
    for block, group in groupby(range(len(lines)), key=lambda number: lines[number].block):
        numbers = tuple(group)
        if block:
            found.append(_Unit(f"block {block}", numbers, block))
        else:
            found += [_Unit(f"{lines[n].kind} {lines[n].name or lines[n].label}", (n,), 0) for n in numbers]
    return found


def _folded(steps: Sequence[Step]) -> list[Step]:
    found: list[Step] = []
    for same, group in groupby(steps, key=lambda step: step.same):
        run = list(group)
        if not same or len(run) < LEAST_FOLDED:
            found += run
            continue
        inner = run[ENDS:-ENDS]
        left = tuple(number for step in inner for number in step.left)
        right = tuple(number for step in inner for number in step.right)
        found += [*run[:ENDS], Step(left, right, same=True, folded=True), *run[-ENDS:]]
    return found
