"""Ridge least squares in centred moments, aware of the activation behind the convolution.

    A = E[ppᵀ] − μμᵀ,   B = E[ptᵀ] − μτᵀ,   W = (A + λI)⁻¹(B + λW0),   b = τ − Wᵀμ,   λ = α·mean diag A

μ, τ are the means of patches p and targets t, W0 the weights to stay near (0 for a new convolution).  A depends on the
entry alone, so one ``Gram`` serves every target that hangs on the same entry, and every round of the activation-aware
fit, where only B changes: behind Clip(lo, hi) it does not matter how far a value lies outside, hence after each ŷ

    t = y inside (lo, hi),   t = min(ŷ, lo) where y ≤ lo,   t = max(ŷ, hi) where y ≥ hi          (Relu: lo = 0, hi = ∞)

Of rank r the best W, in the same measure, is Ŵ V Vᵀ, with Ŵ the solution above and V the r eigenvectors of largest
eigenvalue of

    Ŵᵀ (A + λI) Ŵ = Ŵᵀ (B + λW0) = (LᵀŴ)ᵀ(LᵀŴ),   L Lᵀ = A + λI,

the right singular vectors of LᵀŴ (reduced-rank regression: Izenman 1975; Eckart & Young for the metric A + λI).  The
rounds behind Clip keep V and solve for Ŵ V alone, which has r columns.

Of few rows X [R, D] it is the R × R matrix that is solved with (Woodbury), for any Z [D, O]:

    (XᵀX/R + λI)⁻¹ Z = (Z − Xᵀ (XXᵀ + λR I)⁻¹ X Z) / λ.

α is chosen among ``ALPHAS`` by the error on held-out images.  A and B are summed in float64 over float32 patches.
Groups of channels are independent problems of one size, solved side by side: arrays carry a leading axis [G].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy

__all__ = ["ALPHAS", "NEAR_ALPHAS", "Fit", "Gram", "Target", "fit_conv", "fit_ranks"]

ALPHAS = (1e-3, 1e-2, 1e-1)
# Towards weights that already work a strong ridge costs little and keeps a fit from learning its images by heart.
NEAR_ALPHAS = (1e-2, 1e-1, 1.0)
ROUNDS = 4
# Fewer rows per unknown than this and only the strongest ridge is trusted.
FEW_ROWS = 5
# With so many times as many columns as rows, solving by rows costs less.
FEW_AGAINST_COLUMNS = 3
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Target:
    """What should come out at the sampled positions.

    ``value`` [R, C] is the original's value before the activation; ``skip`` [R, C] what the deployed network adds to
    the convolution there (None: nothing); ``low``, ``high`` bound the activation (−∞, ∞ without one).
    """

    value: np.ndarray
    skip: np.ndarray | None = None
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False)
class Fit:
    """``weight`` float64 [C_out, C_in/groups·∏kernel], ``bias`` [C_out].

    ``error`` is the held-out relative squared error after the activation, ``alpha`` the ridge chosen,
    ``rows_per_unknown`` how well determined the system was, ``kept`` the entry's channels that stay (None: all),
    ``images`` how many samples it was given: all, or as many as fit in memory.
    """

    weight: np.ndarray
    bias: np.ndarray
    error: float
    alpha: float
    rows_per_unknown: float
    kept: np.ndarray | None = None
    images: int = 0


@dataclass(eq=False)
class Gram:
    """Patches of one entry and geometry, and the factors of A + λI, shared by all fits that start there.

    ``rows`` float32 [G, R, D] is centred in place; the last ``held_out`` rows (whole images) are not fitted on.
    """

    rows: np.ndarray
    held_out: int
    mean: np.ndarray = field(init=False)
    _factors: dict[float, object] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.mean = self.fitted.mean(axis=1, keepdims=True, dtype=np.float64)
        self.rows -= self.mean.astype(np.float32)

    @cached_property
    def matrix(self) -> np.ndarray:
        """A [G, D, D]."""
        return _summed(self.fitted, self.fitted)

    @cached_property
    def by_rows(self) -> bool:
        """Whether the rows are so few that A is not needed for solving."""
        return bool(self.rows.shape[2] > FEW_AGAINST_COLUMNS * self.fitted.shape[1])

    @cached_property
    def power(self) -> np.ndarray:
        """The mean of A's diagonal, [G]."""
        if self.by_rows:
            return np.array([np.square(group, dtype=np.float64).mean() for group in self.fitted])
        return np.asarray(np.trace(self.matrix, axis1=1, axis2=2) / self.matrix.shape[1])

    @property
    def fitted(self) -> np.ndarray:
        return self.rows[:, : self.rows.shape[1] - self.held_out]

    @property
    def rows_per_unknown(self) -> float:
        return float(self.fitted.shape[1] / self.rows.shape[2])

    def subset(self, columns: np.ndarray) -> Gram:
        """The same rows with some of the columns (one group only)."""
        part = Gram.__new__(Gram)
        part.rows, part.held_out = np.ascontiguousarray(self.rows[:, :, columns]), self.held_out
        part.mean, part._factors = self.mean[:, :, columns], {}
        if "matrix" in vars(self) and not part.by_rows:
            part.matrix = self.matrix[:, columns[:, None], columns]
        return part

    def apply(self, weight: np.ndarray, bias: np.ndarray, part: slice) -> np.ndarray:
        """W pᵣ + b for the rows in ``part``: float32 [G, R', O]."""
        centred_bias = bias + np.matmul(self.mean, weight)
        result: np.ndarray = np.matmul(self.rows[:, part], weight.astype(np.float32))
        result += centred_bias.astype(np.float32)
        return result

    def cross(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """B [G, D, O] and τ [G, 1, O] for ``target`` [G, R_fitted, O]; the same for every ridge."""
        tau = target.mean(axis=1, keepdims=True, dtype=np.float64)
        return _summed(self.fitted, target.astype(np.float32) - tau.astype(np.float32)), tau

    def solve(
        self,
        moments: tuple[np.ndarray, np.ndarray],
        alpha: float,
        prior: np.ndarray | None = None,
        within: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """W [G, D, O] and b [G, 1, O] from the moments of :meth:`cross`; ``prior`` [G, D, O] is W0.

        With ``within``, orthonormal V [G, O, r], W is the best of the form W V Vᵀ.
        """
        cross, tau = self._pulled(moments, alpha, prior), moments[1]
        if within is None:
            weight = self._solve(alpha, cross)
        else:
            weight = np.matmul(self._solve(alpha, np.matmul(cross, within)), within.transpose(0, 2, 1))
        return weight, tau - np.matmul(self.mean, weight)

    def directions(
        self, moments: tuple[np.ndarray, np.ndarray], alpha: float, prior: np.ndarray | None, weight: np.ndarray
    ) -> np.ndarray:
        """All of V [G, O, O], the most important column last, for the ``weight`` Ŵ that :meth:`solve` gave."""
        product = np.matmul(weight.transpose(0, 2, 1), self._pulled(moments, alpha, prior))
        vectors: np.ndarray = np.linalg.eigh(product)[1]
        return vectors

    def ridge(self, alpha: float) -> np.ndarray:
        """λ [G, 1, 1]."""
        # A constant entry has no variance; any positive ridge then gives W = W0, b = τ − Wᵀμ.
        return np.where(self.power > 0, alpha * self.power, 1.0)[:, None, None]

    def _pulled(
        self, moments: tuple[np.ndarray, np.ndarray], alpha: float, prior: np.ndarray | None
    ) -> np.ndarray:
        """B + λW0."""
        cross = moments[0]
        return cross if prior is None else cross + self.ridge(alpha) * prior

    def _solve(self, alpha: float, cross: np.ndarray) -> np.ndarray:
        """(A + λI)⁻¹ of ``cross``."""
        if alpha not in self._factors:
            self._factors[alpha] = self._factor(alpha)
        factor = self._factors[alpha]
        if isinstance(factor, list):
            ridge, rows = self.ridge(alpha), self.fitted.astype(np.float64)
            parts = zip(factor, np.matmul(rows, cross), strict=True)
            inner = np.stack([scipy.linalg.cho_solve(each, part, check_finite=False) for each, part in parts])
            return np.asarray((cross - np.matmul(rows.transpose(0, 2, 1), inner)) / ridge)
        if isinstance(factor, tuple):
            return np.asarray(scipy.linalg.cho_solve(factor, cross[0], check_finite=False))[None]
        return np.asarray(np.matmul(np.asarray(factor), cross))

    def _factor(self, alpha: float) -> object:
        """A Cholesky factor of A + λI, a list of those of XXᵀ + λR I, or (A + λI)⁻¹."""
        ridge = self.ridge(alpha)
        if self.by_rows:
            rows = self.fitted.astype(np.float64)
            square = np.matmul(rows, rows.transpose(0, 2, 1)) + ridge * rows.shape[1] * np.eye(rows.shape[1])
            return [scipy.linalg.cho_factor(each, lower=True, check_finite=False) for each in square]
        matrix = self.matrix + ridge * np.eye(self.matrix.shape[1])
        # One large system: Cholesky.  Many small ones: a batched inverse costs less than a loop over factors.
        if len(matrix) == 1:
            return scipy.linalg.cho_factor(matrix[0], lower=True, overwrite_a=True, check_finite=False)
        return np.linalg.inv(matrix)


def _summed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """E[left · rightᵀ] over the rows, [G, D, O]: float32 products of a few thousand rows, summed in float64."""
    total = np.zeros((left.shape[0], left.shape[2], right.shape[2]))
    for start in range(0, left.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        total += np.matmul(left[:, part].transpose(0, 2, 1), right[:, part])
    total /= left.shape[1]
    return total


def fit_conv(
    gram: Gram,
    target: Target,
    *,
    alphas: Sequence[float] = ALPHAS,
    prior: np.ndarray | None = None,
    rank: int | None = None,
) -> Fit:
    """The best convolution for ``target``; ``prior`` [C_out, D] is W0, ``rank`` the most that W may have (None: any).

    Raises:
        ValueError: groups do not divide the target's channels, or there is no ridge strength.
    """
    return fit_ranks(gram, target, (rank,), alphas=alphas, prior=prior)[0]


def fit_ranks(
    gram: Gram,
    target: Target,
    ranks: Sequence[int | None],
    *,
    alphas: Sequence[float] = ALPHAS,
    prior: np.ndarray | None = None,
) -> list[Fit]:
    """:func:`fit_conv` for each of ``ranks``, which share most of the work."""
    groups, channels = len(gram.rows), target.value.shape[1]
    if channels % groups or not alphas:
        raise ValueError(f"{groups} groups, {channels} channels, ridge strengths {alphas}")
    value = _grouped(target.value, groups)
    skip = None if target.skip is None else _grouped(target.skip, groups)
    near = None if prior is None else prior.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    kept = slice(0, value.shape[1] - gram.held_out)
    plain = value[:, kept] if skip is None else value[:, kept] - skip[:, kept]
    trusted = alphas if gram.rows_per_unknown >= FEW_ROWS else alphas[-1:]
    moments = gram.cross(plain)
    full = {alpha: gram.solve(moments, alpha, near)[0] for alpha in trusted}
    bases: dict[float, np.ndarray] = {}
    fits = []
    for rank in ranks:
        low = rank is not None and rank < channels // groups
        if low and not bases:
            bases = {alpha: gram.directions(moments, alpha, near, weight) for alpha, weight in full.items()}
        within = {alpha: basis[:, :, -(rank or 0) :] for alpha, basis in bases.items()} if low else {}
        solutions = {}
        for alpha, weight in full.items():
            if low:
                weight = np.matmul(np.matmul(weight, within[alpha]), within[alpha].transpose(0, 2, 1))
            solutions[alpha] = weight, moments[1] - np.matmul(gram.mean, weight)
        errors = {alpha: _held_out(gram, value, skip, target, *solution) for alpha, solution in solutions.items()}
        alpha = min(errors, key=lambda each: errors[each])
        weight, bias = solutions[alpha]
        if np.isfinite(target.low) or np.isfinite(target.high):
            start = weight, bias
            weight, bias = _forgive(gram, value[:, kept], skip, target, alpha, near, within.get(alpha), start)
        error = _held_out(gram, value, skip, target, weight, bias)
        flat = weight.transpose(0, 2, 1).reshape(channels, -1)
        fits.append(Fit(flat, bias.reshape(-1), error, alpha, gram.rows_per_unknown))
    return fits


def _grouped(values: np.ndarray, groups: int) -> np.ndarray:
    """[R, C] → [G, R, C/G]."""
    view: np.ndarray = values.reshape(len(values), groups, -1).transpose(1, 0, 2)
    return view


def _forgive(
    gram: Gram,
    value: np.ndarray,
    skip: np.ndarray | None,
    target: Target,
    alpha: float,
    near: np.ndarray | None,
    within: np.ndarray | None,
    start: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Further rounds with the targets moved to where the activation forgives."""
    weight, bias = start
    kept = slice(0, value.shape[1])
    below, above = value <= target.low, value >= target.high
    for _ in range(ROUNDS - 1):
        guess = gram.apply(weight, bias, kept)
        if skip is not None:
            guess += skip[:, kept]
        moved = np.where(below, np.minimum(guess, target.low), np.where(above, np.maximum(guess, target.high), value))
        moments = gram.cross(moved if skip is None else moved - skip[:, kept])
        weight, bias = gram.solve(moments, alpha, near, within)
    return weight, bias


def _held_out(
    gram: Gram, value: np.ndarray, skip: np.ndarray | None, target: Target, weight: np.ndarray, bias: np.ndarray
) -> float:
    """Squared error over squared spread behind the activation, on the held-out rows (on all when there are none)."""
    part = slice(value.shape[1] - gram.held_out, None) if gram.held_out else slice(None)
    guess = gram.apply(weight, bias, part)
    if skip is not None:
        guess += skip[:, part]
    wanted = np.clip(value[:, part].astype(np.float64), target.low, target.high)
    spread = float(((wanted - wanted.mean(axis=1, keepdims=True)) ** 2).sum())
    error = float(((np.clip(guess, target.low, target.high) - wanted) ** 2).sum())
    return error / spread if spread > 0 else float(error > 0)
