"""Outputs of several batches → outputs over all samples, whichever of their axes counts the samples.

With n the samples of a batch and s the shape of an output, over all batches:

1. s₀ = n: axis 0 counts samples, as it does in nearly all models.
2. sₖ = n for a later axis, as in the [time, sample, class] of text recognition: that axis goes to the front.
3. sₖ = c·n with one c, on axis 0 or behind axes of one: c rows for each sample, as where the boxes of all stand in one
   list; that axis goes to the front.
4. s is the same whatever n is: nothing counts samples, as in a constant or a mean over the batch.
5. Anything else, as behind NonMaxSuppression or NonZero: the size depends on the data, and nothing can be compared.

Where all batches hold equally many, 2 to 5 cannot be told apart by them; smaller ones are run then, if the model takes
any.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_layermerge.data._specs import Arrays
from onnx_layermerge.errors import DataError

__all__ = ["Layout", "gather", "nothing_left"]

Runner = Callable[[Arrays], Arrays]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The axis of each output that counts samples, or rows of them (None: none does), the outputs whose size depends on
    the data, and how many samples there were in all."""

    axes: Mapping[str, int | None]
    varying: tuple[str, ...] = ()
    samples: int = 0

    def join(self, parts: Sequence[Arrays]) -> Arrays:
        """All batches, [N, …] by name; one that is missing has shapes that fit no longer.

        Raises:
            DataError: the size of every output depends on the data.
        """
        if not self.axes:
            raise nothing_left(self.varying)
        found = {name: _concatenated(parts, name, 0, axis or 0) for name, axis in self.axes.items()}
        return {name: values for name, values in found.items() if values is not None}

    def rows(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        """Of joined outputs, [samples, values] of each in which every sample has as many rows."""
        counted = {name: values for name, values in outputs.items() if self.axes.get(name) is not None}
        fitting = {name: values for name, values in counted.items() if values.size and not len(values) % self.samples}
        return {name: values.reshape(self.samples, -1) for name, values in fitting.items()}

    def without(self, names: Container[str]) -> Layout:
        """The same where no axis counts samples in the outputs of these names."""
        return replace(self, axes={name: None if name in names else axis for name, axis in self.axes.items()})

    def join_in_place(self, parts: Sequence[Arrays]) -> Arrays:
        """All batches with every axis where the model has it; varying outputs along axis 0, where that is possible."""
        axes = {**self.axes, **dict.fromkeys(self.varying)}
        found = {name: _concatenated(parts, name, axis or 0, axis or 0) for name, axis in axes.items()}
        return {name: values for name, values in found.items() if values is not None}


def nothing_left(names: Sequence[str]) -> DataError:
    """The error where all outputs, by name, have sizes that depend on the data."""
    listed = ", ".join(f"'{name}'" for name in names)
    return DataError(
        f"The size of the model's output {listed} depends on what is in the samples, so two models cannot be "
        "compared by it: cut the model in front of NonMaxSuppression, NonZero or whatever else selects."
    )


def gather(runner: Runner, batches: Iterable[Arrays]) -> tuple[list[Arrays], Layout]:
    """The outputs of ``runner`` for each batch, and how they are joined."""
    parts: list[Arrays] = []
    counts: list[int] = []
    first: Arrays = {}
    for feeds in batches:
        first = first or feeds
        parts.append(runner(feeds))
        counts.append(_count(feeds))
    seen = {name: list(zip(counts, (np.shape(part[name]) for part in parts), strict=True)) for name in parts[0]}
    if len(set(counts)) == 1 and any(_unsure(*found[0]) for found in seen.values()):
        for size in sorted({1, (counts[0] + 1) // 2, counts[0] - 1} - {0, counts[0]}):
            tried = _tried(runner, {name: values[:size] for name, values in first.items()})
            if tried is None:
                break
            for name, found in seen.items():
                shape = np.shape(tried[name])
                # A Squeeze may have taken an axis of one away.
                if size > 1 or len(shape) == len(found[0][1]):
                    found.append((size, shape))
    axes = {name: _axis(found) for name, found in seen.items()}
    kept = {name: axis for name, axis in axes.items() if axis != _VARYING}
    return parts, Layout(kept, tuple(name for name in axes if name not in kept), sum(counts))


_VARYING = -1


def _axis(seen: Sequence[tuple[int, Shape]]) -> int | None:
    """Which axis counts samples, from pairs (n, s); the cases are the module's."""
    shapes = {shape for _, shape in seen}
    if len({len(shape) for shape in shapes}) > 1 or any(0 in shape for shape in shapes):
        return _VARYING  # what selects has found nothing, for all that these samples show
    rank = len(seen[0][1])
    # A matrix whose columns are as many as the samples is rather one of two classes at a batch of two.
    told = rank >= 3 or len({count for count, _ in seen}) > 1
    for axis in range(rank if told else min(rank, 1)):
        alike = len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) == 1
        if alike and all(shape[axis] == count for count, shape in seen):
            return axis
    # Batches of one size say nothing of a later axis: there a number of classes may be a multiple of theirs.
    for axis in range(rank if len({count for count, _ in seen}) > 1 else min(rank, 1)):
        if any(shape[:axis] != (1,) * axis for shape in shapes):
            break
        alike = len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) == 1
        rows = {divmod(shape[axis], count) for count, shape in seen}
        if alike and len(rows) == 1 and rows.pop()[1] == 0:
            return axis
    return None if len(shapes) == 1 else _VARYING


def _unsure(count: int, shape: Shape) -> bool:
    """Whether batches of one size leave open which axis counts samples: NonZero gives a row for each axis, too."""
    return shape[:1] != (count,) or count in shape[1:] or 1 < count <= 4


def _tried(runner: Runner, feeds: Arrays) -> Arrays | None:
    """None where the model takes no batch of that size."""
    try:
        return runner(feeds)
    except Exception as error:
        # The runtime's own, which have no base class of theirs, and are not imported in this room.
        if not type(error).__module__.startswith("onnxruntime."):
            raise
        return None


def _count(feeds: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(feeds.values())))


def _concatenated(parts: Sequence[Arrays], name: str, to: int, axis: int) -> np.ndarray | None:
    """Moved to axis ``to`` and joined there; None where the other axes differ."""
    moved = [np.moveaxis(np.atleast_1d(part[name]), axis, to) for part in parts]
    if len({values.shape[:to] + values.shape[to + 1 :] for values in moved}) > 1:
        return None
    return np.concatenate(moved, axis=to)
