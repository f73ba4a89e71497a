"""What a chain is tuned on: its entry, what should come out, and what is added behind it, cut out of whole maps.

Large maps give a few windows each, at random places, so that early layers cost no more than late ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from onnx_layermerge.candidates import Site
from onnx_layermerge.fit._chain import Chain

__all__ = ["Windows", "cut_windows"]

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, np.ndarray]
Pair = tuple[int, int]

# Outputs of a window by axis; smaller maps are taken whole, as windows of them would be mostly border.
SIZE = 14
# Windows of one map at most, and bytes of all.
MOST, BYTES = 4, 256 << 20
# Share of a map beyond its border that a window may be drawn at, and is then moved back from: borders are rarer than
# what lies inside, and differ from it.
BEYOND = 0.1


@dataclass(frozen=True, eq=False)
class Windows:
    """``entry`` [N, h, w, C_in], ``target`` and ``skip`` (None: nothing is added) [N, h', w', C_out], float32.

    ``valid`` as of :meth:`Chain.forward`, None for whole maps.  ``low``, ``high`` bound the activation that follows.
    """

    entry: Array
    target: Array
    skip: Array | None
    valid: list[Array | None] | None
    low: float
    high: float

    def __len__(self) -> int:
        return len(self.entry)

    def at(self, rows: npt.NDArray[np.intp] | slice) -> Windows:
        """Some of them."""
        valid = None if self.valid is None else [None if mask is None else mask[rows] for mask in self.valid]
        skip = None if self.skip is None else self.skip[rows]
        return replace(self, entry=self.entry[rows], target=self.target[rows], skip=skip, valid=valid)

    def error(self, y: Array) -> Array:
        """y + skip − target; 0 where the activation that follows cannot tell the two apart."""
        met = y if self.skip is None else y + self.skip
        error: Array = met - np.clip(self.target, np.float32(self.low), np.float32(self.high))
        if self.low > -np.inf:
            error[(met <= self.low) & (self.target <= self.low)] = 0.0
        if self.high < np.inf:
            error[(met >= self.high) & (self.target >= self.high)] = 0.0
        return error


@dataclass(eq=False)
class _Parts:
    entry: list[Array] = field(default_factory=list)
    target: list[Array] = field(default_factory=list)
    skip: list[Array] = field(default_factory=list)
    masks: list[list[Array]] = field(default_factory=list)


def cut_windows(
    chain: Chain,
    site: Site,
    runs: Iterable[tuple[Arrays, Arrays]],
    *,
    entry: str,
    skip: str | None,
    samples: int,
    seed: int = 0,
) -> Windows | None:
    """From runs (values of the original, values of the deployed model), by name [n, C, H, W], of ``samples`` samples.

    ``entry`` and ``skip`` are names in the deployed model.  None where they are not maps in the plane, the chain
    does not make all of what is to come out, or there is nothing to see.
    """
    rng = np.random.default_rng(seed)
    parts, each, whole, spent = _Parts(), 0, True, 0
    for values, met in runs:
        if met[entry].ndim != 4 or values[site.value].ndim != 4:
            return None
        x, target = _last(met[entry]), _last(values[site.value])
        if chain.made(x.shape[1], x.shape[2]) != target.shape[1:]:
            return None  # what is added to it broadcasts it
        added = None if skip is None else _last(np.broadcast_to(met[skip], values[site.value].shape))
        size = (min(SIZE, target.shape[1]), min(SIZE, target.shape[2]))
        whole = size == target.shape[1:3]
        levels = _levels(chain, size)
        if not each:
            (height, width), (rows, columns) = levels[0].size, target.shape[1:3]
            bytes_each = 4 * (height * width * x.shape[3] + 2 * size[0] * size[1] * target.shape[3])
            wanted = 1 if whole else -(-rows * columns // (size[0] * size[1]))
            each = max(1, min(MOST, wanted, BYTES // max(1, samples * bytes_each)))
        for _ in range(each):
            at = np.zeros((len(x), 2), int) if whole else _places(rng, len(x), target.shape[1:3], size)
            out = _Level((1, 1), (0, 0), size)
            parts.entry.append(np.ascontiguousarray(x) if whole else _cut(x, at, levels[0]))
            parts.target.append(_cut(target, at, out))
            parts.skip += [] if added is None else [_cut(added, at, out)]
            parts.masks.append([] if whole else _masks(chain, at, levels, x.shape[1:3]))
            spent += parts.entry[-1].nbytes + 2 * parts.target[-1].nbytes
        if spent > BYTES:
            break
    if not parts.entry:
        return None
    masks = [np.concatenate(group) for group in zip(*parts.masks, strict=True)]
    return Windows(
        np.concatenate(parts.entry),
        np.concatenate(parts.target),
        np.concatenate(parts.skip) if parts.skip else None,
        None if whole else [None if mask.all() else mask for mask in masks],
        site.low,
        site.high,
    )


@dataclass(frozen=True)
class _Level:
    """Of a window whose output starts at o: it starts at ``scale``·o + ``shift`` here, and is ``size`` large."""

    scale: Pair
    shift: Pair
    size: Pair


def _levels(chain: Chain, size: Pair) -> list[_Level]:
    """From the entry to what the last convolution reads."""
    found = [_Level((1, 1), (0, 0), size)]
    for layer in reversed(chain.layers):
        level = found[0]
        scale = tuple(level.scale[a] * layer.stride[a] for a in (0, 1))
        shift = tuple(level.shift[a] * layer.stride[a] - layer.pads[a] for a in (0, 1))
        reads = tuple((level.size[a] - 1) * layer.stride[a] + layer.kernel[a] for a in (0, 1))
        found.insert(0, _Level((scale[0], scale[1]), (shift[0], shift[1]), (reads[0], reads[1])))
    return found[:-1]


def _places(rng: np.random.Generator, count: int, shape: tuple[int, ...], size: Pair) -> npt.NDArray[np.intp]:
    """Where windows of ``size`` start in maps of ``shape``: [count, 2]."""
    columns = []
    for axis in (0, 1):
        room = shape[axis] - size[axis]
        beyond = int(np.ceil(BEYOND * room))
        columns.append(np.clip(rng.integers(-beyond, room + beyond + 1, count), 0, room))
    return np.stack(columns, axis=1).astype(np.intp)


def _cut(x: Array, at: npt.NDArray[np.intp], level: _Level) -> Array:
    """[n, H, W, C] → [n, h, w, C]; zero beyond the border."""
    result = np.zeros((len(x), *level.size, x.shape[3]), np.float32)
    for number, starts in enumerate(at):
        here, there = [], []
        for axis in (0, 1):
            start = int(starts[axis]) * level.scale[axis] + level.shift[axis]
            low, high = max(start, 0), min(start + level.size[axis], x.shape[1 + axis])
            here.append(slice(low - start, max(high, low) - start))
            there.append(slice(low, max(high, low)))
        result[number, here[0], here[1]] = x[number, there[0], there[1]]
    return result


def _masks(chain: Chain, at: npt.NDArray[np.intp], levels: list[_Level], shape: tuple[int, ...]) -> list[Array]:
    """For each hidden value, where the windows lie on its map: [n, h, w, 1] of zeros and ones."""
    found = []
    height, width = shape
    for layer, level in zip(chain.layers, levels[1:], strict=False):
        top, left, bottom, right = layer.pads
        height = (height + top + bottom - layer.kernel[0]) // layer.stride[0] + 1
        width = (width + left + right - layer.kernel[1]) // layer.stride[1] + 1
        inside = []
        for axis, most in enumerate((height, width)):
            here = at[:, axis, None] * level.scale[axis] + level.shift[axis] + np.arange(level.size[axis])
            inside.append((here >= 0) & (here < most))
        found.append((inside[0][:, :, None] & inside[1][:, None, :])[..., None].astype(np.float32))
    return found


def _last(values: np.ndarray) -> Array:
    """[n, C, H, W] → [n, H, W, C] in float32."""
    return np.moveaxis(values.astype(np.float32, copy=False), 1, -1)
