"""Fill the latency table for models, without planning anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._prepare import Progress, latencies, prepare, quiet
from onnx_layermerge.latency import LatencyTable, open_backend

__all__ = ["ProfileReport", "profile"]


@dataclass(frozen=True)
class ProfileReport:
    """What is now in the table for these models; ``base_ms`` is the whole model's time by path."""

    profile: str
    device: str
    base_ms: Mapping[str, float]
    candidates: int
    timed: int
    reused: int
    failed: Mapping[str, str]
    warnings: tuple[str, ...]


def profile(
    paths: Sequence[str | Path],
    *,
    device: str = "cpu",
    backend: str = "onnxruntime",
    profile: str | Path | None = None,
    method: str = "olm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    seed: int = 0,
    progress: Progress = quiet,
) -> ProfileReport:
    """Time every candidate block of every model that the table lacks; each result is committed as it comes.

    Raises:
        OlmError: with one sentence and an exit code; what was measured until then is kept.
    """
    if not paths:
        raise UsageError("name at least one model to profile.")
    opened = open_backend(backend, device)
    base: dict[str, float] = {}
    failed: dict[str, str] = {}
    warnings: list[str] = []
    candidates = timed = reused = 0
    with LatencyTable.open(profile) as table:
        for path in paths:
            prepared = prepare(path, method=method, shapes=shapes, batch=batch, progress=progress)
            result = latencies(prepared, opened, table, seed=seed, progress=progress)
            base[str(path)] = result.base_s * 1e3
            candidates += len(prepared.candidates)
            timed, reused = timed + result.timed, reused + result.reused
            failed.update(result.failed)
            warnings += result.warnings
        where = str(table.path)
    return ProfileReport(where, opened.describe().text(), base, candidates, timed, reused, failed, tuple(warnings))
