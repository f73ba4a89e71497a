"""What each candidate would save on the device: blocks timed, or read from the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic as now_s

from onnx_layermerge.flow._in_place import in_place
from onnx_layermerge.flow._prepare import Prepared, Progress, quiet
from onnx_layermerge.flow._queue import Queue, Tally
from onnx_layermerge.flow._sheet import Sheet, sheet_of
from onnx_layermerge.flow._timed import LEAST_GAIN, LEAST_SHARE, Timed, timed_of
from onnx_layermerge.graph import runnable_form, to_bytes
from onnx_layermerge.latency import Backend, LatencyTable, compare, fill
from onnx_layermerge.verify import structure_key

__all__ = ["base_latency", "latencies", "latencies_of"]


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
        known = compare(
            backend,
            data,
            None,
            prepared.bound,
            cap_s=cap_s,
            progress=lambda done, total, what: progress("base", done, total, what),
        )
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
    timed = []
    for sheet, base_s in sheets:
        promised = replace(timed_of(sheet, base_s, values), warnings=tuple(warnings))
        timed.append(in_place(sheet.prepared, promised, backend, table, stop_s=stop_s, progress=progress))
    return timed, queue.tally, left
