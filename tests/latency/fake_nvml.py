"""The module ``pynvml`` over readings that a test sets."""

from __future__ import annotations

import os
import types
from typing import Any


class Instruments:
    """What a made-up GPU's NVML says; None in a field is "not supported"."""

    def __init__(self) -> None:
        self.sm_mhz: int | None = 1800
        self.memory_mhz: int | None = 9000
        self.reasons: int | None = 0
        self.temperature_c: int | None = 50
        self.milliwatts: int | None = 70_000
        self.processes: list[tuple[int, int | None]] | None = [(os.getpid(), 100 << 20)]
        self.used: list[tuple[int, int, int]] | None = []  # process, time stamp, percent
        self.bus = "0000:01:00.0"
        self.starts = True
        self.open = 0


def pynvml(instruments: Instruments, *, old: bool = False) -> Any:
    """The module; ``old`` has the name that throttle reasons had before they were clocks event reasons."""

    class NVMLError(Exception):
        pass

    def told(value: Any) -> Any:
        if value is None:
            raise NVMLError("Not Supported")
        return value

    def init() -> None:
        if not instruments.starts:
            raise NVMLError("Driver Not Loaded")
        instruments.open += 1

    def shutdown() -> None:
        instruments.open -= 1

    def by_bus(bus: bytes) -> str:
        if bus.decode() != instruments.bus:
            raise NVMLError("Not Found")
        return "handle"

    def utilization(handle: str, since: int) -> list[Any]:
        used = told(instruments.used)
        return [types.SimpleNamespace(pid=pid, timeStamp=at, smUtil=percent) for pid, at, percent in used]

    reasons = f"nvmlDeviceGetCurrentClocks{'Throttle' if old else 'Event'}Reasons"
    return types.SimpleNamespace(**{
        "NVMLError": NVMLError, "nvmlInit": init, "nvmlShutdown": shutdown, "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByPciBusId": by_bus, reasons: lambda handle: told(instruments.reasons),
        "nvmlDeviceGetClockInfo": lambda handle, kind: told(
            {1: instruments.sm_mhz, 2: instruments.memory_mhz}[kind]
        ),
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: told({1: 2000}[kind]),
        "nvmlDeviceGetTemperature": lambda handle, kind: told({0: instruments.temperature_c}[kind]),
        "nvmlDeviceGetPowerUsage": lambda handle: told(instruments.milliwatts),
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
            types.SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in told(instruments.processes)
        ],
        "nvmlDeviceGetProcessUtilization": utilization,
    })  # fmt: skip
