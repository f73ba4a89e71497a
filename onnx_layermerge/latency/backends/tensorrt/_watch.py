"""What is looked at while engines are timed: the GPU's instruments, and how far ahead of the GPU the host is."""

from __future__ import annotations

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends._nvml import Watch, open_monitor
from onnx_layermerge.latency.backends.tensorrt._meter import Meter

__all__ = ["EngineWatch"]

_MOST_BOUND = 0.1


class EngineWatch(Watch):
    """Looks at the GPU while engines are timed; ``missing`` is the sentence on why clocks are not read, or empty.

    Beside what `Watch` warns of: that many runs were bound by launches.  It holds NVML until it is closed; after that
    it looks at nothing more, and what it saw stays.
    """

    def __init__(self, bus: str, meter: Meter) -> None:
        monitor, self.missing = None, ""
        try:
            monitor = open_monitor(bus)
        except DeviceError as error:
            self.missing = str(error)
        super().__init__(monitor)
        self._meter, self._before = meter, (meter.bound, meter.launches)

    def close(self) -> None:
        """Give NVML back; more than once does no harm."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    def warnings(self) -> tuple[str, ...]:
        bound, launches = (now - then for now, then in zip(self.launched(), self._before, strict=True))
        if not launches or bound <= _MOST_BOUND * launches:
            return super().warnings()
        text = (
            f"{bound / launches:.0%} of the timed runs took the GPU hardly longer than launching them took the host; "
            "one by one they go at the pace of the launches, which a smaller block does not change."
        )
        return (*super().warnings(), text)

    def launched(self) -> tuple[int, int]:
        """Runs that were bound by launches, and all, since the backend was opened."""
        return self._meter.bound, self._meter.launches
