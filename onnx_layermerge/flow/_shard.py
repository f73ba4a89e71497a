"""A part of the blocks' scores alone, for a run that is spread over machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.data import ImageOptions
from onnx_layermerge.fit import on_one_thread
from onnx_layermerge.flow._compress import opened_backend
from onnx_layermerge.flow._data import open_samples
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._importance import scored_by_training
from onnx_layermerge.flow._judged import judges
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._prepare import Progress, prepare, quiet
from onnx_layermerge.flow._recorded import mismatch, recorded
from onnx_layermerge.flow._timed import useful
from onnx_layermerge.flow._training_words import TrainingWords
from onnx_layermerge.latency import Backend, EngineOptions, LatencyTable

__all__ = ["ShardReport", "score_shard"]


@dataclass(frozen=True)
class ShardReport:
    """``blocks`` of the shard are in ``file`` now, or in another that was given; ``trained`` of them by this run."""

    input: str
    file: str
    shard: tuple[int, int]
    blocks: int
    trained: int
    seconds: float
    warnings: tuple[str, ...]


@on_one_thread
def score_shard(
    input: str | Path,
    *,
    importance: str | Path | Sequence[str | Path],
    shard: tuple[int, int],
    calib: object,
    val: object = None,
    images: ImageOptions | None = None,
    samples: int = 1024,
    metric: str | Callable[..., float] | None = None,
    method: str = "layermerge",
    device: str = "cpu",
    backend: str | Backend = "onnxruntime",
    precision: str = "fp32",
    profile: str | Path | None = None,
    allow_mismatch: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    effort: str = "normal",
    importance_steps: int | None = None,
    importance_lr: float | None = None,
    norms: bool = False,
    finetune_device: str | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> ShardReport:
    """Score every N-th block as ``compress`` with ``finetune`` does, and end there.

    All parts are of one run where everything but ``shard`` and ``importance`` is the same; ``compress`` is then given
    the files of all of them.  Blocks that are no faster here are left out, so each part has to see the same times: give
    all the same ``profile``.

    Args:
        importance: files; the first is added to, what any of them has is not scored again.
        shard: number of the part, from 1, and how many there are.

    Raises:
        OlmError: with one sentence and an exit code; what was scored before stays in the file.
    """
    began = time.monotonic()
    training = TrainingWords(
        importance=importance,
        importance_steps=importance_steps,
        importance_lr=importance_lr,
        finetune_device=finetune_device,
        norms=norms or None,
    )
    wanted = training.wanted(method, calib, shard)
    trying = effort_of(effort)
    opened = opened_backend(backend, device, precision, engines)
    other = mismatch(profile, opened.describe(), allow=allow_mismatch)
    prepared = prepare(input, method=method, shapes=shapes, batch=batch, engines=engines, progress=progress)
    data = open_samples(prepared, calib, val, images, samples, seed)
    if data.fit is None:  # there is a --calib
        raise ValueError("a training needs data")
    by = judges(prepared, metric, None, None, progress)
    with LatencyTable.open(profile) as table:
        if other is None:
            timed = latencies(prepared, opened, table, seed=seed, progress=progress)
        else:
            timed = recorded(prepared, other, table).timed
    found, trained = scored_by_training(
        prepared,
        useful(prepared, timed),
        data.fit,
        data.validation,
        wanted,
        metric=by.metric,
        effort=trying,
        seed=seed,
        taken=[Path(each) for each in (input, profile) if each is not None],
        progress=progress,
    )
    return ShardReport(
        str(input),
        str(wanted.files[0]),
        shard,
        len(found),
        trained,
        round(time.monotonic() - began, 3),
        (*data.warnings, *timed.warnings),
    )
