"""Two whole models against one another, in a process of their own.

    parent: `compare`                                   child: worker
      ←─ next ───────────────────────────────────────     it has opened the backend, or is through with the last pair
      ── models (as files), shapes, options ─────────→
      ←─ taken ──────────────────────────────────────     the files can go
      ←─ progress ───────────────────────────────────
      ←─ ratio │ refused, number │ fault │ error ────

Which of the two was built or run when the process ended or hung stands in the small file that both map, so

1. the second's crash is a fact about the second: it is refused, as by a builder that says so, and others may be tried;
2. the first's is one about the device: nothing can be compared with it there, so the command ends;
3. where neither was in hand, as when somebody ended an idle process, a fresh one tries again, up to `STRIKES` times.

Starting the process and opening the backend takes from half a second to several, so it is kept for the backend's next
pair.  It ends with the backend, with whatever interrupts a pair, and before blocks are timed: one process at a time has
the device.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_layermerge.errors import DeviceError, ModelError, OutputError
from onnx_layermerge.latency._clock import Clock
from onnx_layermerge.latency._frames import RUNNING
from onnx_layermerge.latency._interleave import MAX_ROUNDS, contest
from onnx_layermerge.latency._parcel import put_down
from onnx_layermerge.latency._process import Limits, Worker
from onnx_layermerge.latency._records import decode_ratio
from onnx_layermerge.latency._sampling import Progress, clock_of, no_progress
from onnx_layermerge.latency._statistics import Ratio
from onnx_layermerge.latency._supervisor import BUILD_S, ERRORS, STRIKES
from onnx_layermerge.latency.backends import Backend, Reopen, Runnable

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

__all__ = ["compare", "release"]

# Wall seconds: one run of a whole model, which may be large and on one core, gives no sign of life.
MODEL_HANG_S = 300.0


def compare(
    backend: Backend,
    first: bytes | Packed,
    second: bytes | Packed | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    sessions: int = 1,
    cap_s: float = 20.0,
    max_rounds: int = MAX_ROUNDS,
    target_half_width: float = 0.005,
    seed: int = 0,
    isolate: bool = True,
    hang_s: float = MODEL_HANG_S,
    build_s: float | None = None,
    clock: Clock | None = None,
    progress: Progress = no_progress,
    refused: Callable[[str], None] | None = None,
) -> Ratio:
    """Build both models and time them interleaved: the speed-up of ``second`` over ``first``.

    It happens in a process of its own if the backend can be opened there (`Backend.reopen`) and the clock is the usual
    one, unless ``isolate`` is off; on a CPU that process's CPU time is the clock.

    Args:
        second: None is ``first`` once more, as for the seconds of one model.
        shapes: input name -> shape, of both models.
        sessions: the models are built anew for each, and the one whose ratio is the median speaks for all.
        cap_s: wall seconds of the timed rounds, of all sessions together.
        max_rounds: of each session, after which it ends however wide the interval is.
        target_half_width: of the interval, relative to the ratio, that is precise enough.
        hang_s: wall seconds without a sign of life after which a run counts as hung.
        build_s: the same while a model is built, or the device opened (None: the backend's ``build_limit_s``).
        refused: called with the reason when ``second`` cannot be built, or takes the process with it when it runs.

    Raises:
        ModelError: one of the models cannot be built or run, or ``second`` ended or hung the process.
        DeviceError: ``first`` did, or the device was lost, or no process can be started that opens the backend.
        OutputError: there is no room for the models in the folder for temporary files.
    """
    options: dict[str, Any] = {"sessions": sessions, "cap_s": cap_s, "max_rounds": max_rounds, "seed": seed}
    options["target_half_width"] = target_half_width
    reject = refused or (lambda reason: None)
    if not isolate or clock is not None or getattr(backend, "reopen", None) is None:

        def build(number: int) -> Runnable:
            try:
                return backend.build(first if number == 0 or second is None else second, shapes)
            except ModelError as error:
                if number == 1 and second is not None:
                    reject(str(error))
                raise

        return contest(build, clock=clock or clock_of(backend), progress=progress, **options)
    limits = hang_s, getattr(backend, "build_limit_s", BUILD_S) if build_s is None else build_s
    models = [first] if second is None else [first, second]
    pair = {"shapes": {name: list(dims) for name, dims in shapes.items()}, "options": options}
    text = ""
    for _ in range(STRIKES):
        end, number = _asked(backend, limits, models, pair, progress)
        if end["kind"] == "ratio":
            return decode_ratio(end["value"], "two models")
        text, building = str(end["text"]), number < RUNNING
        of_second = number in (1, 1 + RUNNING) and second is not None
        if end["kind"] == "refused":
            if of_second:
                reject(text)
            raise ModelError(text)
        if number < 0:
            continue
        name, way = backend.describe().backend, "build" if building else "run"
        if of_second:
            reason = f"{name} cannot {way} the compressed model: {text.rstrip('.')}; try another --backend."
            reject(reason)
            raise ModelError(reason)
        slow = building and hasattr(backend, "build_limit_s") and text.startswith("hung")
        advice = "give it longer with --build-limit" if slow else "use another version of it"
        what = "the model" if second is None else "the original model"
        raise DeviceError(f"{name} cannot {way} {what}: {text}; {advice}, or another --backend.")
    raise DeviceError(
        f"The process that times whole models ended {STRIKES} times without a result ({text}); update the backend, or "
        "use "
        "another --backend."
    )


def release(backend: Backend) -> None:
    """End the process that waits for the backend's next pair, if there is one."""
    idle = _IDLE.get(id(backend))
    if idle is not None:
        idle.end()


def _asked(
    backend: Backend, limits: Limits, models: list[bytes | Packed], pair: dict[str, Any], progress: Progress
) -> tuple[dict[str, Any], int]:
    """The last message about a pair, and the number of the model that it is about (`RUNNING`); -1 for neither."""
    worker = _taken(backend, limits)
    with (
        contextlib.ExitStack() as undo,
        tempfile.TemporaryDirectory(prefix="olm-", ignore_cleanup_errors=True) as folder,
    ):
        undo.callback(worker.close)
        message = _attended(worker, models, pair, Path(folder), progress)
        if message["kind"] in ("gone", "fault"):
            return message, worker.in_hand()
        undo.pop_all()
    _keep(backend, limits, worker)
    return message, message.get("number", -1)


def _attended(
    worker: Worker, models: list[bytes | Packed], pair: dict[str, Any], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Hand the pair over and wait for what comes of it."""
    while True:
        message = worker.receive()
        kind = message["kind"]
        if kind == "next":
            try:
                records = [put_down(model, folder / f"{number}.onnx") for number, model in enumerate(models)]
            except OSError as error:
                raise OutputError(
                    f"the models to be timed do not fit into {tempfile.gettempdir()} ({error.strerror}); make room "
                    "there, or set TMPDIR."
                ) from error
            worker.send({"pair": {**pair, "models": records}})
        elif kind == "taken":
            for path in folder.iterdir():
                with contextlib.suppress(OSError):  # some systems keep the name of what is mapped
                    path.unlink()
        elif kind == "progress":
            progress(message["done"], message["total"], message["what"])
        elif kind == "error":
            raise ERRORS[message["name"]](message["text"])
        else:
            return message


@dataclass(frozen=True, eq=False)
class _Idle:
    """A process that waits for its backend's next pair; calling ``end`` ends it, as the backend's end does."""

    worker: Worker
    limits: Limits
    end: weakref.finalize[[int, int], Backend]


_IDLE: dict[int, _Idle] = {}
"""By `id` of the backend."""


def _taken(backend: Backend, limits: Limits) -> Worker:
    """The backend's process, for one pair."""
    idle = _IDLE.get(id(backend))
    if idle is not None and idle.limits == limits:
        del _IDLE[id(backend)]
        idle.end.detach()
        return idle.worker
    release(backend)
    reopen: Reopen = backend.reopen  # type: ignore[attr-defined]  # the caller has looked
    return Worker(reopen, "pairs", {}, limits)


def _keep(backend: Backend, limits: Limits, worker: Worker) -> None:
    release(backend)
    _IDLE[id(backend)] = _Idle(worker, limits, weakref.finalize(backend, _end, id(backend), os.getpid()))


def _end(key: int, owner: int) -> None:
    idle = _IDLE.pop(key)
    if os.getpid() == owner:  # a fork of the process inherits what is not its own
        idle.worker.close()
