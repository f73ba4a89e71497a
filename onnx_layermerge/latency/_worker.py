"""The process in which blocks and whole models are timed; see ``_supervisor.py``, which starts it and knows the rest.

It imports only what timing needs: no ONNX library, no graph.  Three tasks: ``slopes`` times blocks with a backend,
``builds`` builds one copy of each with a builder and runs none, and ``pairs`` times whole models against one another
for as long as the parent asks for more (see ``_compare.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import importlib
import math
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from onnx_layermerge.errors import DeviceError, ModelError, OutputError, UsageError
from onnx_layermerge.latency._clock import Clock, Instant, cpu_clock
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency._frames import RUNNING, SHARED, read_frame, write_frame
from onnx_layermerge.latency._interleave import contest
from onnx_layermerge.latency._parcel import pick_up
from onnx_layermerge.latency._protocol import slopes
from onnx_layermerge.latency._records import encode
from onnx_layermerge.latency._sampling import clock_of
from onnx_layermerge.latency._spec import BlockSpec
from onnx_layermerge.latency.backends import Backend, Runnable

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
    vitals = link.vitals = _Vitals(shared, job["hang_s"], job["build_s"])
    try:
        module, _, name = job["backend"][0].partition(":")
        with vitals.allowed(job["open_s"]):
            opened = getattr(importlib.import_module(module), name)(*job["backend"][1:])
        _TASKS[job["task"]](link, vitals, opened, job["options"])
    except (DeviceError, OutputError, UsageError) as error:  # no block's fault: nothing more can be done here
        link.tell("error", name=type(error).__name__, text=str(error))
    except Exception as error:  # whatever a backend raises is a fact about the block in hand
        text = " ".join(str(error).split())
        link.tell("fault", text=f"{type(error).__name__}: {text}" if text else type(error).__name__)
    else:
        link.tell("end")
    while True:  # the parent ends this process once it has read everything
        link.receive()


def _slopes(link: _Link, vitals: _Vitals, backend: Backend, options: dict[str, Any]) -> None:
    vitals.read = clock_of(backend)
    if options["budget_s"] is None:
        options["budget_s"] = math.inf
    numbers: dict[str, int] = {}
    slopes(
        link.blocks(numbers),
        _Telling(backend, vitals),
        clock=vitals.clock,
        hand=lambda key: vitals.hold(-1 if key is None else numbers[key]),
        progress=link.progress,
        store=lambda spec, value: link.tell(
            "result", number=numbers[spec.key], value=encode(value, f"block {spec.key}")
        ),
        warn=lambda text: link.tell("warning", text=text),
        **options,
    )


def _builds(link: _Link, vitals: _Vitals, builder: Any, options: dict[str, Any]) -> None:
    numbers: dict[str, int] = {}
    for spec in link.blocks(numbers):
        if spec is None:
            continue
        vitals.hold(numbers[spec.key])
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        value: dict[str, Any] = {"reason": None, "engine_bytes": 0, "layers": []}
        try:
            model = spec.build(1)
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            with vitals.building():
                built = builder.build(model, spec.shapes(1), spec.key)
        except (ModelError, DeviceError) as error:
            value["reason"] = str(error)
        else:
            value["engine_bytes"] = len(built.engine)
            value["layers"] = [[layer.kind, layer.nodes, layer.reformat] for layer in built.layers]
        value |= {"seconds": time.perf_counter() - start_s, "cpu_s": time.process_time() - start_cpu_s}
        link.tell("result", number=numbers[spec.key], value=value)
        vitals.hold(-1)


def _pairs(link: _Link, vitals: _Vitals, backend: Backend, options: dict[str, Any]) -> None:
    vitals.read = clock_of(backend)
    telling = _Telling(backend, vitals)
    while True:
        link.tell("next")
        pair = link.receive()["pair"]
        models = [pick_up(record) for record in pair["models"]]
        link.tell("taken")
        kind, told = _pair(link, vitals, telling, models, pair)
        vitals.hold(-1)  # first, so that what ends this process from now on is not taken for one of the models
        link.tell(kind, **told)


def _pair(
    link: _Link, vitals: _Vitals, backend: _Telling, models: Sequence[Callable[[], Any]], pair: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Kind and fields of the message that says what came of it."""
    shapes = {name: tuple(dims) for name, dims in pair["shapes"].items()}
    refused = -1

    def build(number: int) -> Runnable:
        nonlocal refused
        vitals.hold(number)
        try:
            return backend.build(models[min(number, len(models) - 1)](), shapes)
        except ModelError:
            refused = number
            raise

    def hand(number: int) -> None:
        vitals.hold(number + RUNNING)

    try:
        ratio = contest(build, clock=vitals.clock, hand=hand, progress=link.progress, **pair["options"])
    except ModelError as error:
        return "refused", {"number": refused, "text": str(error)}
    return "ratio", {"value": dataclasses.asdict(ratio)}


_TASKS: dict[str, Callable[[_Link, _Vitals, Any, dict[str, Any]], None]] = {
    "slopes": _slopes, "builds": _builds, "pairs": _pairs,
}  # fmt: skip


class _Telling:
    """A backend whose builds are announced, since they may be silent for longer than anything that is timed."""

    def __init__(self, backend: Backend, vitals: _Vitals) -> None:
        self._backend, self._vitals = backend, vitals
        if hasattr(backend, "watch"):
            self.watch = backend.watch

    def describe(self) -> DeviceKey:
        return self._backend.describe()

    def build(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Runnable:
        with self._vitals.building():
            return self._backend.build(model, shapes)


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

    def __init__(self, shared: mmap.mmap, hang_s: float, build_s: float) -> None:
        self._shared, self._hang_s, self._build_s = shared, hang_s, build_s
        self._limit_s = hang_s
        self._number, self._count, self._armed_s = -1, 0, -math.inf
        self.read: Clock = cpu_clock

    def hold(self, number: int) -> None:
        self._number = number
        self._write()

    def building(self) -> contextlib.AbstractContextManager[None]:
        """For as long as this lasts, silence is judged by the limit of a build."""
        return self.allowed(self._build_s)

    @contextlib.contextmanager
    def allowed(self, limit_s: float) -> Iterator[None]:
        """For as long as this lasts, silence is judged by this limit."""
        self._limit_s = limit_s
        self._arm()
        try:
            yield
        finally:
            self._limit_s = self._hang_s
            self._arm()

    def clock(self) -> Instant:
        now = self.read()
        if now.wall_s - self._armed_s > self._hang_s / 4:
            self._arm()
            now = self.read()
        self._write()
        return now

    def rest(self) -> None:
        """Waiting for the parent, which may take its time (it builds a model, or was stopped), is no hang."""
        faulthandler.cancel_dump_traceback_later()
        self._armed_s = -math.inf

    def _arm(self) -> None:
        # Ends this process from a thread that needs no Python; the parent, if it lives, is sooner.
        faulthandler.dump_traceback_later(4 * self._limit_s, exit=True)
        self._armed_s = time.perf_counter()
        self._write()

    def _write(self) -> None:
        self._count += 1
        self._shared[:] = SHARED.pack(self._number, self._count, self._limit_s)
