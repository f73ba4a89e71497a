"""Run the data through the models once and keep only what the fits of one entry need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from onnx_layermerge.candidates import Job
from onnx_layermerge.errors import DataError
from onnx_layermerge.fit._eliminate import elimination_order
from onnx_layermerge.fit._patches import grid_of, patch_rows, sample_positions, value_rows
from onnx_layermerge.fit._ridge import ALPHAS, NEAR_ALPHAS, Fit, Gram, Target, fit_conv, fit_ranks
from onnx_layermerge.merge import Geometry

__all__ = ["fit_jobs", "rows_for"]

Arrays = Mapping[str, np.ndarray]

ROWS_PER_UNKNOWN = 20
FEWEST_ROWS = 4000
FEATURE_BYTES = 256 << 20
PATCH_BYTES = 384 << 20
HELD_OUT = 0.2
# Elimination ranks channels on the plain fit with this ridge.
ORDER_ALPHA = 1e-2


@dataclass(eq=False)
class _Samples:
    """What is kept of the runs: targets and skips at sampled positions, and of the entry either its features whole or,
    where those of all images are too large, what each convolution reads at these positions.

    ``places`` holds the positions [R, 1 + n] of each output grid, ``values`` and ``skips`` the rows by job key,
    ``patches`` the rows [R, C, ∏kernel] by geometry.
    """

    images: int
    features: list[np.ndarray] = field(default_factory=list)
    patches: dict[Geometry, np.ndarray] = field(default_factory=dict)
    places: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)
    grids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    skips: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seen: int = 0


def fit_jobs(
    jobs: Sequence[Job],
    runs: Iterable[tuple[Arrays, Arrays]],
    *,
    entry: str | None = None,
    skips: Mapping[str, str] | None = None,
    images: int,
    seed: int = 0,
    alphas: Sequence[float] | None = None,
    prior: np.ndarray | None = None,
    rows_per_unknown: int = ROWS_PER_UNKNOWN,
) -> dict[str, Fit]:
    """Fit all ``jobs`` (which share one entry) on up to ``images`` samples of ``runs``; fits by job key.

    Each run is (values of the original: the targets, values of the deployed model: entry and skips), by name [N, …].
    ``entry`` and ``skips`` rename values in the deployed model; ``alphas`` and ``prior`` are those of :func:`fit_conv`.

    Raises:
        DataError: a value of the original is NaN or infinite; nothing could be fitted to it.
    """
    source, renamed = entry or jobs[0].entry, skips or {}
    samples = _Samples(images)
    for values, met in runs:
        _check_finite(values, samples.seen)
        if not samples.seen:
            _plan_samples(samples, jobs, met[source], rows_per_unknown, seed)
        _take(samples, jobs, values, met, source, renamed)
        if samples.seen >= samples.images:
            break
    return _solve(samples, jobs, alphas, prior, rows_per_unknown)


def _check_finite(values: Arrays, seen: int) -> None:
    """What the deployed model makes of a sample is another matter: that shows in how its plan is judged."""
    for name, value in values.items():
        finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
        if not finite.all():
            raise DataError(
                f"Inside the model, '{name}' is NaN or infinite for {int((~finite).sum())} of samples {seen} to "
                f"{seen + len(value) - 1} of those that are fitted on, and nothing can be fitted to that: leave such "
                "samples out, check their range, or repair the model."
            )


def _plan_samples(
    samples: _Samples, jobs: Sequence[Job], features: np.ndarray, rows_per_unknown: int, seed: int
) -> None:
    """Decide on the first batch which positions of each grid to look at, and what to keep of the entry.

    Whole features serve every geometry.  Where they would hold only some of the images, the patches of all of them
    are kept if these fit: other images say more than other positions of the same.
    """
    for job in jobs:
        samples.grids[job.key] = grid_of(job.stage.geometry, features)
    _place(samples, jobs, rows_per_unknown, seed)
    whole = max(1, FEATURE_BYTES // max(4 * features[0].size, 1))
    if whole >= samples.images:
        return
    sizes = {
        job.stage.geometry: (
            len(samples.places[samples.grids[job.key]]),
            features.shape[1],
            prod(job.stage.geometry.kernel),
        )
        for job in jobs
    }
    if 4 * sum(map(prod, sizes.values())) <= FEATURE_BYTES + PATCH_BYTES:
        samples.patches = {geometry: np.empty(size, np.float32) for geometry, size in sizes.items()}
    else:
        samples.images = whole
        _place(samples, jobs, rows_per_unknown, seed)


def _place(samples: _Samples, jobs: Sequence[Job], rows_per_unknown: int, seed: int) -> None:
    """Positions for as many images as there are to be."""
    rng = np.random.default_rng(seed)
    for grid in sorted(set(samples.grids.values())):
        rows = max(rows_for(job, rows_per_unknown) for job in jobs if samples.grids[job.key] == grid)
        samples.places[grid] = sample_positions(samples.images, grid, rows, rng)


def rows_for(job: Job, rows_per_unknown: int = ROWS_PER_UNKNOWN) -> int:
    """How many rows the fit wants, as far as patches fit in memory."""
    patch = job.stage.channels_in * prod(job.stage.geometry.kernel) * 4
    return min(max(FEWEST_ROWS, rows_per_unknown * job.stage.unknowns), max(PATCH_BYTES // patch, 1000))


def _take(
    samples: _Samples, jobs: Sequence[Job], values: Arrays, met: Arrays, source: str, renamed: Mapping[str, str]
) -> None:
    """Keep one batch."""
    count = min(len(met[source]), samples.images - samples.seen)
    features = met[source][:count].astype(np.float32, copy=False)
    if not samples.patches:
        samples.features.append(features)
    filled: set[Geometry] = set()
    for job in jobs:
        places = samples.places[samples.grids[job.key]]
        first, last = np.searchsorted(places[:, 0], (samples.seen, samples.seen + count))
        local = places[first:last].copy()
        local[:, 0] -= samples.seen
        geometry = job.stage.geometry
        if geometry in samples.patches and geometry not in filled:
            samples.patches[geometry][first:last] = patch_rows(features, geometry, local)
            filled.add(geometry)
        rows = value_rows(values[job.site.value], local)
        samples.values.setdefault(job.key, []).append(rows.astype(np.float32, copy=False))
        if job.site.skip is not None:
            skip = np.broadcast_to(met[renamed.get(job.site.skip, job.site.skip)], values[job.site.value].shape)
            rows = value_rows(skip, local)
            samples.skips.setdefault(job.key, []).append(rows.astype(np.float32, copy=False))
    samples.seen += count


def _solve(
    samples: _Samples,
    jobs: Sequence[Job],
    alphas: Sequence[float] | None,
    prior: np.ndarray | None,
    rows_per_unknown: int,
) -> dict[str, Fit]:
    """Solve job after job; those with equal geometry share one Gram matrix."""
    features = np.concatenate(samples.features) if samples.features else None
    held_images = max(1, round(samples.seen * HELD_OUT)) if samples.seen > 1 else 0
    fits: dict[str, Fit] = {}
    orders: dict[object, np.ndarray] = {}
    shared: tuple[object, Gram] | None = None
    for job in sorted(jobs, key=lambda job: (str(job.stage.geometry), job.stage.groups, job.key)):
        if job.key in fits:  # along with another of its ranks
            continue
        stage = job.stage
        places = samples.places[samples.grids[job.key]]
        seen = places[places[:, 0] < samples.seen]
        # A smaller system needs fewer of the rows sampled for the largest; thin out evenly.
        keep = slice(None, None, max(1, len(seen) // rows_for(job, rows_per_unknown)))
        places = seen[keep]
        key = (stage.geometry, stage.groups, len(places))
        if shared is None or shared[0] != key:
            shared = None
            if features is None:
                patches = samples.patches[stage.geometry][: len(seen)][keep]
            else:
                patches = patch_rows(features, stage.geometry, places)
            grouped = patches.reshape(len(places), stage.groups, -1).transpose(1, 0, 2)
            held = int((places[:, 0] >= samples.seen - held_images).sum())
            shared = (key, Gram(np.array(grouped, dtype=np.float32, order="C"), held))
        gram = shared[1]
        skip = np.concatenate(samples.skips[job.key])[keep] if job.site.skip is not None else None
        target = Target(np.concatenate(samples.values[job.key])[keep], skip, job.site.low, job.site.high)
        if job.width is None:
            near = job.prior if prior is None else prior
            usual = ALPHAS if job.prior is None else NEAR_ALPHAS
            same = [job, *(other for other in jobs if other is not job and _differ_in_rank(job, other))]
            found = fit_ranks(gram, target, [other.rank for other in same], alphas=alphas or usual, prior=near)
            fits |= {other.key: fit for other, fit in zip(same, found, strict=True)}
            continue
        wanted = (key, job.site, job.unit)
        if wanted not in orders:
            least = min(other.width for other in jobs if other.width is not None and other.site == job.site)
            orders[wanted] = _order(gram, target, stage.channels_in // job.unit, least // job.unit)
        fits[job.key] = _fit_width(gram, target, orders[wanted], job, alphas)
    return {key: replace(fit, images=samples.seen) for key, fit in fits.items()}


def _differ_in_rank(one: Job, other: Job) -> bool:
    """Whether one solution serves both, once with fewer directions than once."""
    if one.rank is None or other.rank is None or (one.site, one.stage) != (other.site, other.stage):
        return False
    if one.prior is None or other.prior is None:
        return one.prior is other.prior
    return np.array_equal(one.prior, other.prior)


def _order(gram: Gram, target: Target, units: int, least: int) -> np.ndarray:
    """Elimination order of the entry's channels for this target, in ``units`` of as many neighbours each."""
    plain = target.value if target.skip is None else target.value - target.skip
    weight, _ = gram.solve(gram.cross(plain[None, : len(plain) - gram.held_out]), ORDER_ALPHA)
    return elimination_order(gram.matrix[0], weight[0], float(gram.ridge(ORDER_ALPHA)[0, 0, 0]), units, least)


def _fit_width(gram: Gram, target: Target, order: np.ndarray, job: Job, alphas: Sequence[float] | None) -> Fit:
    """Fit on the ``width`` channels that are eliminated last, near the weights that read them before."""
    channels, unit = job.stage.channels_in, job.unit
    units = np.sort(order[(channels - (job.width or channels)) // unit :])
    kept = (units[:, None] * unit + np.arange(unit)).ravel()
    size = gram.rows.shape[2] // channels
    columns = (kept[:, None] * size + np.arange(size)).ravel()
    prior = None if job.prior is None else job.prior[:, columns].astype(np.float64)
    return replace(fit_conv(gram.subset(columns), target, alphas=alphas or NEAR_ALPHAS, prior=prior), kept=kept)
