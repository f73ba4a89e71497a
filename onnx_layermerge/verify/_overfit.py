"""Did the fits learn their samples by heart, and how many samples would it take that they do not?

**Whether.**  A few samples carry most of a divergence, so means of few samples say little; that a held-out sample is
*usually* worse than a fitted one shows early.  Losses of single samples are compared by their ranks (Mann and Whitney
1947, one-sided), and r is the typical ratio of a fitted sample's loss to a held-out one's, the median over all pairs
(Hodges and Lehmann 1963, on logarithms).  The plan is overfitted where p < ``SURE`` and 1/r > ``CLEARLY``: by what
follows, samples without end would take (1 − r)/2 off the held-out loss, here a sixth.

**How many.**  A least-squares fit of D numbers to n independent samples with an error σ² that no fit removes has the
expected error d_f = σ²(1 − D/n) on its own samples and d_v = σ²(1 + D/n) on new ones (Akaike 1969, final prediction
error, to first order in D/n).  Hence

    d_v − d_f = 2σ²D/n ∝ 1/n,    σ² = (d_v + d_f) / 2,    r = d_f / d_v,    D/n = (1 − r) / (1 + r),

and the number n' at which r has come up to 1 − τ, τ = ``TOLERATED``, has D/n' = τ / (2 − τ):

    n' = n · (1 − r) / (1 + r) · (2 − τ) / τ.

A divergence is quadratic in the error of the outputs where that is small, so the law of squared errors holds for it.
Below some n ≈ D the excess falls faster than 1/n; the formula's own limit is n' = ``WORST`` · n, at r = 0.
docs/judging.md has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_layermerge.importance import class_scores, divergence

__all__ = ["WORST", "FitCheck", "fit_check", "sample_losses"]

SURE = 0.05
CLEARLY = 1.5
TOLERATED = 0.1
WORST = (2 - TOLERATED) / TOLERATED
# Losses below this are rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class FitCheck:
    """The result on samples that it was fitted on and on held-out ones: mean losses as ``sample_losses`` has them.

    ``samples`` is how many the fits were given, ``ratio`` how much worse a held-out sample typically is (1/r), and
    ``p_value`` that of the rank test.  ``needed`` is how many the fits would have to be given, by the module's
    formula; None where held-out samples are not clearly worse.
    """

    samples: int
    fit_loss: float
    held_out_loss: float
    ratio: float
    p_value: float
    needed: int | None


def sample_losses(
    original: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], classes: Collection[str] | None = None
) -> np.ndarray:
    """The divergence of each sample alone, [N] float64; of outputs that are no class scores relative to their size.

    ``classes``: the outputs that are class scores, told from all samples together unless given.
    """
    known = class_scores(original) if classes is None else classes
    count = min(len(values) for values in original.values())

    def sample(outputs: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        return {name: outputs[name][number : number + 1] for name in original}

    return np.array([divergence(sample(original, i), sample(other, i), known).kl for i in range(count)])


def fit_check(fitted: np.ndarray, held_out: np.ndarray, samples: int) -> FitCheck | None:
    """Compare the losses [n] of fitted with those [m] of held-out samples; ``samples`` were fitted on in all.

    None where a loss is not finite: that is no matter of how many samples there are.
    """
    if not (np.isfinite(fitted).all() and np.isfinite(held_out).all()):
        return None
    from scipy.stats import mannwhitneyu  # not needed by most commands, and slow to import

    p_value = float(mannwhitneyu(held_out, fitted, alternative="greater").pvalue)
    r = float(np.median((fitted + _NOTHING)[:, None] / (held_out + _NOTHING)[None]))
    needed = None
    if p_value < SURE and 1 / r > CLEARLY:
        needed = math.ceil(samples * (1 - r) / (1 + r) * WORST)
    return FitCheck(samples, float(fitted.mean()), float(held_out.mean()), 1 / r, p_value, needed)
