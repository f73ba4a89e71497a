"""Work in a process of its own, so that a block that crashes or hangs its backend takes nothing else with it.

    parent: supervisor                                  child: worker
    knows the blocks, builds their models               opens the backend, runs `slopes` on them
      ←─ next? ──────────────────────────────────────
      ── key, label, shapes │ mark │ end ───────────→
      ←─ build key, copies? ─────────────────────────
      ── bytes of the model │ reason ───────────────→
      ←─ result key, value ──────────────────────────     at once, so that the parent can commit it
      ←─ progress, warning, end ─────────────────────

`isolated_builds` is the same with a builder instead of a backend: a block's engine is built and nothing is run.

Should the process end or hang (``_process.py`` sees to that), the block in hand is settled as a failure with the
reason; a fresh worker goes on with the others that had not been settled. The worker starts once and imports only what
it needs. It never outlives the parent: a thread in it waits for the end of the pipe, and should the backend hold
Python's lock, a timer below Python ends the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

from onnx_layermerge.errors import DeviceError, ModelError, OutputError, UsageError
from onnx_layermerge.latency._process import Worker
from onnx_layermerge.latency._records import decode_block
from onnx_layermerge.latency._sampling import Progress, no_progress
from onnx_layermerge.latency._spec import R1, R2, BlockSpec, Store
from onnx_layermerge.latency._statistics import Failure, Value
from onnx_layermerge.latency.backends import Reopen

__all__ = ["BUILD_S", "ERRORS", "HANG_S", "STRIKES", "BuildResult", "isolated_builds", "isolated_slopes"]

HANG_S = 60.0
"""Wall seconds without a sign of life while blocks are timed."""
BUILD_S = 600.0
"""The same while one is built, or the device opened: builders search for minutes and say nothing."""
STRIKES = 3
Settle = Callable[[BlockSpec, Any], None]
ERRORS = {kind.__name__: kind for kind in (DeviceError, OutputError, UsageError)}


def isolated_slopes(
    blocks: Iterable[BlockSpec | None],
    reopen: Reopen,
    *,
    hang_s: float = HANG_S,
    build_s: float = BUILD_S,
    budget_s: float = math.inf,
    total: int | None = None,
    progress: Progress = no_progress,
    store: Store | None = None,
    warn: Callable[[str], None] | None = None,
    **options: float | int | None,
) -> dict[str, Value]:
    """`slopes`, in another process; the clock is the CPU time of that process, or its backend's own.

    Args:
        reopen: how the other process opens the backend.
        hang_s: wall seconds without a sign of life after which the block in hand counts as hung.
        build_s: the same while the backend is opened or builds.
        options: others of `slopes`: cap_s, floor_s, target, group, seed, and so on.

    Raises:
        DeviceError: the device was lost, or no process can be started that opens the backend.
        OutputError, UsageError: the backend cannot write what it was told to, or has not an option it was given.
    """
    if total is None:
        total = len({spec.key for spec in blocks if spec is not None}) if isinstance(blocks, Sized) else 0
    results: dict[str, Value] = {}
    stop_s = time.monotonic() + budget_s

    def words() -> dict[str, Any] | None:
        left_s = stop_s - time.monotonic()
        return {**options, "total": total, "budget_s": None if math.isinf(left_s) else left_s} if left_s > 0 else None

    def settle(spec: BlockSpec, value: Value) -> None:
        results[spec.key] = value
        if store is not None:
            store(spec, value)

    def decode(record: Any, name: str) -> Value:
        return Failure(record) if isinstance(record, str) else decode_block(record, name)

    def show(done: int, of: int, what: str, before: int) -> None:
        progress(done + before * of // max(total or 0, 1), of, what)

    _supervise(
        _Supply(blocks), lambda job: Worker(reopen, "slopes", job, (hang_s, build_s)), words, decode, settle, show, warn
    )
    return results


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """An engine that was built and thrown away, or why there is none.

    Attributes:
        reason: None where it was built.
        engine_bytes: size of the serialized engine.
        layers: kind, ONNX nodes, and whether it only moves a tensor, of each fused layer; () where that is not told.
        seconds, cpu_s: wall seconds, and CPU seconds of the process that built, all threads.
    """

    reason: str | None
    engine_bytes: int = 0
    layers: tuple[tuple[str, tuple[str, ...], bool], ...] = ()
    seconds: float = 0.0
    cpu_s: float = 0.0


def isolated_builds(
    blocks: Iterable[BlockSpec],
    reopen: Reopen,
    *,
    build_s: float = BUILD_S,
    store: Callable[[BlockSpec, BuildResult], None] | None = None,
) -> dict[str, BuildResult]:
    """Build one copy of each block in another process, and run none.

    Args:
        reopen: how the other process opens what builds: a thing with ``build(model, shapes, name)``, which gives
            ``engine`` (bytes) and ``layers`` (each with ``kind``, ``nodes``, ``reformat``).
        build_s: wall seconds after which a build counts as hung.
        store: called with each result as soon as it is there.

    Raises:
        DeviceError: no process can be started that opens the builder.
        OutputError, UsageError: the builder cannot write what it was told to, or has not an option it was given.
    """
    results: dict[str, BuildResult] = {}

    def settle(spec: BlockSpec, value: BuildResult) -> None:
        results[spec.key] = value
        if store is not None:
            store(spec, value)

    _supervise(
        _Supply(blocks),
        lambda job: Worker(reopen, "builds", job, (build_s, build_s)),
        dict,
        lambda record, name: _build_result(record),
        settle,
        lambda done, of, what, before: None,
        None,
    )
    return results


def _build_result(record: str | Mapping[str, Any]) -> BuildResult:
    if isinstance(record, str):
        return BuildResult(record)
    layers = tuple((str(kind), tuple(nodes), bool(reformat)) for kind, nodes, reformat in record["layers"])
    return BuildResult(record["reason"], record["engine_bytes"], layers, record["seconds"], record["cpu_s"])


def _supervise(
    supply: _Supply,
    start: Callable[[dict[str, Any]], Worker],
    words: Callable[[], dict[str, Any] | None],
    decode: Callable[[Any, str], Any],
    settle: Settle,
    progress: Callable[[int, int, str, int], None],
    warn: Callable[[str], None] | None,
) -> None:
    """Start workers until all blocks are settled or there are no ``words`` for another one (out of time)."""
    strikes = settled = 0

    def keep(spec: BlockSpec, record: Any) -> None:
        nonlocal settled
        settled += 1
        supply.settled(spec)
        settle(spec, decode(record, f"block {spec.key}"))

    while not supply.empty():
        job, before = words(), settled
        if job is None:
            return
        with contextlib.closing(start(job)) as worker:

            def show(done: int, of: int, what: str, before: int = before) -> None:
                progress(done, of, what, before)

            end = _attend(worker, supply, keep, show, warn)
            if end is None:
                return
            blamed = supply.handed.get(worker.in_hand())
        if blamed is not None:
            keep(blamed, end)
        strikes = 0 if settled > before else strikes + 1
        if strikes == STRIKES:
            raise DeviceError(
                f"The process that times blocks ended {STRIKES} times without a result ({end}); update the backend, or "
                "use "
                "another --backend."
            )
        supply.again()


class _Supply:
    """Blocks by number; those handed out and not settled are handed out again to the next worker."""

    def __init__(self, blocks: Iterable[BlockSpec | None]) -> None:
        self._rest = iter(blocks)
        self._first: deque[tuple[int, BlockSpec] | None] = deque()
        self._numbers = 0
        self.handed: dict[int, BlockSpec] = {}

    def next(self) -> tuple[int, BlockSpec] | None:
        """The next block with its number, or None for a mark; StopIteration at the end."""
        found = self._first.popleft() if self._first else self._draw()
        if found is not None:
            self.handed[found[0]] = found[1]
        return found

    def _draw(self) -> tuple[int, BlockSpec] | None:
        spec = next(self._rest)
        self._numbers += 1
        return None if spec is None else (self._numbers, spec)

    def empty(self) -> bool:
        """Whether no block is left."""
        while not any(self._first):
            try:
                self._first.append(self._draw())
            except StopIteration:
                return True
        return False

    def settled(self, spec: BlockSpec) -> None:
        """The block need not be handed out again."""
        self.handed = {number: other for number, other in self.handed.items() if other.key != spec.key}

    def again(self) -> None:
        """Hand out what was not settled before anything else."""
        self._first.extendleft(reversed(self.handed.items()))
        self.handed = {}


def _attend(
    worker: Worker,
    supply: _Supply,
    settle: Settle,
    progress: Progress,
    warn: Callable[[str], None] | None,
) -> str | None:
    """Answer the worker until it is through (None) or gone (the reason, to be shown for the block in hand)."""
    while True:
        message = worker.receive()
        kind = message.get("kind")
        if kind == "next":
            try:
                drawn = supply.next()
            except StopIteration:
                worker.send({"end": True})
            else:
                worker.send({"mark": True} if drawn is None else _described(*drawn))
        elif kind == "build":
            try:
                model = supply.handed[message["number"]].build(message["copies"])
            except ModelError as error:
                worker.send({"error": str(error)})
            else:
                worker.send({"size": len(model)}, model)
        elif kind == "result":
            settle(supply.handed[message["number"]], message["value"])
        elif kind == "progress":
            progress(message["done"], message["total"], message["what"])
        elif kind == "warning" and warn is not None:
            warn(message["text"])
        elif kind == "error":
            raise ERRORS[message["name"]](message["text"])
        elif kind in ("gone", "fault"):
            return str(message["text"])
        elif kind == "end":
            return None


def _described(number: int, spec: BlockSpec) -> dict[str, Any]:
    return {
        "number": number,
        "key": spec.key,
        "label": spec.label,
        "shapes": {str(copies): {n: list(dims) for n, dims in spec.shapes(copies).items()} for copies in (R1, R2)},
        "ceiling_s": None if math.isinf(spec.ceiling_s) else spec.ceiling_s,
    }
