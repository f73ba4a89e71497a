"""What the GPU's own instruments say while blocks are timed: clocks, what slows them, temperature, power, other users.

nvidia-ml-py (``pynvml``) is imported when a monitor is opened and is never needed: without it, or on a device that it
cannot see, there is one line on why not, and times stand without this check.

A GPU that idles clocks down, so one reading before and one after say nothing.  `Watch` is asked for a look each time
some work has just ended; of those looks

1. a bit that means heat or power is a warning, with the share of the looks that had it;
2. clocks that move by more than `DRIFT` from the highest to the lowest are a warning;
3. another process that computes on the GPU is a warning, with its share.

Nothing is ever set: locked clocks are the user's decision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

from onnx_layermerge.errors import DeviceError

__all__ = ["DRIFT", "Monitor", "Reading", "Watch", "nvml_status", "open_monitor"]

DRIFT = 0.03
"""(highest - lowest) / highest of the SM clock over the looks of a session that is still steady."""
_LOOK_S = 0.5
_SHARE = 0.01
# Bits of nvmlClocksEventReason (older: nvmlClocksThrottleReason), nvml.h; the first two slow nothing unasked.
_REASONS = {
    0x001: "idle", 0x002: "set by an application", 0x004: "power cap", 0x008: "hardware slowdown", 0x010: "sync boost",
    0x020: "heat (software)", 0x040: "heat (hardware)", 0x080: "power brake", 0x100: "display",
}  # fmt: skip
_HARMFUL = frozenset(_REASONS[bit] for bit in (0x004, 0x008, 0x020, 0x040, 0x080))
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0


@dataclasses.dataclass(frozen=True)
class Reading:
    """One look at a GPU; None is what the device or driver does not tell.

    Attributes:
        sm_mhz, memory_mhz: clocks now; ``sm_max_mhz`` is the highest that the device has.
        reasons: what holds the clock where it is, in words; () where nothing does.
        temperature_c, power_w: of the GPU and of the board.
        others: share of the GPU, 0 to 1, that other processes used in the last second or so; None where processes
            cannot be told apart (in some containers).
        other_memory_bytes: GPU memory that other processes hold.
    """

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    sm_max_mhz: int | None = None
    reasons: tuple[str, ...] | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    others: float | None = None
    other_memory_bytes: int | None = None


class Monitor:
    """NVML of one GPU; readings never raise."""

    def __init__(self, module: Any, handle: Any, own: tuple[int, ...] = ()) -> None:
        self._nvml, self._handle = module, handle
        self._own = {os.getpid(), os.getppid(), *own}

    def read(self) -> Reading:
        """Look once; some milliseconds."""
        nvml, handle = self._nvml, self._handle
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = reasons or getattr(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None)
        bits = None if reasons is None else self._ask(reasons, handle)
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        share, memory = self._others()
        return Reading(
            sm_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_SM),
            memory_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_MEMORY),
            sm_max_mhz=self._ask(nvml.nvmlDeviceGetMaxClockInfo, handle, _CLOCK_SM),
            reasons=None if bits is None else tuple(word for bit, word in _REASONS.items() if int(bits) & bit),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, _TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1e3,
            others=share,
            other_memory_bytes=memory,
        )

    def close(self) -> None:
        """Give NVML back; it counts its users, so others in this process keep it."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _others(self) -> tuple[float | None, int | None]:
        processes = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        # A process that does not find itself there sees other numbers than the driver does: nobody can be named.
        if processes is None or os.getpid() not in {int(each.pid) for each in processes}:
            return None, None
        others = [each for each in processes if int(each.pid) not in self._own]
        memory = sum(int(each.usedGpuMemory or 0) for each in others)
        if not others:
            return 0.0, 0
        since = int((time.time() - 2.0) * 1e6)
        samples = self._ask(self._nvml.nvmlDeviceGetProcessUtilization, self._handle, since)
        if samples is None:
            return None, memory
        known = {int(each.pid) for each in others}
        latest: dict[int, tuple[int, int]] = {}
        for sample in samples:
            pid = int(sample.pid)
            if pid in known:
                latest[pid] = max(latest.get(pid, (0, 0)), (int(sample.timeStamp), int(sample.smUtil)))
        return min(1.0, sum(used for _, used in latest.values()) / 100), memory

    def _ask(self, function: Callable[..., Any], *words: Any) -> Any | None:
        """What NVML answers; None where this device does not tell."""
        try:
            return function(*words)
        except self._nvml.NVMLError:
            return None


