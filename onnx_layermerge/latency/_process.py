"""The other process, seen from the one that started it: frames both ways, a life sign, and a limit on every wait.

Beside the pipes both map one small file (`SHARED`): the number of the block that the worker has in hand, a count that
moves whenever it does something, and the seconds that it may now do nothing.  The worker sets these by what it is at:
a build may take minutes, a timed run may not.  So

1. a process that ends unasked (a signal, an exit inside a library, the system short of memory) leaves behind whose
   fault it was;
2. a count that stands still for longer than the seconds beside it is a hang, and again it is known on what.

Writing to a process that does not read would wait forever, so a thread writes and this one only looks whether bytes
still go out, which counts as life.  A process that ended its pipe and not itself is killed after `END_S`, and so is one
that the system does not let go: nobody here waits for it longer.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency._frames import SHARED, read_frame, write_frame
from onnx_layermerge.latency.backends import Reopen

__all__ = ["Limits", "Worker"]

END_S = 10.0
OPEN_S = 120.0
"""Least limit for opening a backend, with all that it imports."""
_POLL_S = 0.5
_CHUNK = 1 << 16
Limits = tuple[float, float]
"""Wall seconds without a sign of life after which a worker counts as hung: while it times, while it builds."""
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


class Worker:
    """A process that opens what ``reopen`` says and does one task with it (see ``_worker.py``)."""

    def __init__(self, reopen: Reopen, task: str, options: dict[str, Any], limits: Limits) -> None:
        handle, name = tempfile.mkstemp(prefix="olm-")
        open_s = max(OPEN_S, limits[1])
        os.write(handle, SHARED.pack(-1, 0, open_s))
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
            raise DeviceError(
                f"No process can be started for timing ({error.strerror}); end other programs."
            ) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._frames: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sent = 0
        self._ready = False
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        threading.Thread(target=self._write, args=(self._process.stdin,), daemon=True).start()
        self.send(
            {
                "task": task,
                "backend": [reopen.function, *reopen.words],
                "options": options,
                "hang_s": limits[0],
                "build_s": limits[1],
                "open_s": open_s,
                "shared": name,
            }
        )

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Have a frame written, without waiting; that the process is gone shows when its answer is waited for."""
        frame = io.BytesIO()
        write_frame(frame, message, payload)
        self._outgoing.put(frame.getvalue())

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
                elif time.monotonic() - since > now[2]:
                    return {"kind": "gone", "text": f"hung for {now[2]:g} s"}
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
        self._end()
        self._outgoing.put(None)
        self._release()

    def _end(self) -> None:
        self._process.kill()
        # A process that is stuck in the kernel, as in a driver, dies when that lets go of it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)

    def _read(self, pipe: BinaryIO) -> None:
        try:
            while (frame := read_frame(pipe)) is not None:
                self._frames.put(frame)
        finally:
            self._frames.put(None)

    def _write(self, pipe: BinaryIO) -> None:
        with contextlib.suppress(OSError), pipe:
            while (data := self._outgoing.get()) is not None:
                for start in range(0, len(data), _CHUNK):
                    pipe.write(data[start : start + _CHUNK])
                    pipe.flush()
                    self._sent += 1

    def _release(self) -> None:
        self._shared.close()
        self._errors.close()
        with contextlib.suppress(OSError):
            self._shared_path.unlink()

    def _beat(self) -> tuple[int, int, float]:
        """What moves while there is life, and the seconds that it may stand still."""
        _, count, limit_s = SHARED.unpack(self._shared[:])
        return self._sent, count, limit_s

    def _why(self) -> str:
        """How the process ended, in words; raises DeviceError if it never began."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._end()
            return f"the backend closed its pipe and did not end its process within {END_S:g} s"
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        last = f": {said[-1].strip()[:200]}" if said else ""
        if not self._ready:
            raise DeviceError(f"The process for timing could not be started{last}; see olm doctor.")
        if code >= 0:
            return f"the backend ended its process (exit code {code}){last}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return "killed by SIGKILL, as the system does when memory runs out"
        return f"crashed ({name}){last if name == 'SIGABRT' else ''}"
