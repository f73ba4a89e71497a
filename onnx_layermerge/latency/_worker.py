"""The process in which blocks are timed; see ``_supervisor.py``, which starts it and knows the rest.

It imports only what timing needs: no ONNX library, no graph.
"""

from __future__ import annotations

import faulthandler
import importlib
import math
import mmap
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency._clock import Clock, Instant, cpu_clock
from onnx_layermerge.latency._frames import SHARED, read_frame, write_frame
from onnx_layermerge.latency._protocol import BlockSpec, slopes
from onnx_layermerge.latency._records import encode
from onnx_layermerge.latency._sampling import clock_of

__all__ = ["serve"]

_PROGRESS_S = 0.1


def serve() -> None:
    """Be the worker: read the job from standard input, answer on standard output, then end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the frames
    link = _Link(os.fdopen(0, "rb", closefd=False), answers)
    job = link.receive()
    with open(job["shared"], "r+b") as file:
        shared = mmap.mmap(file.fileno(), SHARED.size)
    vitals = link.vitals = _Vitals(shared, job["hang_s"])
    try:
        module, _, name = job["backend"][0].partition(":")
        backend = getattr(importlib.import_module(module), name)(*job["backend"][1:])
        vitals.read = clock_of(backend)
        options = job["options"]
        if options["budget_s"] is None:
            options["budget_s"] = math.inf
        numbers: dict[str, int] = {}
        slopes(
            link.blocks(numbers),
            backend,
            clock=vitals.clock,
            hand=lambda key: vitals.hold(-1 if key is None else numbers[key]),
            progress=link.progress,
            store=lambda spec, value: link.tell(
                "result", number=numbers[spec.key], value=encode(value, f"block {spec.key}")
            ),
            warn=lambda text: link.tell("warning", text=text),
            **options,
        )
    except DeviceError as error:
        link.tell("device", text=str(error))
    except Exception as error:  # whatever a backend raises is a fact about the block in hand
        text = " ".join(str(error).split())
        link.tell("fault", text=f"{type(error).__name__}: {text}" if text else type(error).__name__)
    else:
        link.tell("end")
    while True:  # the parent ends this process once it has read everything
        link.receive()


class _Link:
    """The parent, seen from the worker."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._outgoing = outgoing
        self.vitals: _Vitals | None = None
        self._frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._shown = 0.0
        threading.Thread(target=self._read, args=(incoming,), daemon=True).start()

    def _read(self, pipe: BinaryIO) -> None:
        while (frame := read_frame(pipe)) is not None:
            self._frames.put(frame)
        os._exit(0)  # the parent is gone: nobody wants the rest

    def receive(self) -> dict[str, Any]:
        if self.vitals is not None:
            self.vitals.rest()
        return self._frames.get()

    def tell(self, kind: str, **fields: Any) -> None:
        write_frame(self._outgoing, {"kind": kind, **fields})

    def progress(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if now - self._shown > _PROGRESS_S:  # each one wakes the parent, on a machine that is being timed
            self._shown = now
            self.tell("progress", done=done, total=total, what=what)

    def blocks(self, numbers: dict[str, int]) -> Iterator[BlockSpec | None]:
        """The parent's blocks as it hands them out; ``numbers`` learns their numbers by key."""
        while True:
            self.tell("next")
            reply = self.receive()
            if "end" in reply:
                return
            if "mark" in reply:
                yield None
                continue
            numbers[reply["key"]] = reply["number"]
            yield self._spec(reply)

    def _spec(self, reply: dict[str, Any]) -> BlockSpec:
        shapes = {
            int(copies): {name: tuple(dims) for name, dims in by_name.items()}
            for copies, by_name in reply["shapes"].items()
        }

        def build(copies: int) -> bytes:
            self.tell("build", number=reply["number"], copies=copies)
            model = self.receive()
            if "error" in model:
                raise ModelError(model["error"])
            data: bytes = model["bytes"]
            return data

        ceiling_s = math.inf if reply["ceiling_s"] is None else reply["ceiling_s"]
        return BlockSpec(reply["key"], reply["label"], build, lambda copies: shapes[copies], ceiling_s)


class _Vitals:
    """What the worker shares of itself: the block in hand, and that it lives."""

    def __init__(self, shared: mmap.mmap, hang_s: float) -> None:
        self._shared, self._hang_s = shared, hang_s
        self._number, self._count, self._armed_s = -1, 0, -math.inf
        self.read: Clock = cpu_clock

    def hold(self, number: int) -> None:
        self._number = number
        self._write()

    def clock(self) -> Instant:
        now = self.read()
        if now.wall_s - self._armed_s > self._hang_s / 4:
            # Ends this process from a thread that needs no Python; the parent, if it lives, is sooner.
            faulthandler.dump_traceback_later(4 * self._hang_s, exit=True)
            self._armed_s = now.wall_s
            now = self.read()
        self._write()
        return now

    def rest(self) -> None:
        """Waiting for the parent, which may take its time (it builds a model, or was stopped), is no hang."""
        faulthandler.cancel_dump_traceback_later()
        self._armed_s = -math.inf

    def _write(self) -> None:
        self._count += 1
        self._shared[:] = SHARED.pack(self._number, self._count)
