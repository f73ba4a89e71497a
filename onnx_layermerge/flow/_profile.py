"""Fill the latency table for models, without planning anything; or say what it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.errors import UsageError
from onnx_layermerge.flow._latencies import latencies_of
from onnx_layermerge.flow._prepare import Progress, prepare, quiet
from onnx_layermerge.latency import (
    BackendStatus,
    Bound,
    EngineOptions,
    Failure,
    LatencyTable,
    available_backends,
    default_path,
    open_backend,
    time_text,
)

__all__ = ["Held", "Overview", "ProfileReport", "overview", "profile"]


@dataclass(frozen=True)
class ProfileReport:
    """What is now in the table for these models; ``base_ms`` is the whole model's time by path.

    Of the blocks of all models, each counted once, ``timed`` were measured now (or failed now, see ``failed``) and
    ``reused`` were there; ``bounded`` were given up after a look, now or earlier; ``skipped`` are known to be too slow
    without one; ``left`` names those that the budget left out, the most useful first, and ``models_left`` the models.
    """

    profile: str
    device: str
    base_ms: Mapping[str, float]
    candidates: int
    timed: int
    reused: int
    failed: Mapping[str, str]
    warnings: tuple[str, ...]
    bounded: int = 0
    skipped: int = 0
    left: tuple[str, ...] = ()
    models_left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """What a table holds for one device: blocks, and of them failures and bounds; ``newest`` in UTC."""

    device: str
    blocks: int
    failures: int
    bounds: int
    models: int
    newest: str | None


@dataclass(frozen=True)
class Overview:
    """The backends of this machine with their device, and what the table holds for every device it knows."""

    profile: str
    backends: tuple[BackendStatus, ...]
    held: tuple[Held, ...]


def profile(
    paths: Sequence[str | Path],
    *,
    device: str = "cpu",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    profile: str | Path | None = None,
    method: str = "olm",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> ProfileReport:
    """Time the blocks of every model that the table lacks; each result is committed as it comes.

    Args:
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``, in which the backend computes.  Models are cast when they
            are built for the device; files keep their own types.
        engines: how the TensorRT backends build; ranges of shapes there need no ``shapes`` beside them.
        budget_s: wall seconds after which to stop; the most useful blocks of all models come first then.

    Raises:
        OlmError: with one sentence and an exit code; what was measured until then is kept.
    """
    if not paths:
        raise UsageError("name at least one model to profile.")
    if budget_s is not None and not 0 < budget_s < math.inf:
        raise UsageError(f"--budget {budget_s:g} s makes no sense; give a time such as 30s, 10m or 1h.")
    opened = open_backend(backend, device, precision, engines)
    with LatencyTable.open(profile) as table:
        models = [
            prepare(path, method=method, shapes=shapes, batch=batch, engines=engines, progress=progress)
            for path in paths
        ]
        budget = math.inf if budget_s is None else budget_s
        timed, tally, left = latencies_of(models, opened, table, seed=seed, budget_s=budget, progress=progress)
        where = str(table.path)
    failed = {key: reason for each in timed for key, reason in each.failed.items()}
    names = [str(path) for path in paths]
    return ProfileReport(
        profile=where,
        device=opened.describe().text(),
        base_ms={name: each.base_s * 1e3 for name, each in zip(names, timed, strict=False)},
        candidates=sum(len(each.candidates) for each in models),
        timed=tally.timed,
        reused=tally.reused,
        failed=failed,
        warnings=tuple(dict.fromkeys(text for each in timed for text in each.warnings)),
        bounded=tally.bounded,
        skipped=tally.skipped,
        left=tuple(left),
        models_left=tuple(names[len(timed) :]),
    )


def overview(
    *,
    device: str = "cpu",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    engines: EngineOptions | None = None,
    profile: str | Path | None = None,
) -> Overview:
    """What could be profiled on here, and what has been; a table that does not exist is empty and not created.

    Raises:
        DeviceError: there is no such device or backend.
        ProfileError: the table is damaged.
    """
    open_backend(backend, device, precision, engines)
    path = Path(profile) if profile is not None else default_path()
    held = []
    if path.exists():
        with LatencyTable.open(path) as table:
            for section in table.sections():
                times = [entry.at_s for entry in section.entries] + [pair.at_s for pair in section.pairs]
                values = [entry.value for entry in section.entries]
                held.append(
                    Held(
                        device=section.device.text(),
                        blocks=len(values),
                        failures=sum(isinstance(value, Failure) for value in values),
                        bounds=sum(isinstance(value, Bound) for value in values),
                        models=sum(pair.key_a == pair.key_b for pair in section.pairs),
                        newest=time_text(max((at_s for at_s in times if at_s is not None), default=None)),
                    )
                )
    return Overview(str(path), available_backends(), tuple(held))
