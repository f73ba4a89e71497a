"""Measure what a table lacks: the step between the candidates and the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized

from onnx_layermerge.latency._clock import Clock
from onnx_layermerge.latency._compare import release
from onnx_layermerge.latency._json_form import Entry
from onnx_layermerge.latency._protocol import slopes
from onnx_layermerge.latency._sampling import Progress, clock_of, no_progress
from onnx_layermerge.latency._spec import BlockSpec, Store
from onnx_layermerge.latency._statistics import Bound, Failure, Value
from onnx_layermerge.latency._supervisor import BUILD_S, HANG_S, isolated_slopes
from onnx_layermerge.latency._table import LatencyTable
from onnx_layermerge.latency.backends import Backend

__all__ = ["answers", "fill"]

# From so few rounds on, an interval that is narrow against the whole network is narrow enough.
FLOOR_ROUNDS = 12


def answers(known: Value | None, ceiling_s: float = math.inf) -> bool:
    """Whether an entry says all that is asked: the cost, or that it is above ``ceiling_s``, or why there is none."""
    return known is not None and (not isinstance(known, Bound) or known.at_least_s > ceiling_s)


def fill(
    table: LatencyTable,
    backend: Backend,
    blocks: Iterable[BlockSpec | None],
    *,
    cap_s: float = 0.6,
    floor_s: float = 0.0,
    budget_s: float = math.inf,
    seed: int = 0,
    total: int | None = None,
    retry_failed: bool = False,
    isolate: bool = True,
    hang_s: float = HANG_S,
    build_s: float | None = None,
    clock: Clock | None = None,
    progress: Progress = no_progress,
    store: Store | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Entry]:
    """Return an entry for every block, timing only those the table does not have for this device.

    Each result is committed as soon as it is there, and ``store`` called after it. Blocks known to fail
    are not tried again unless `retry_failed` is set; a bound answers for a block with a lower ceiling.
    The other arguments and the errors are those of `slopes`, which runs in a process of its own if the
    backend can be opened there (`Backend.reopen`) and the clock is the usual one, unless `isolate` is off;
    ``hang_s`` is how long such a process may do nothing, and ``build_s`` how long while it builds (None: the backend's
    ``build_limit_s``). Blocks for which ``budget_s`` was too short are missing
    in what is returned.
    """
    device = backend.describe()
    asked: list[str] = []

    def missing() -> Iterator[BlockSpec | None]:
        for block in blocks:
            if block is None:
                yield None
                continue
            asked.append(block.key)
            entry = table.get(device, block.key)
            known = None if entry is None else entry.value
            if not answers(known, block.ceiling_s) or (retry_failed and isinstance(known, Failure)):
                release(backend)  # one process at a time has the device
                yield block

    def keep(spec: BlockSpec, value: Value) -> None:
        stored = table.put(device, spec.key, spec.label, value)
        if store is not None:
            store(spec, stored)

    # A list is looked through at once, so that nothing is started when nothing is missing.
    lacking: Iterable[BlockSpec | None] = list(missing()) if isinstance(blocks, Sized) else missing()
    reopen = getattr(backend, "reopen", None)
    if isolate and reopen is not None and clock is None:
        isolated_slopes(
            lacking,
            reopen,
            hang_s=hang_s,
            build_s=getattr(backend, "build_limit_s", BUILD_S) if build_s is None else build_s,
            cap_s=cap_s,
            floor_s=floor_s,
            floor_rounds=FLOOR_ROUNDS,
            budget_s=budget_s,
            seed=seed,
            total=total,
            progress=progress,
            store=keep,
            warn=warn,
        )
    else:
        slopes(
            lacking,
            backend,
            cap_s=cap_s,
            floor_s=floor_s,
            floor_rounds=FLOOR_ROUNDS,
            budget_s=budget_s,
            seed=seed,
            total=total,
            clock=clock or clock_of(backend),
            progress=progress,
            store=keep,
            warn=warn,
        )
    entries = table.entries(device)
    return {key: entries[key] for key in asked if key in entries}
