"""The frontier: what every speed-up would cost, by the table and the scores; no model is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.data import ImageOptions
from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.fit import on_one_thread
from onnx_layermerge.flow._data import choosable, open_samples
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._prepare import Prepared, Progress, prepare, quiet
from onnx_layermerge.flow._rank import loss_bases
from onnx_layermerge.flow._recorded import MISMATCH, mismatch, named, recorded, substitute
from onnx_layermerge.flow._required import buildable, read_builds
from onnx_layermerge.flow._scores import scored
from onnx_layermerge.flow._timed import Timed, useful
from onnx_layermerge.latency import Backend, DeviceKey, EngineOptions, LatencyTable, open_backend
from onnx_layermerge.plan import solve

__all__ = ["FrontierPoint", "PlanReport", "plan"]


@dataclass(frozen=True)
class FrontierPoint:
    """One Pareto-optimal plan: predicted speed-up, Σ of single-block divergences, the blocks."""

    speedup: float
    loss: float
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class PlanReport:
    """The whole frontier of one model on one device; predicted, not measured.

    ``device`` is the one that the times are from.  With ``table_only`` nothing was timed here, and ``missing_blocks``
    counts the candidates that the table knows too little of.  ``mismatch`` is this machine's own key where another
    device's times stand in for it.
    """

    input: str
    device: str
    basis: str
    base_ms: float
    points: tuple[FrontierPoint, ...]
    drop_only: tuple[FrontierPoint, ...]
    timed_blocks: int
    reused_blocks: int
    warnings: tuple[str, ...]
    table_only: bool = False
    missing_blocks: int = 0
    mismatch: str | None = None


@dataclass(frozen=True)
class _Source:
    """Where the times come from: ``backend`` measures them and the table remembers, or (None) the table alone."""

    device: DeviceKey
    backend: Backend | None
    mismatch: str | None = None
    warnings: tuple[str, ...] = ()

    def times(self, prepared: Prepared, table: LatencyTable, seed: int, progress: Progress) -> tuple[Timed, int]:
        """Savings, and how many candidates the table alone knows too little of."""
        if self.backend is not None:
            return latencies(prepared, self.backend, table, seed=seed, progress=progress), 0
        found = recorded(prepared, self.device, table)
        return found.timed, found.missing


@on_one_thread
def plan(
    input: str | Path,
    *,
    calib: object = None,
    images: ImageOptions | None = None,
    samples: int = 256,
    method: str = "olm",
    device: str = "cpu",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    profile: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    from_table: str | None = None,
    allow_mismatch: bool = False,
    require_builds: str | Path | None = None,
    effort: str = "normal",
    seed: int = 0,
    progress: Progress = quiet,
) -> PlanReport:
    """Predicted speed-up against expected loss for every plan worth having; arguments as for ``compress``.

    With a ``profile`` whose device is not on this machine, the table alone is read and nothing is timed.

    Args:
        from_table: read the table alone in any case, for the device that these words mean (a part of its key or
            digest; "" is the table's only one).
        allow_mismatch: take the times of the table's device for this one's, where it holds no others.
        require_builds: report of ``build_only`` as JSON; candidates that did not build, or are not in it, are not
            offered.
        effort: samples that blocks are ranked on, as of ``compress``.

    Raises:
        OlmError: with one sentence and an exit code; ProfileError where ``profile`` knows other devices only.
    """
    if from_table is not None and allow_mismatch:
        raise UsageError("--from-table names the device itself; leave out --allow-mismatch.")
    trying = effort_of(effort)
    builds = None if require_builds is None else read_builds(require_builds)
    source = _source(profile, backend, device, precision, engines, from_table, allow_mismatch)
    prepared = prepare(
        input,
        method=method,
        shapes=shapes,
        batch=batch,
        engines=engines,
        progress=progress,
    )
    warnings = list(source.warnings)
    data = open_samples(prepared, calib, None, images, samples, seed)
    prepared = choosable(prepared, data, method)
    if builds is not None:
        prepared, left_out = buildable(prepared, builds, source.device.precision)
        warnings += left_out
    warnings += data.warnings
    with LatencyTable.open(profile, create=source.backend is not None) as table:
        timed, missing = source.times(prepared, table, seed, progress)
    candidates = useful(prepared, timed)
    scores = scored(
        prepared, candidates, data.fit, data.validation, effort=trying, seed=seed, mixing=data.mixing, progress=progress
    )
    bases = loss_bases(candidates, scores, timed)
    best = "kl" if "kl" in bases else "drop-only"

    def points(basis: str) -> tuple[FrontierPoint, ...]:
        return tuple(
            FrontierPoint(timed.base_s / (timed.base_s - point.saving_s), point.loss, point.keys)
            for point in solve(bases[basis]).points
            if point.saving_s < 0.98 * timed.base_s
        )

    return PlanReport(
        input=str(input),
        device=source.device.text(),
        basis=best,
        base_ms=timed.base_s * 1e3,
        points=points(best),
        drop_only=points("drop-only") if "drop-only" in bases else (),
        timed_blocks=timed.timed,
        reused_blocks=timed.reused,
        warnings=(*warnings, *timed.warnings),
        table_only=source.backend is None,
        missing_blocks=missing,
        mismatch=source.mismatch,
    )


def _source(
    profile: str | Path | None,
    backend: str,
    device: str,
    precision: str,
    engines: EngineOptions | None,
    from_table: str | None,
    allow_mismatch: bool,
) -> _Source:
    """Decide before any work is done, and without making a table where there is none."""
    if from_table is not None:
        with LatencyTable.open(profile, create=False) as table:
            return _Source(named(table, from_table), None)
    try:
        opened = open_backend(backend, device, precision, engines)
    except DeviceError as refused:
        if profile is None or not Path(profile).exists():
            raise
        with LatencyTable.open(profile) as table:
            key = substitute(table, backend, device, precision, engines, refused)
        return _Source(key, None, warnings=(f"planned from {profile} alone, for {key.text()}: {refused}",))
    here = opened.describe()
    other = mismatch(profile, here, allow=allow_mismatch)
    if other is None:
        return _Source(here, opened)
    return _Source(other, None, here.text(), (MISMATCH.format(other=other.text(), here=here.text()),))
