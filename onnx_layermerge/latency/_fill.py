"""Measure what a table lacks: the step between the candidates and the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx_layermerge.latency._json_form import Entry
from onnx_layermerge.latency._protocol import BlockSpec, slopes
from onnx_layermerge.latency._sampling import Clock, Progress, cpu_clock, no_progress
from onnx_layermerge.latency._statistics import Failure, Measurement
from onnx_layermerge.latency._table import LatencyTable
from onnx_layermerge.latency.backends import Backend


def fill(
    table: LatencyTable,
    backend: Backend,
    blocks: Sequence[BlockSpec],
    *,
    cap_s: float = 0.6,
    floor_s: float = 0.0,
    seed: int = 0,
    retry_failed: bool = False,
    clock: Clock = cpu_clock,
    progress: Progress = no_progress,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Entry]:
    """Return an entry for every block, timing only those the table does not have for this device.

    Each result is committed as soon as it is there. Blocks known to fail are not tried again
    unless `retry_failed` is set. The other arguments and the errors are those of `slopes`.
    """
    device = backend.describe()
    missing = []
    for block in blocks:
        known = table.get(device, block.key)
        if known is None or (retry_failed and isinstance(known.value, Failure)):
            missing.append(block)

    def store(spec: BlockSpec, value: Measurement | Failure) -> None:
        table.put(device, spec.key, spec.label, value)

    if missing:
        slopes(
            missing,
            backend,
            cap_s=cap_s,
            floor_s=floor_s,
            seed=seed,
            clock=clock,
            progress=progress,
            store=store,
            warn=warn,
        )
    entries = table.entries(device)
    return {block.key: entries[block.key] for block in blocks}