class Watch:
    """Looks at one GPU during a timing session, and what they come to.

    ``looks`` are the readings so far, of which the first and the last are before and after.
    """

    def __init__(self, monitor: Monitor | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._monitor, self._clock_s = monitor, clock_s
        self._next_s = clock_s()
        self.looks: list[Reading] = []

    def look(self, *, now: bool = False) -> None:
        """Read, at most every half second unless ``now``; call it when work has just ended."""
        if self._monitor is not None and (now or self._clock_s() >= self._next_s):
            self.looks.append(self._monitor.read())
            self._next_s = self._clock_s() + _LOOK_S

    def warnings(self) -> tuple[str, ...]:
        """Sentences for people; () when the session was steady."""
        return tuple(filter(None, (self._throttled(), self._drifted(), self._shared())))

    def _throttled(self) -> str:
        known = [set(look.reasons) & _HARMFUL for look in self.looks if look.reasons is not None]
        held = [words for words in known if words]
        if not held:
            return ""
        what = ", ".join(sorted(set().union(*held)))
        return (
            f"The GPU was slowed down in {len(held) / len(known):.0%} of the looks while blocks were timed ({what}); "
            "cool it or lock its clocks (nvidia-smi --lock-gpu-clocks) and profile again if predictions turn out wrong."
        )

    def _drifted(self) -> str:
        clocks = [look.sm_mhz for look in self.looks if look.sm_mhz and "idle" not in (look.reasons or ())]
        if len(clocks) < 2 or max(clocks) - min(clocks) <= DRIFT * max(clocks):
            return ""
        return (
            f"The GPU's clock went between {min(clocks)} and {max(clocks)} MHz while blocks were timed; lock it "
            "(nvidia-smi --lock-gpu-clocks) and profile again if predictions turn out wrong."
        )

    def _shared(self) -> str:
        used = max((look.others for look in self.looks if look.others is not None), default=0.0)
        if used < _SHARE:
            return ""
        return f"Another process used {used:.0%} of the GPU while blocks were timed; end it and profile again."


def open_monitor(bus: str, own: tuple[int, ...] = ()) -> Monitor:
    """NVML of the GPU at a PCI bus id; ``own`` are processes that count as this one.

    Raises:
        DeviceError: nvidia-ml-py is not installed, or NVML does not work here or does not see this GPU.
    """
    module = _start()
    try:
        return Monitor(module, module.nvmlDeviceGetHandleByPciBusId(bus.encode()), own)
    except module.NVMLError as error:
        with contextlib.suppress(module.NVMLError):
            module.nvmlShutdown()
        raise DeviceError(
            f"Clocks of the GPU are not read: NVML does not see {bus} ({_words(error)}); see nvidia-smi."
        ) from error


def nvml_status(bus: str = "") -> tuple[bool, str]:
    """Whether clocks can be read here, and one line: the clocks of the GPU at ``bus``, or why not.  Never raises.

    Without a ``bus``, whether NVML starts at all, and how many GPUs it sees.
    """
    try:
        if bus:
            monitor = open_monitor(bus)
            reading = monitor.read()
            monitor.close()
            return True, f"SM clock {reading.sm_mhz} of {reading.sm_max_mhz} MHz, {reading.temperature_c} °C"
        module = _start()
    except DeviceError as error:
        return False, str(error)
    try:
        count = int(module.nvmlDeviceGetCount())
        module.nvmlShutdown()
    except module.NVMLError as error:
        return False, f"Clocks of the GPU are not read: NVML sees no GPU ({_words(error)})."
    return True, f"NVML sees {count} GPU{'' if count == 1 else 's'}"


def _start() -> Any:
    try:
        module = importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceError("Clocks of the GPU are not read: pip install nvidia-ml-py.") from error
    try:
        module.nvmlInit()
    except (module.NVMLError, OSError) as error:
        raise DeviceError(
            f"Clocks of the GPU are not read: NVML does not start here ({_words(error)}); see nvidia-smi."
        ) from error
    return module


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
