"""What timing needs of a CUDA driver, as one protocol; and what both adapters say in the same words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy.typing as npt

from onnx_layermerge.errors import ModelError

__all__ = ["NO_LIBCUDA", "Array", "DeviceFacts", "Driver", "no_memory", "one_line", "version_words"]

Array = npt.NDArray[Any]
NO_LIBCUDA = (
    "The NVIDIA driver's library libcuda.so.1 cannot be loaded; install the driver, or in a container pass the GPU "
    "through, or use --device cpu."
)


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """``capability`` as ``8.6``; ``driver`` is the newest CUDA that the driver knows, as ``CUDA 13.0``.

    ``l2_bytes`` is the size of the second-level cache, 0 where it is not told; ``bus`` names the device to NVML, whose
    order of devices is another one.
    """

    name: str
    capability: str
    driver: str
    l2_bytes: int = 0
    bus: str = ""


class Driver(Protocol):
    """A device with its context current.  Streams, events and graphs are opaque; addresses are integers."""

    name: str

    def facts(self) -> DeviceFacts: ...

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes.

        Raises:
            ModelError: there is not so much.
        """
        ...

    def free(self, address: int) -> None: ...

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the device and wait for it."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Fill a contiguous array from the device and wait for it."""
        ...

    def fill(self, address: int, size: int, stream: Any) -> None:
        """Set ``size`` bytes to zero on the stream, and do not wait for it; can be captured."""
        ...

    def stream(self) -> Any: ...

    def handle(self, stream: Any) -> int:
        """What other libraries take for this stream."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Wait for all work on the stream; errors of work enqueued before show here."""
        ...

    def event(self) -> Any: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def elapsed_s(self, start: Any, stop: Any) -> float:
        """Device seconds between two events that have both happened."""
        ...

    def capture(self, stream: Any, work: Callable[[], None]) -> Any | None:
        """What ``work`` enqueues on the stream as a graph; None where that cannot be captured."""
        ...

    def replay(self, graph: Any, stream: Any) -> None: ...

    def release(self, *held: Any) -> None:
        """Give streams, events and graphs back; a thing twice does nothing."""
        ...

    def close(self) -> None:
        """Give back everything that was not, and the context; a second call does nothing."""
        ...


def no_memory(size: int) -> ModelError:
    """One model is too large; the device is not at fault."""
    return ModelError(
        f"The GPU has not enough memory for this model: {size / 2**20:.0f} MiB more were asked for; lower --batch."
    )


def version_words(number: int) -> str:
    """A CUDA version as the driver gives it, 13010, in words."""
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def one_line(error: Exception) -> str:
    """What an exception says, to be put into a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
