"""Which samples a step sees, and how they are varied.

Both follow from the seed and the number of the step alone, so that a training that goes on after a break, or is spread
over processes, sees what it would have seen.  Pictures (the model's one input, one or three colours) are mirrored, each
with probability ½, and moved by up to an eighth of their sides, the edge repeated; with labels they are not mirrored,
for a mirrored figure may be of another class.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np

from onnx_layermerge.data import Calibration, InputSpec

__all__ = ["Batches", "picture_axes"]

Arrays = dict[str, np.ndarray]
MOVED = 1 / 8
# Told apart from each other, and from the seeds of the data room.
_ORDER, _VARIED = 71, 72


def picture_axes(spec: InputSpec) -> tuple[int, int] | None:
    """Height and width of a batch of pictures, channels first or last; None for anything else."""
    if len(spec.shape) != 4 or not np.issubdtype(spec.dtype, np.floating):
        return None
    return (2, 3) if spec.shape[1] in (1, 3) else (1, 2) if spec.shape[3] in (1, 3) else None


class Batches:
    """``size`` samples for each step, of which process ``rank`` of ``count`` gets its part; the next are read ahead."""

    def __init__(
        self,
        data: Calibration,
        size: int,
        seed: int,
        *,
        augment: bool,
        labels: str | None = None,
        rank: int = 0,
        count: int = 1,
    ) -> None:
        self._data, self._size, self._seed = data, size, seed
        self._rank, self._count = rank, count
        inputs = [spec for spec in data.inputs if spec.name != labels]
        self._axes = picture_axes(inputs[0]) if augment and len(inputs) == 1 else None
        self._picture = inputs[0].name
        self._mirror = len(inputs) == len(data.inputs)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Arrays]] | None = None
        self.lock = Lock()

    def at(self, step: int) -> Arrays:
        """This process' samples of the step, by input."""
        found = self._ahead[1] if self._ahead is not None and self._ahead[0] == step else None
        arrays = self._read(step) if found is None else found.result()
        self._ahead = step + 1, self._reader.submit(self._read, step + 1)
        return arrays

    def close(self) -> None:
        """Read no further."""
        self._reader.shutdown(cancel_futures=True)

    def numbers(self, step: int) -> np.ndarray:
        """All samples of the step: each once before any comes again, in an order of its own for every round."""
        rounds = max(1, len(self._data) // self._size)
        order = np.random.default_rng([self._seed, _ORDER, step // rounds]).permutation(len(self._data))
        start = step % rounds * self._size
        return order[start : start + self._size]

    def _read(self, step: int) -> Arrays:
        mine = self.numbers(step)[self._rank :: self._count]
        with self.lock:  # stores of images keep what they decoded, and are not made for two readers
            arrays = self._data.batch(mine)
        if self._axes is not None:
            rng = np.random.default_rng([self._seed, _VARIED, step, self._rank])
            arrays[self._picture] = self._varied(arrays[self._picture], self._axes, rng)
        return arrays

    def _varied(self, values: np.ndarray, axes: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        result = np.empty_like(values)
        for place, picture in enumerate(values):
            if rng.random() < 0.5 and self._mirror:
                picture = np.flip(picture, axes[1] - 1)
            for axis in (axis - 1 for axis in axes):
                most = int(MOVED * picture.shape[axis])
                by = int(rng.integers(-most, most + 1))
                taken = np.clip(np.arange(picture.shape[axis]) + by, 0, picture.shape[axis] - 1)
                picture = picture.take(taken, axis)
            result[place] = picture
        return result
