"""The exact dynamic program over (position, saving), one vector operation per choice.

The table of the room's docstring is filled from the right end of the line to the left,

    f[p][b] = min( f[p+1][b],  min_{c: start_c = p}  d_c + f[stop_c][max(0, b − w_c)] ),

so that every cell's solution is a first choice followed by another cell's solution. Equal losses are
then settled by larger true saving, fewer blocks and lexicographic keys, and the settling is as exact as
the minimum: all three are kept when the same choice is put in front of both sides of a comparison, and
two different solutions of one cell that tie up to here begin with different choices or share a first
choice and the cell after it. With choices numbered in the order of their keys the number of the first
choice is the lexicographic rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_layermerge.errors import OlmError, UsageError

from ._line import Choice, Frontier, Solution

_T = TypeVar("_T", bound=np.generic)
_NONE = -1  # in the table of first choices: nothing is taken from here on


@dataclass(frozen=True)
class _Line:
    """Useful choices numbered by key, and the line compressed to the positions where one starts.

    `starting[r]` lists the choices that start at row r; `after[c]` is the row where choice c lets the
    line go on; row `len(starting)` is the end of the line.
    """

    choices: tuple[Choice, ...]
    starting: tuple[tuple[int, ...], ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    """f[p][·] and what settles its ties; each array has one entry per saving step (steps + 1).

    loss float64, saving float64 (seconds), count int32 (blocks), first int16 or int32 (choice or _NONE).
    Entries above `reach` are unreachable and hold an infinite loss.
    """

    loss: NDArray[np.float64]
    saving: NDArray[np.float64]
    count: NDArray[np.int32]
    first: NDArray[np.signedinteger]
    reach: int


def solve(choices: Iterable[Choice], *, max_saving_s: float | None = None, steps: int = 10_000) -> Frontier:
    """Solve the program for every budget at once.

    Args:
        choices: The candidates; those that save nothing are ignored. Their order does not matter.
        max_saving_s: Resolve the budget axis only up to here (seconds), with a finer unit for it; above,
            only the point of the greatest saving is certain. None: up to the greatest saving.
        steps: Number of steps on the budget axis.

    Returns:
        The Pareto frontier. Savings are rounded down to w = ⌊saving · steps / maximum⌋ for the search only;
        the points carry true sums, so none promises more than its choices save.

    Raises:
        OlmError: Two choices share a key.
        UsageError: `steps` < 1, or `max_saving_s` is NaN or not positive.
    """
    if steps < 1:
        raise UsageError(f"the program was asked for {steps} budget steps: ask for 1 or more")
    if max_saving_s is not None and not max_saving_s > 0:
        raise UsageError(f"the greatest saving to plan for is {max_saving_s} s: give a number above 0")
    line = _line(choices)
    greatest = _solution(line, _greatest(line))
    top = greatest.saving_s if max_saving_s is None else min(greatest.saving_s, max_saving_s)
    if not top > 0:  # no useful choice at all: doing nothing is the only solution
        return Frontier((Solution((), 0.0, 0.0),), 0.0)
    # Multiply before dividing: whole-numbered savings and steps stay whole, so nothing is lost on them.
    weights = [math.floor(min(choice.saving_s * steps / top, steps)) for choice in line.choices]
    top_row, first = _table(line, weights, steps)
    # A new solution begins where the loss rises. The saving is watched too: a loss too small to change the
    # float sum it is added to raises the saving alone.
    reachable = slice(0, top_row.reach + 1)
    rises = np.diff(top_row.loss[reachable], prepend=-1.0) != 0
    levels = np.flatnonzero(rises | (np.diff(top_row.saving[reachable], prepend=-1.0) != 0))
    found = [_solution(line, picks) for picks in _trace(line, weights, first, levels)]
    return Frontier(_pareto([*found, greatest]), top / steps)


def _line(choices: Iterable[Choice]) -> _Line:
    every = sorted(choices, key=lambda choice: choice.key)
    for left, right in pairwise(every):
        if left.key == right.key:
            raise OlmError(f"two choices are called {left.key!r}: give every choice a key of its own")
    useful = tuple(choice for choice in every if choice.saving_s > 0)
    starts = sorted({choice.start for choice in useful})
    starting: list[list[int]] = [[] for _ in starts]
    for number, row in enumerate(np.searchsorted(starts, [choice.start for choice in useful]).tolist()):
        starting[row].append(number)
    after = np.searchsorted(starts, [choice.stop for choice in useful]).tolist()
    return _Line(useful, tuple(map(tuple, starting)), tuple(after))


def _greatest(line: _Line) -> list[int]:
    """The choices of the greatest saving, unrounded: a scalar program by (−saving, loss, blocks, first)."""
    rows = len(line.starting)
    best: list[tuple[float, float, int, int]] = [(0.0, 0.0, 0, _NONE)] * (rows + 1)
    for row in reversed(range(rows)):
        best[row] = best[row + 1]
        for number in line.starting[row]:
            rest, choice = best[line.after[number]], line.choices[number]
            taken = (rest[0] - choice.saving_s, rest[1] + choice.loss, rest[2] + 1, number)
            best[row] = min(best[row], taken)
    picks, number = [], best[0][3]
    while number != _NONE:
        picks.append(number)
        number = best[line.after[number]][3]
    return picks


def _table(line: _Line, weights: Sequence[int], steps: int) -> tuple[_Row, NDArray[np.signedinteger]]:
    """The row f[0] and the first choice of every cell (rows + 1, steps + 1).

    Only the table of first choices is kept whole, at two bytes a cell below 32,768 choices; a row of
    losses goes as soon as no choice further left ends there.
    """
    rows = len(line.starting)
    dtype = np.int16 if len(line.choices) <= np.iinfo(np.int16).max else np.int32
    first: NDArray[np.signedinteger] = np.full((rows + 1, steps + 1), _NONE, dtype)
    last_reader = [row - 1 for row in range(rows + 1)]
    for row, numbers in enumerate(line.starting):
        for number in numbers:
            last_reader[line.after[number]] = min(last_reader[line.after[number]], row)
    unread: list[list[int]] = [[] for _ in range(rows + 1)]
    for row, reader in enumerate(last_reader):
        unread[reader].append(row)  # row 0 has no reader and lands in the list of the end, never visited

    loss = np.full(steps + 1, np.inf)
    loss[0] = 0.0
    live = {rows: _Row(loss, np.zeros(steps + 1), np.zeros(steps + 1, np.int32), first[rows], 0)}
    for row in reversed(range(rows)):
        skip = live[row + 1]
        first[row] = skip.first
        here = _Row(skip.loss.copy(), skip.saving.copy(), skip.count.copy(), first[row], skip.reach)
        for number in line.starting[row]:
            rest = live[line.after[number]]
            here = _offer(here, rest, line.choices[number], number, weights[number], steps)
        live[row] = here
        for done in unread[row]:
            del live[done]
    return live[0], first


def _offer(here: _Row, rest: _Row, choice: Choice, number: int, weight: int, steps: int) -> _Row:
    """Write into `here`, in place, the cells where `choice` followed by `rest` is preferred."""
    reach = min(steps, rest.reach + weight)
    cells = slice(0, reach + 1)
    loss = _shifted(rest.loss, weight, reach) + choice.loss
    better = loss < here.loss[cells]
    tied = np.flatnonzero(loss == here.loss[cells])
    if tied.size or better.any():
        saving = _shifted(rest.saving, weight, reach) + choice.saving_s
        count = _shifted(rest.count, weight, reach) + np.int32(1)
        if tied.size:
            more, same = saving[tied] - here.saving[tied], count[tied] - here.count[tied]
            by_key = (same == 0) & (number < here.first[tied])
            better[tied] = (more > 0) | ((more == 0) & ((same < 0) | by_key))
        np.copyto(here.loss[cells], loss, where=better)
        np.copyto(here.saving[cells], saving, where=better)
        np.copyto(here.count[cells], count, where=better)
        here.first[cells][better] = number
    return _Row(here.loss, here.saving, here.count, here.first, max(here.reach, reach))


def _shifted(values: NDArray[_T], weight: int, reach: int) -> NDArray[_T]:
    """values[max(0, b − weight)] for b = 0…reach; two copies are cheaper than a gather."""
    out = np.empty(reach + 1, values.dtype)
    out[:weight] = values[0]
    out[weight:] = values[: reach + 1 - weight]
    return out


def _trace(
    line: _Line, weights: Sequence[int], first: NDArray[np.signedinteger], levels: NDArray[np.intp]
) -> list[list[int]]:
    """The choices of the solutions at these cells of f[0], in position order, all traced at once."""
    # The entry past the last choice is what index _NONE reads: no weight, and on to the end of the line.
    step = np.array([*weights, 0], np.intp)
    after = np.array([*line.after, len(line.starting)], np.intp)
    row, level = np.zeros_like(levels), levels
    columns: list[NDArray[np.signedinteger]] = []
    while (picks := first[row, level]).max() != _NONE:
        columns.append(picks)
        row, level = after[picks], np.maximum(level - step[picks], 0)
    if not columns:
        return [[] for _ in levels]
    return [[number for number in picks if number != _NONE] for picks in np.column_stack(columns).tolist()]


def _solution(line: _Line, picks: Sequence[int]) -> Solution:
    """True sums, correctly rounded so that they do not depend on the order of addition."""
    taken = [line.choices[number] for number in picks]
    return Solution(
        tuple([choice.key for choice in taken]),
        math.fsum([choice.saving_s for choice in taken]),
        math.fsum([choice.loss for choice in taken]),
    )


def _pareto(solutions: Iterable[Solution]) -> tuple[Solution, ...]:
    """Those that no other solution equals or beats in both sums, by increasing saving and loss."""
    kept: list[Solution] = []
    for each in sorted(solutions, key=lambda one: (one.loss, -one.saving_s, len(one.keys), one.keys)):
        if not kept or each.saving_s > kept[-1].saving_s:
            kept.append(each)
    return tuple(kept)
