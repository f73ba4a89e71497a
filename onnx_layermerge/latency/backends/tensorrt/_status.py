"""What ``olm doctor`` says of a TensorRT: its version and device, or the one reason why it cannot run here."""

from __future__ import annotations

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends import BackendStatus, Reopen
from onnx_layermerge.latency.backends._cuda import Driver, open_driver
from onnx_layermerge.latency.backends.tensorrt._build import BuildOptions
from onnx_layermerge.latency.backends.tensorrt._engine import TensorRTBackend
from onnx_layermerge.latency.backends.tensorrt._library import Library, load

__all__ = ["open_tensorrt", "status"]


def open_tensorrt(
    name: str = "tensorrt", device: str = "cuda:0", precision: str = "fp32", level: str = ""
) -> TensorRTBackend:
    """Open a GPU with a TensorRT; ``level`` is the builder optimization level in words, empty for the library's own.

    Raises:
        DeviceError: the library, the driver or the device is not usable here.
        UsageError: unknown precision or level.
    """
    if level and not level.isdecimal():
        raise UsageError(f"builder optimization level {level!r} is unknown; choose from 0 to 5.")
    options = BuildOptions(precision=precision, level=int(level) if level else None)
    library = load(name)
    if device == "cpu":
        raise DeviceError(f"{library.title} runs on a GPU; say --device cuda:0, or use --backend onnxruntime.")
    driver = open_driver(device)
    try:
        _check_capability(library, driver)
        words = Reopen(f"{__name__.rpartition('.')[0]}:open_tensorrt", (name, device, precision, level))
        return TensorRTBackend(library, driver, options, reopen=words)
    except DeviceError:
        driver.close()
        raise


def status(name: str, device: str = "cuda:0") -> BackendStatus:
    """The line of a backend; never raises, and leaves nothing open."""
    try:
        library = load(name)
    except DeviceError as error:
        return BackendStatus(name, False, str(error))
    try:
        backend = open_tensorrt(name, device)
        try:
            key: DeviceKey = backend.describe()
        finally:
            backend.close()
    except DeviceError as error:
        ahead = ""
        if library.capabilities:
            ahead = f" It builds ahead of time for compute capabilities {', '.join(library.capabilities)}."
        return BackendStatus(name, False, f"{library.title} is installed, but: {error}{ahead}")
    return BackendStatus(name, True, key.text())


def _check_capability(library: Library, driver: Driver) -> None:
    """A library that names its GPUs runs on no others: its runtime refuses their engines."""
    facts = driver.facts()
    if library.capabilities and facts.capability not in library.capabilities:
        raise DeviceError(
            f"{library.title} does not support compute capability {facts.capability} of {facts.name}, only "
            f"{', '.join(library.capabilities)}; use --backend tensorrt there."
        )
