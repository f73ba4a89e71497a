"""The frontier: what every speed-up would cost, by the table and the scores; no model is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.data import Calibration, ImageOptions
from onnx_layermerge.flow._data import NO_DATA, noise, open_data
from onnx_layermerge.flow._prepare import Progress, latencies, prepare, quiet, useful
from onnx_layermerge.flow._rank import loss_bases, scored
from onnx_layermerge.latency import LatencyTable, open_backend
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
    """The whole frontier of one model on one device; predicted, not measured."""

    input: str
    device: str
    basis: str
    base_ms: float
    points: tuple[FrontierPoint, ...]
    drop_only: tuple[FrontierPoint, ...]
    timed_blocks: int
    reused_blocks: int
    warnings: tuple[str, ...]


def plan(
    input: str | Path,
    *,
    calib: object = None,
    images: ImageOptions | None = None,
    samples: int = 256,
    method: str = "olm",
    device: str = "cpu",
    backend: str = "onnxruntime",
    profile: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    seed: int = 0,
    progress: Progress = quiet,
) -> PlanReport:
    """Predicted speed-up against expected loss for every plan worth having; arguments as for ``compress``.

    Raises:
        OlmError: with one sentence and an exit code.
    """
    opened = open_backend(backend, device)
    prepared = prepare(input, method=method, fitting=calib is not None, shapes=shapes, batch=batch, progress=progress)
    options, warnings = images or ImageOptions(), []
    fit_data: Calibration | None = None
    if calib is None:
        warnings.append(NO_DATA)
        validation = open_data(prepared, noise(prepared, seed), options, samples, seed)
    else:
        data = open_data(prepared, calib, options, samples, seed)
        warnings += data.warnings
        fit_data, validation = data.split(0.25, seed)
    with LatencyTable.open(profile) as table:
        timed = latencies(prepared, opened, table, seed=seed, progress=progress)
    candidates = useful(prepared, timed)
    scores = scored(prepared, candidates, fit_data, validation, seed=seed, progress=progress)
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
        device=opened.describe().text(),
        basis=best,
        base_ms=timed.base_s * 1e3,
        points=points(best),
        drop_only=points("drop-only") if "drop-only" in bases else (),
        timed_blocks=timed.timed,
        reused_blocks=timed.reused,
        warnings=(*warnings, *timed.warnings),
    )
