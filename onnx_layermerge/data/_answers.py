"""What a model answers to samples, before anything is concluded from it.

1. An answer that is NaN or infinite can be compared with nothing, and what lies before it cannot be fitted.  One such
   sample of a thousand spoils every mean and every fit that it is in, so all of them are looked at, and before
   anything takes long.
2. A model that answers all samples alike shows nothing by doing so again: with one class on top, or, where it is dead
   or the samples are in a wrong range, with the very same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._joined import Layout, gather
from onnx_layermerge.data._specs import Arrays
from onnx_layermerge.errors import DataError
from onnx_layermerge.graph import Session

__all__ = ["answers", "answers_finite", "check_finite", "constant_outputs", "not_finite", "same_answer", "same_values"]

PROBES = 64
# Of outputs, for each part; fewer samples are held where theirs are larger.
HELD_BYTES = 128 << 20
# Bad samples that a message names.
NAMED = 3
# Distance between two samples' values over their length, below which it is rounding.
ROUNDING = 1e-6
# Attributes through which a node reads values that are not its inputs.
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def answers(
    model: ir.Model,
    parts: Sequence[Calibration],
    batch: int,
    *,
    limit: int = PROBES,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Arrays, Layout]:
    """The outputs for at most ``limit`` samples of each of ``parts``, [N, …] by name, less those whose size depends on
    the data, and how they were joined; of those that no input decides on no axis counts samples.

    All samples are run, ``batch`` at once; ``seen`` is told how many were.

    Raises:
        DataError: a value among the outputs for any sample is NaN or infinite; the message names the output, counts the
            samples and names some.  Or the size of every output depends on the data.
    """
    session = Session(model)
    first = next(parts[0].batches(batch))
    each = sum(values.nbytes for values in session.run(first).values()) // len(next(iter(first.values())))
    most = max(batch, 2, min(limit, HELD_BYTES // max(each, 1)))
    taken = [part.take(min(most, len(part))) for part in parts]
    found, layout = gather(session.run, chain.from_iterable(part.batches(batch) for part in taken))
    total, done = sum(map(len, parts)), 0
    bad: dict[str, dict[tuple[int, int], None]] = {name: {} for name in session.outputs}
    for turn, part in enumerate(parts):
        for place, feeds in _whole(part, batch):
            for name, values in session.run(feeds).items():
                rows = _bad_samples(values, layout.axes.get(name), feeds)
                bad[name].update(dict.fromkeys((turn, place + int(row)) for row in rows))
            seen(done + place, total)
        done += len(part)
    for name, places in bad.items():
        if places:
            raise _spoilt(name, parts, list(places))
    seen(total, total)
    return layout.join(found), layout.without(constant_outputs(model))


def answers_finite(model: ir.Model, data: Calibration, batch: int, first: int = 0) -> bool:
    """Whether no output for the samples from number ``first`` on holds NaN or infinite values."""
    session = Session(model)
    return not any(
        not_finite(values) for _, feeds in _whole(data, batch, first) for values in session.run(feeds).values()
    )


def check_finite(outputs: Mapping[str, np.ndarray], source: str) -> None:
    """DataError where an output of a model for samples of ``source`` holds NaN or infinite values."""
    for name, values in outputs.items():
        if not_finite(values):
            raise DataError(
                f"The model's output '{name}' is NaN or infinite for some samples of {source}: check the range of the "
                "samples, or repair the model."
            )


def constant_outputs(model: ir.Model) -> frozenset[str]:
    """Names of the outputs that no value of an input decides on: constants, and what only sizes do."""
    told = set(model.graph.inputs)
    for node in model.graph:
        nested = any(attribute.type in _GRAPHS for attribute in node.attributes.values())
        if nested or (node.op_type not in ("Shape", "Size") and any(value in told for value in node.inputs)):
            told.update(node.outputs)
    return frozenset(str(value.name) for value in model.graph.outputs if value not in told)


def same_values(outputs: Mapping[str, np.ndarray], layout: Layout) -> tuple[str, ...]:
    """Joined outputs of numbers that are the same for all of two samples or more, up to rounding."""
    if layout.samples < 2:
        return ()
    rows = layout.rows(outputs)
    return tuple(name for name, values in rows.items() if values.dtype.kind in "biuf" and _alike(values))


def same_answer(outputs: Mapping[str, np.ndarray]) -> float | None:
    """The largest share of samples with one and the same top-1, over outputs of class scores [N, ≥ 2]; None without."""
    shares = [
        float(np.bincount(values.argmax(axis=1)).max() / len(values))
        for values in outputs.values()
        if values.ndim == 2 and values.shape[1] >= 2 and len(values) and np.issubdtype(values.dtype, np.floating)
    ]
    return max(shares, default=None)


def _alike(values: np.ndarray) -> bool:
    first = values[0].astype(np.float64)
    length = np.linalg.norm(first)
    # Almost always the second sample says no.
    for value in values[1:]:
        other = value.astype(np.float64)
        if np.linalg.norm(other - first) > ROUNDING * max(length, np.linalg.norm(other)):
            return False
    return True


def not_finite(values: np.ndarray) -> bool:
    """Whether there are NaN or infinite ones among the values."""
    return np.issubdtype(values.dtype, np.floating) and not bool(np.isfinite(values).all())


def _whole(part: Calibration, batch: int, first: int = 0) -> Iterator[tuple[int, Arrays]]:
    """The number of a batch's first sample, and the batch; a last one that must be full overlaps the one before."""
    fixed = any(isinstance(spec.shape[0], int) for spec in part.inputs)
    for start in range(first, len(part), batch):
        place = min(start, len(part) - batch) if fixed else start
        yield place, part.batch(range(place, min(place + batch, len(part))))


def _bad_samples(values: np.ndarray, axis: int | None, feeds: Arrays) -> np.ndarray:
    """Which of a batch's samples have NaN or infinite values; all of them where nothing tells whose those are."""
    count = len(next(iter(feeds.values())))
    if not not_finite(values):
        return np.arange(0)
    if axis is None or values.shape[axis] % count:
        return np.arange(count)
    rows = np.isfinite(np.moveaxis(values, axis, 0).reshape(count, -1))
    return np.flatnonzero(~rows.all(axis=1))


def _spoilt(name: str, parts: Sequence[Calibration], bad: Sequence[tuple[int, int]]) -> DataError:
    """``bad`` are pairs of a part and a sample in it; of parts of several sources, those of the first such are told."""
    source = parts[bad[0][0]].source
    told = [(turn, number) for turn, number in bad if parts[turn].source == source]
    total = sum(len(part) for part in parts if part.source == source)
    named = ", ".join(parts[turn].where(number) for turn, number in told[:NAMED])
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return DataError(
        f"The model's output '{name}' is NaN or infinite for {len(told)} of {total} samples of {source} "
        f"({named}{more}): leave them out, check the range of the samples, or repair the model."
    )
