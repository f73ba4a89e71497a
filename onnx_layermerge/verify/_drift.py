"""How far each output drifted, in figures that mean something for what it is.

Over samples i, with x the original's values of one sample, flattened, and y the compressed model's:

    relative = Σᵢ ‖yᵢ − xᵢ‖² / Σᵢ ‖xᵢ − x̄‖²        cosine = meanᵢ xᵢ·yᵢ / (‖xᵢ‖ ‖yᵢ‖)
    snr_db = 10 log₁₀ (Σᵢ ‖xᵢ‖² / Σᵢ ‖yᵢ − xᵢ‖²)    largest = max |y − x|

An output of one number a sample has no direction: its cosine is taken over all samples as one vector, and Spearman's ρ
says whether samples are still in the same order (ties share their mean rank).  Two scores count as one there, the
second less the first: that orders samples as the second class's probability does, for logits and probabilities alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_layermerge.importance import divergence, is_class_scores, is_measured

__all__ = ["OutputDrift", "drift", "out_of_proportion"]

# An error of half the spread is no small one; where logits have it, KL is of its order (docs/adr/0021).
LARGE = 0.5
FAR_LESS = 0.1
OUT_OF_PROPORTION = (
    "output '{name}' is judged as class scores, but KL hides a relative error of {relative:.3g} of its values: if "
    "these count, and not only which class comes first, judge it by --metric psnr or mse"
)

# Values looked at at once: outputs of images are large, and float64 twice that of what they come in.
CHUNK = 1 << 20


@dataclass(frozen=True)
class OutputDrift:
    """One output [N, …].  None: does not apply, or is not defined for these values.

    ``kl`` in nats and ``agreement`` (same top-1) are for class scores, ``rank_correlation`` in [−1, 1] for one score a
    sample; of labels (whole numbers that are no image, and booleans) there are only ``agreement`` (the share that is
    equal) and ``largest``.
    ``snr_db`` is infinite where nothing differs; all errors are infinite where a value is not finite, or the shape
    is another or none.
    """

    name: str
    kl: float | None
    relative: float | None
    cosine: float | None
    snr_db: float | None
    largest: float | None
    rank_correlation: float | None
    agreement: float | None


def drift(original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> tuple[OutputDrift, ...]:
    """Every output of the original against that of the same name."""
    return tuple(_output(name, wanted, other.get(name)) for name, wanted in original.items() if wanted.size)


def out_of_proportion(outputs: Iterable[OutputDrift]) -> tuple[str, ...]:
    """A sentence for each output whose KL is small though its values are far from the original's."""
    return tuple(
        OUT_OF_PROPORTION.format(name=each.name, relative=each.relative)
        for each in outputs
        if each.kl is not None and each.relative is not None and math.isfinite(each.relative)
        if each.relative > LARGE and (each.kl < FAR_LESS * each.relative or each.kl <= each.relative - 1)
    )


def _output(name: str, wanted: np.ndarray, got: np.ndarray | None) -> OutputDrift:
    if got is None or got.shape != wanted.shape or not (_finite(got) and _finite(wanted)):
        return OutputDrift(name, math.inf, math.inf, None, -math.inf, math.inf, None, None)
    if not is_measured(wanted):
        numbers = wanted.dtype == bool or np.issubdtype(wanted.dtype, np.number)
        largest = float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) if numbers else None
        return OutputDrift(name, None, None, None, None, largest, None, float((got == wanted).mean()))
    alone = divergence({name: wanted}, {name: got})
    classes = is_class_scores(wanted)
    sums = _Sums(wanted, got)
    return OutputDrift(
        name,
        alone.kl if classes else None,
        alone.relative,
        sums.cosine,
        sums.snr_db,
        sums.largest,
        _rank_correlation(wanted, got),
        alone.agreement if classes else None,
    )


def _finite(values: np.ndarray) -> bool:
    return not np.issubdtype(values.dtype, np.floating) or bool(np.isfinite(values).all())


class _Sums:
    """Products of wanted · got, sample by sample, of both in float64 but only a part of them at once."""

    def __init__(self, wanted: np.ndarray, got: np.ndarray) -> None:
        count = 1 if wanted.size == len(wanted) else len(wanted)
        dots, wanted_squares, got_squares = np.zeros((3, count))
        self.error, self.largest = 0.0, 0.0
        x, y = wanted.reshape(count, -1), got.reshape(count, -1)
        for part in _parts(x.shape):
            a, b = x[part].astype(np.float64), y[part].astype(np.float64)
            rows = part[0]
            dots[rows] += np.einsum("ij,ij->i", a, b)
            wanted_squares[rows] += np.einsum("ij,ij->i", a, a)
            got_squares[rows] += np.einsum("ij,ij->i", b, b)
            b -= a
            self.error += float(np.einsum("ij,ij->", b, b))
            self.largest = max(self.largest, float(np.abs(b).max()))
        self.power = float(wanted_squares.sum())
        lengths = np.sqrt(wanted_squares) * np.sqrt(got_squares)
        # Nothing against nothing points the same way; against something it points nowhere.
        alike = np.where((wanted_squares == 0) & (got_squares == 0), 1.0, 0.0)
        cosines = np.divide(dots, lengths, out=alike, where=lengths > 0)
        self.cosine = float(np.clip(cosines, -1, 1).mean())

    @property
    def snr_db(self) -> float:
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.power / self.error) if self.power > 0 else -math.inf


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rectangles of at most ``CHUNK`` values that tile [rows, columns]."""
    rows, columns = shape
    wide = min(columns, CHUNK)
    high = max(1, CHUNK // wide)
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            yield slice(top, top + high), slice(left, left + wide)


def _rank_correlation(wanted: np.ndarray, got: np.ndarray) -> float | None:
    """Spearman's ρ between both models' scores; None where a sample has several, or all samples tie."""
    count = len(wanted)
    if wanted.size == count:
        scores = wanted.reshape(count), got.reshape(count)
    elif wanted.ndim == 2 and wanted.shape[1] == 2:
        scores = wanted[:, 1] - wanted[:, 0], got[:, 1] - got[:, 0]
    else:
        return None
    from scipy.stats import rankdata  # not needed by most commands, and slow to import

    first, second = (rankdata(each.astype(np.float64)) - (count + 1) / 2 for each in scores)
    lengths = float((first @ first) * (second @ second)) ** 0.5
    return float(first @ second) / lengths if lengths > 0 else None
