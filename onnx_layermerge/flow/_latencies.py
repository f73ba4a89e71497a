"""What each candidate would save on the device: blocks timed, or read from the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic as now_s

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.errors import TargetError
from onnx_layermerge.flow._prepare import Prepared, Progress, quiet
from onnx_layermerge.flow._queue import Queue, Tally
from onnx_layermerge.flow._sheet import Sheet, sheet_of
from onnx_layermerge.graph import runnable_form, to_bytes
from onnx_layermerge.latency import Backend, Failure, LatencyTable, Measurement, Value, clock_of, fill, interleave
from onnx_layermerge.verify import structure_key

__all__ = ["LEAST_GAIN", "LEAST_SHARE", "Timed", "base_latency", "latencies", "latencies_of", "useful"]

# METHOD §3: a candidate that is not clearly faster than what it replaces is never fitted.
LEAST_GAIN = 0.03
# A saving below this share of the whole network is not worth an entry in a plan.
LEAST_SHARE = 0.002


@dataclass(frozen=True)
class Timed:
    """Seconds each candidate would save (old − new), by key; ``failed`` names those the backend could not time.

    A candidate in neither is too slow to be of use, or was left out for lack of time.  Of the blocks, ``bounded`` were
    given up after a look, in this run or an earlier one, and ``skipped`` without any.
    """

    savings_s: Mapping[str, float]
    replaced_s: Mapping[str, float]
    base_s: float
    timed: int
    reused: int
    failed: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    bounded: int = 0
    skipped: int = 0


def base_latency(
    prepared: Prepared,
    backend: Backend,
    table: LatencyTable,
    progress: Progress = quiet,
    *,
    key: str = "",
    cap_s: float = 8.0,
) -> float:
    """Seconds of the whole model on the device (read from the table when it is there); ``key`` is its structure's."""
    if not key:
        key = structure_key(to_bytes(prepared.network.model), prepared.bound)
    known = table.get_pair(backend.describe(), key, key)
    if known is None:
        data = runnable_form(prepared.network.model)
        a, b = backend.build(data, prepared.bound), backend.build(data, prepared.bound)
        try:
            known = interleave(
                a,
                b,
                clock=clock_of(backend),
                cap_s=cap_s,
                progress=lambda done, total, what: progress("base", done, total, what),
            )
        finally:
            a.close()
            b.close()
        known = table.put_pair(backend.describe(), key, key, known)
    return known.a_s


def latencies(
    prepared: Prepared, backend: Backend, table: LatencyTable, *, seed: int = 0, progress: Progress = quiet
) -> Timed:
    """Time every block that the table lacks; savings of all candidates that are not known to be of no use."""
    (timed,), tally, _ = latencies_of([prepared], backend, table, seed=seed, progress=progress)
    return replace(
        timed, timed=tally.timed, reused=tally.reused, bounded=tally.bounded, skipped=tally.skipped
    )


def latencies_of(
    models: Sequence[Prepared],
    backend: Backend,
    table: LatencyTable,
    *,
    seed: int = 0,
    budget_s: float = math.inf,
    progress: Progress = quiet,
) -> tuple[list[Timed], Tally, list[str]]:
    """Time several models in one go: what they share once, and what is most useful first if ``budget_s`` is finite.

    Returns:
        Each model's times (of those whose whole latency fitted into the budget, the first ones), how many blocks were
        timed, reused, bounded and skipped for all of them, and the labels of those that the budget left out.

    Raises:
        UsageError: the budget is too short for anything.
        DeviceError: the device was lost.
    """
    stop_s = now_s() + budget_s
    warnings: list[str] = []
    sheets: list[tuple[Sheet, float]] = []
    for prepared in models:
        if sheets and now_s() >= stop_s:
            break
        sheet = sheet_of(prepared)
        cap_s = min(8.0, max(0.5, stop_s - now_s()))
        sheets.append((sheet, base_latency(prepared, backend, table, progress, key=sheet.base, cap_s=cap_s)))
    device = backend.describe()
    queue = Queue(
        sheets, table, device, least_gain=LEAST_GAIN, least_share=LEAST_SHARE, hurried=not math.isinf(budget_s)
    )

    def show(done: int, total: int, what: str) -> None:
        progress("time", queue.tally.done, queue.tally.total, f"{queue.tally.words()}; {what}")

    if now_s() < stop_s:
        fill(
            table,
            backend,
            iter(queue),
            seed=seed,
            floor_s=LEAST_SHARE * min(base_s for _, base_s in sheets) / 2,
            budget_s=stop_s - now_s(),
            total=queue.tally.total,
            progress=show,
            store=queue.stored,
            warn=warnings.append,
        )
    left = queue.left()
    progress("time", queue.tally.total, queue.tally.total, queue.tally.words())
    values = {key: entry.value for key, entry in table.entries(device).items()}
    timed = [_timed(sheet, base_s, values, tuple(warnings)) for sheet, base_s in sheets]
    return timed, queue.tally, left


def _timed(sheet: Sheet, base_s: float, values: Mapping[str, Value], warnings: tuple[str, ...]) -> Timed:
    savings, replaced, failed = {}, {}, {}
    for use in sheet.uses:
        before, after = values.get(use.old), values.get(use.new)
        for value in (before, after):
            if isinstance(value, Failure):
                failed[use.candidate.key] = value.reason
        if isinstance(before, Measurement) and isinstance(after, Measurement):
            savings[use.candidate.key] = before.seconds - after.seconds
            replaced[use.candidate.key] = before.seconds
    return Timed(savings, replaced, base_s, 0, 0, failed, warnings)


def useful(prepared: Prepared, timed: Timed) -> list[Candidate]:
    """Candidates that save enough to be fitted.

    Raises:
        TargetError: nothing in the model is worth replacing on this device.
    """
    kept = []
    for candidate in prepared.candidates:
        saving = timed.savings_s.get(candidate.key, 0.0)
        if saving >= max(LEAST_GAIN * timed.replaced_s.get(candidate.key, 0.0), LEAST_SHARE * timed.base_s):
            kept.append(candidate)
    if not kept:
        raise TargetError("no replacement is faster than what it replaces here; the best measured speed-up is 1.00×.")
    return kept
