"""What is timed computes what it should: outputs held against those of onnxruntime on the CPU.

Floating outputs may be off by rounding.  Whole numbers and truth values have no rounding of their own; they inherit it
where they are the rank or the sign of something rounded (ArgMax, TopK, Greater), and there one entry in many tips over,
by any amount: class 3 is no nearer to class 4 than to class 9.  So the share of entries that differ is bounded, not the
distance.  That share grows with the rounding: in convolutional networks of random weights, whose scores lie closer
together than trained ones, it is one to two times the relative error of the scores for ArgMax and comparisons, and
three to five times for the ranks of a top 5, while that error stays below half the tolerance.  A wrong layer makes
nearly all indices and many of the truth values differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import ModelError

__all__ = ["agree"]

# Of the largest magnitude of an output; a few layers of rounding, and far below what a wrong layer makes.
_TOLERANCES = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 1e-1}
# The share of entries without rounding of their own that may differ, in units of the tolerance (see above).
_SHARE = 3
# So many may differ whatever the share: a tie that tips moves two ranks, and one entry of one is all of them.  An
# output of one or two such entries is therefore compared by its shape alone.
_FEW = 2


def agree(
    expected: Sequence[npt.NDArray[Any]], got: Sequence[npt.NDArray[Any]], precision: str, title: str
) -> None:
    """Compare outputs one by one; the type of each in ``expected`` says how.

    1. Floating: in float64, relative to the largest finite magnitude.  Inf and NaN agree with the same in the same
       place, and with nothing else.
    2. Others: the share of entries that differ is at most three times the tolerance of a floating output; two entries
       may always differ.

    Raises:
        ModelError: there are more or fewer outputs, one is of another shape, or one is further off than that.
    """
    if len(got) != len(expected):
        raise ModelError(
            f"{title} gives {len(got)} outputs for the {len(expected)} of the model; try another version of it."
        )
    tolerance = _TOLERANCES[precision]
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        if want.shape != have.shape:
            raise ModelError(
                f"{title} gives output {index} the shape {have.shape}, not {want.shape}; try another version of it."
            )
        fault = _off(want, have, tolerance) if want.dtype.kind == "f" else _differing(want, have, _SHARE * tolerance)
        if fault:
            raise ModelError(f"{title} computes something else: output {index} {fault}; try another --precision.")


def _off(want: npt.NDArray[Any], have: npt.NDArray[Any], tolerance: float) -> str:
    """What is wrong with a floating output, or nothing."""
    want, have = want.astype(np.float64), have.astype(np.float64)
    finite = np.isfinite(want)
    odd = int(np.count_nonzero((finite != np.isfinite(have)) | ~(finite | _same(want, have))))
    if odd:
        return f"has Inf or NaN in one place and not in the other in {odd} of its {want.size} entries"
    scale = max(float(np.max(np.abs(want), initial=0.0, where=finite)), 1e-6)
    off = float(np.max(np.abs(np.subtract(want, have, where=finite, out=np.zeros_like(want))), initial=0.0)) / scale
    return f"is off by {off:.1%} of its largest value, and {tolerance:.1%} is rounding" if off > tolerance else ""


def _same(want: npt.NDArray[Any], have: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Equal, NaN to NaN too."""
    same: npt.NDArray[np.bool_] = (want == have) | (np.isnan(want) & np.isnan(have))
    return same


def _differing(want: npt.NDArray[Any], have: npt.NDArray[Any], share: float) -> str:
    """What is wrong with an output of whole numbers, truth values or text, or nothing."""
    count = int(np.count_nonzero(want != have))
    if count <= max(_FEW, share * want.size):
        return ""
    return f"differs in {count / want.size:.1%} of its entries, and {share:.1%} is rounding"
