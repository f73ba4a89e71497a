"""File → everything a plan needs: network, candidates, and what each would save on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.candidates import METHODS, Candidate, cost_macs, enumerate_candidates
from onnx_layermerge.errors import ModelError, TargetError, UsageError
from onnx_layermerge.fit import FITTED
from onnx_layermerge.graph import Network, Refusal, bind_shapes, read, to_bytes, trace_shapes
from onnx_layermerge.latency import Backend, BlockSpec, Failure, LatencyTable, fill, interleave
from onnx_layermerge.latency.blocks import region_block, replacement_block
from onnx_layermerge.verify import structure_key

__all__ = ["Prepared", "Progress", "Timed", "check_speedup", "data_batch", "latencies", "prepare", "quiet", "useful"]

Progress = Callable[[str, int, int, str], None]

# More arithmetic than this times the original's cannot be made up for by fewer launches on any device.
MOST_MACS = 16.0
# METHOD §3: a candidate that is not clearly faster than what it replaces is never fitted.
LEAST_GAIN = 0.03
# A saving below this share of the whole network is not worth an entry in a plan.
LEAST_SHARE = 0.002


def quiet(stage: str, done: int, total: int, what: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Prepared:
    """A network with its legal candidates; ``shapes`` are the traced shapes of all values for the bound inputs."""

    network: Network
    bound: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Timed:
    """Seconds each candidate would save (old − new), by key; ``failed`` names those the backend could not time."""

    savings_s: Mapping[str, float]
    replaced_s: Mapping[str, float]
    base_s: float
    timed: int
    reused: int
    failed: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def data_batch(network: Network) -> int:
    """Samples to run at once: the model's own batch size where it is fixed, else 16.

    Where only an output says so (a Reshape to a fixed size inside), that counts as well.

    Raises:
        ModelError: the inputs contradict each other.
    """
    fixed = {info.shape[0] for info in network.inputs if info.shape and isinstance(info.shape[0], int)}
    written = [value.shape[0] for value in network.model.graph.outputs if value.shape]
    if not fixed and any(isinstance(size, int) for size in written):
        return min(size for size in written if isinstance(size, int))
    if len(fixed) > 1:
        raise ModelError(f"the inputs count their samples differently (first axes {sorted(fixed)}); export one axis.")
    return fixed.pop() if fixed else 16


def prepare(
    path: str | Path,
    *,
    method: str = "olm",
    fitting: bool = True,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    progress: Progress = quiet,
) -> Prepared:
    """Read ``path`` and list what may stand in for what; without ``fitting`` (no data) a method that fits only drops.

    Raises:
        ModelError: the model cannot be read.
        UsageError: unknown method, or dynamic dims without ``shapes``.
    """
    if method not in METHODS:
        raise UsageError(f"--method {method} is unknown; choose from {', '.join(METHODS)}.")
    progress("read", 0, 1, str(path))
    network = read(path, shapes=shapes)
    bound = bind_shapes(network.inputs, shapes or {}, batch=batch)
    traced = trace_shapes(network, bound)
    kinds = METHODS[method]
    if not fitting and any(kind in FITTED for kind in kinds):
        kinds = METHODS["drop"]
    found, refusals = enumerate_candidates(network, kinds=kinds)
    candidates = tuple(candidate for candidate in found if _worth_timing(network, candidate, traced))
    progress("read", 1, 1, f"{len(candidates)} candidates")
    return Prepared(network, bound, traced, data_batch(network), candidates, refusals)


def _worth_timing(network: Network, candidate: Candidate, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    region = candidate.region
    replaced = network.cost_macs(region.start, region.stop, dict(shapes))
    return cost_macs(candidate, shapes[region.entry]) <= MOST_MACS * replaced


def base_latency(prepared: Prepared, backend: Backend, table: LatencyTable, progress: Progress = quiet) -> float:
    """Seconds of the whole model on the device (read from the table when it is there)."""
    data = to_bytes(prepared.network.model)
    key = structure_key(data, prepared.bound)
    known = table.get_pair(backend.describe(), key, key)
    if known is None:
        a, b = backend.build(data, prepared.bound), backend.build(data, prepared.bound)
        try:
            known = interleave(a, b, cap_s=8.0, progress=lambda done, total, what: progress("base", done, total, what))
        finally:
            a.close()
            b.close()
        table.put_pair(backend.describe(), key, key, known)
    return known.a_s


def latencies(
    prepared: Prepared, backend: Backend, table: LatencyTable, *, seed: int = 0, progress: Progress = quiet
) -> Timed:
    """Time every block that the table lacks; savings of all candidates."""
    warnings: list[str] = []
    base_s = base_latency(prepared, backend, table, progress)
    pairs: dict[str, tuple[BlockSpec, BlockSpec]] = {}
    specs: dict[str, BlockSpec] = {}
    regions: dict[tuple[int, int, str], BlockSpec] = {}
    structures: dict[str, BlockSpec] = {}
    for candidate in prepared.candidates:
        region = candidate.region
        where = (region.start, region.stop, region.exit)
        if where not in regions:
            regions[where] = region_block(prepared.network, region, prepared.shapes)
        if candidate.structure not in structures:
            structures[candidate.structure] = replacement_block(prepared.network, candidate, prepared.shapes)
        old, new = regions[where], structures[candidate.structure]
        pairs[candidate.key] = (old, new)
        specs.setdefault(old.key, old)
        specs.setdefault(new.key, new)
    device = backend.describe()
    reused = sum(table.get(device, key) is not None for key in specs)
    entries = fill(
        table,
        backend,
        list(specs.values()),
        seed=seed,
        floor_s=LEAST_SHARE * base_s / 2,
        progress=lambda done, total, what: progress("time", done, total, what),
        warn=warnings.append,
    )
    savings, replaced, failed = {}, {}, {}
    for key, (old, new) in pairs.items():
        before, after = entries[old.key].value, entries[new.key].value
        for value in (before, after):
            if isinstance(value, Failure):
                failed[key] = value.reason
        if isinstance(before, Failure) or isinstance(after, Failure):
            continue
        savings[key] = before.seconds - after.seconds
        replaced[key] = before.seconds
    return Timed(savings, replaced, base_s, len(specs) - reused, reused, failed, tuple(warnings))


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


def check_speedup(speedup: float) -> None:
    """Raises UsageError unless the wanted speed-up is a finite number above 1."""
    if not 1.0 < speedup < float("inf"):
        raise UsageError(f"--speedup {speedup:g} makes no sense; give a number above 1, such as 1.5.")
