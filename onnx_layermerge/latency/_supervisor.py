"""Timing in a process of its own, so that a block that crashes or hangs its backend takes nothing else with it.

    parent: supervisor                                  child: worker
    knows the blocks, builds their models               opens the backend, runs `slopes` on them
      ←─ next? ──────────────────────────────────────
      ── key, label, shapes │ mark │ end ───────────→
      ←─ build key, copies? ─────────────────────────
      ── bytes of the model │ reason ───────────────→
      ←─ result key, value ──────────────────────────     at once, so that the parent can commit it
      ←─ progress, warning, end ─────────────────────

Frames are a length, JSON, and (for a model) its bytes. Beside them both map one small file: the worker
writes into it which block it has in hand and a count that moves with every reading of its clock. So

1. a process that ends unasked (a signal, an exit inside a library, the system short of memory) leaves behind
   whose fault it was;
2. a count that stands still for ``hang_s`` is a hang, and again it is known on what.

That block is settled as a `Failure` with the reason; a fresh worker times the others that had not been
settled. The worker starts once and imports only what it needs. It never outlives the parent: a thread in it waits
for the end of the pipe, and should the backend hold Python's lock, a timer below Python ends the process.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any, BinaryIO

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency._frames import SHARED, read_frame, write_frame
from onnx_layermerge.latency._protocol import R1, R2, BlockSpec, Store
from onnx_layermerge.latency._records import decode_block
from onnx_layermerge.latency._sampling import Progress, no_progress
from onnx_layermerge.latency._statistics import Failure, Value
from onnx_layermerge.latency.backends import Reopen

__all__ = ["HANG_S", "isolated_slopes"]

HANG_S = 60.0
STRIKES = 3
_POLL_S = 0.5
# The package's own __init__ imports every room; the worker needs this one.
_START = """
import sys, types
sys.path[:] = sys.argv[2:]
package = types.ModuleType("onnx_layermerge")
package.__path__ = [sys.argv[1]]
sys.modules["onnx_layermerge"] = package
from onnx_layermerge.latency._worker import serve
serve()
"""


def isolated_slopes(
    blocks: Iterable[BlockSpec | None],
    reopen: Reopen,
    *,
    hang_s: float = HANG_S,
    budget_s: float = math.inf,
    total: int | None = None,
    progress: Progress = no_progress,
    store: Store | None = None,
    warn: Callable[[str], None] | None = None,
    **options: float | int | None,
) -> dict[str, Value]:
    """`slopes`, in another process; the clock is the CPU time of that process.

    Args:
        reopen: how the other process opens the backend.
        hang_s: wall seconds without a sign of life after which the block in hand counts as hung.
        options: others of `slopes`: cap_s, floor_s, target, group, seed, and so on.

    Raises:
        DeviceError: the device was lost, or no process can be started that opens the backend.
    """
    if total is None:
        total = len({spec.key for spec in blocks if spec is not None}) if isinstance(blocks, Sized) else 0
    supply = _Supply(blocks)
    results: dict[str, Value] = {}
    stop_s, strikes = time.monotonic() + budget_s, 0

    def settle(spec: BlockSpec, value: Value) -> None:
        results[spec.key] = value
        supply.settled(spec)
        if store is not None:
            store(spec, value)

    while not supply.empty():
        left_s = stop_s - time.monotonic()
        if left_s <= 0:
            break
        before = len(results)
        words = {**options, "total": total, "budget_s": None if math.isinf(left_s) else left_s}
        with contextlib.closing(_Worker(reopen, words, hang_s)) as worker:

            def show(done: int, of: int, what: str, before: int = before) -> None:
                progress(done + before * of // max(total, 1), of, what)

            end = _attend(worker, supply, settle, show, warn)
            if end is None:
                break
            blamed = supply.handed.get(worker.in_hand())
        if blamed is not None:
            settle(blamed, Failure(end))
        strikes = 0 if len(results) > before else strikes + 1
        if strikes == STRIKES:
            raise DeviceError(f"The process that times blocks ended {STRIKES} times without a result ({end}).")
        supply.again()
    return results


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
    worker: _Worker,
    supply: _Supply,
    settle: Store,
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
            spec = supply.handed[message["number"]]
            settle(spec, decode_block(message["value"], f"block {spec.key}"))
        elif kind == "progress":
            progress(message["done"], message["total"], message["what"])
        elif kind == "warning" and warn is not None:
            warn(message["text"])
        elif kind == "device":
            raise DeviceError(message["text"])
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


class _Worker:
    """The other process, seen from this one."""

    def __init__(self, reopen: Reopen, options: dict[str, Any], hang_s: float) -> None:
        self._hang_s = hang_s
        handle, name = tempfile.mkstemp(prefix="olm-")
        os.write(handle, SHARED.pack(-1, 0))
        self._shared = mmap.mmap(handle, SHARED.size)
        os.close(handle)
        self._shared_path = Path(name)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        command = [sys.executable, "-I", "-c", _START, str(Path(__file__).parents[1]), *filter(None, sys.path)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Ctrl-C reaches this process alone, which ends the other one.
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            raise DeviceError(f"No process can be started to time blocks in ({error.strerror}).") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._out: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._frames: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._ready = False
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.send(
            {
                "backend": [reopen.function, *reopen.words],
                "options": options,
                "hang_s": hang_s,
                "shared": name,
            }
        )

    def _read(self, pipe: BinaryIO) -> None:
        try:
            while (frame := read_frame(pipe)) is not None:
                self._frames.put(frame)
        finally:
            self._frames.put(None)

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Write a frame; that the process is gone shows when its answer is waited for."""
        with contextlib.suppress(OSError):
            write_frame(self._out, message, payload)

    def receive(self) -> dict[str, Any]:
        """The next message; of kind ``gone``, with the reason, when the process ended or hangs."""
        beat, since = self._beat(), time.monotonic()
        while True:
            try:
                frame = self._frames.get(timeout=_POLL_S)
            except queue.Empty:
                now = self._beat()
                if now != beat:
                    beat, since = now, time.monotonic()
                elif time.monotonic() - since > self._hang_s:
                    return {"kind": "gone", "text": f"hung for {self._hang_s:g} s"}
                continue
            if frame is None:
                return {"kind": "gone", "text": self._why()}
            if not self._ready:
                self._ready = True
                with contextlib.suppress(OSError):  # both have it open by now
                    self._shared_path.unlink()
            return frame

    def in_hand(self) -> int:
        """Number of the block that was about to be built or run; -1 for none."""
        number: int = SHARED.unpack(self._shared[:])[0]
        return number

    def close(self) -> None:
        """End the process, however it is doing; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._out.close()
        self._release()

    def _release(self) -> None:
        self._shared.close()
        self._errors.close()
        with contextlib.suppress(OSError):
            self._shared_path.unlink()

    def _beat(self) -> int:
        count: int = SHARED.unpack(self._shared[:])[1]
        return count

    def _why(self) -> str:
        """How the process ended, in words; raises DeviceError if it never began."""
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        last = f": {said[-1].strip()[:200]}" if said else ""
        if not self._ready:
            raise DeviceError(f"The process that times blocks could not be started{last}.")
        if code >= 0:
            return f"the backend ended its process (exit code {code}){last}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return "killed by SIGKILL, as the system does when memory runs out"
        return f"crashed ({name}){last if name == 'SIGABRT' else ''}"
