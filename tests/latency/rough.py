"""A backend, opened in a process of its own, that does to that process what the model's text says."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency import BlockSpec, DeviceKey
from onnx_layermerge.latency.backends import Reopen


class Rough:
    """Models are texts ``name copies``; the part of the name before the dash says what it does."""

    def __init__(self, log: str) -> None:
        self.log = Path(log)
        self.reopen = Reopen("tests.latency.rough:Rough", (log,))
        self.say(f"open {os.getpid()}")

    def describe(self) -> DeviceKey:
        return DeviceKey("rough", "1", "machine", 1, "fp32")

    def say(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(what + "\n")

    def build(self, model: bytes, shapes: Mapping[str, tuple[int, ...]]) -> _Runnable:
        name, copies = model.decode().split()
        assert shapes == {"x": (int(copies), 3)}
        self.say(f"build {name} {copies}")
        if name.startswith("unbuildable"):
            raise ModelError(f"cannot build {name}")
        if name.startswith("raises"):
            raise ZeroDivisionError("no such\nkernel")
        if name.startswith("lost"):
            raise DeviceError("the device was lost")
        if name.startswith("bursts"):
            os.abort()
        if name.startswith("greedy"):
            raise MemoryError
        if name.startswith("tardy"):
            time.sleep(0.8)
        if name.startswith("stuck"):
            time.sleep(600)
        if name.startswith("prints"):
            os.write(1, b"a library that prints on standard output\n")
        return _Runnable(name, int(copies))

    def block(self, name: str, ceiling_s: float = float("inf")) -> BlockSpec:
        return BlockSpec(
            f"key-{name}", name, lambda n: f"{name} {n}".encode(), lambda n: {"x": (n, 3)}, ceiling_s
        )


class _Runnable:
    def __init__(self, name: str, copies: int) -> None:
        self.name, self.copies, self.runs = name, copies, 0

    def run(self) -> None:
        self.runs += 1
        if self.runs == 8 and self.copies == 3:  # after the warm-up of other blocks has begun
            self.misbehave()
        stop = time.process_time() + (1e-4 if self.name == "half" else 2e-4) * self.copies
        while time.process_time() < stop:
            pass

    def misbehave(self) -> None:
        if self.name.startswith("segfault"):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.name.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.name.startswith("exits"):
            os._exit(7)
        elif self.name.startswith("aborts"):
            os.write(2, b"free(): invalid pointer\n")
            os.abort()
        elif self.name.startswith("closes"):
            os.closerange(3, 256)
            time.sleep(600)
        elif self.name.startswith("trips"):
            raise ModelError("cannot run trips")
        elif self.name.startswith("hangs"):
            time.sleep(600)
        elif self.name.startswith("holds"):
            ctypes.PyDLL(None).sleep(600)  # and keeps Python's lock meanwhile

    def outputs(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return []

    def close(self) -> None:
        return None


def holding(log: str) -> None:
    """Be opened never, and let no other thread of this process run meanwhile."""
    Path(log).write_text("holding")
    ctypes.PyDLL(None).sleep(600)
