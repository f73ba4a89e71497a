"""What the measurement protocol needs from a backend, and which backends there are.

A backend compiles ONNX bytes for one device and hands back something that can be run again and
again on the same inputs. Nothing outside this folder imports a vendor's library, and nothing in it
does so before a backend is opened.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends._cpu import cpu_name
from onnx_layermerge.latency.backends._engine_options import EngineOptions

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

__all__ = [
    "Backend",
    "BackendStatus",
    "EngineOptions",
    "Reopen",
    "Runnable",
    "available_backends",
    "cpu_name",
    "gpu_clocks",
    "open_backend",
]

_HERE = "use --backend onnxruntime --device cpu"
_TENSORRT = ("tensorrt", "tensorrt-rtx")
_ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt")


class Runnable(Protocol):
    """A compiled model with inputs of its own."""

    def run(self) -> None:
        """Do one inference on the preset inputs: random, non-zero, the same every time.

        Raises:
            ModelError: the inference failed.
        """
        ...

    def outputs(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Do one inference on the given inputs and return all outputs in the model's order.

        Raises:
            ModelError: the inference failed, or a feed does not fit.
        """
        ...

    def close(self) -> None:
        """Free the device memory; a second call does nothing."""
        ...


@dataclasses.dataclass(frozen=True)
class Reopen:
    """How another process opens a backend: a function, as ``module:name``, and the words it is called with."""

    function: str
    words: tuple[str, ...] = ()


class Backend(Protocol):
    """A way to run models on one device.

    With an attribute ``reopen`` of type `Reopen`, blocks and whole models are timed in processes of their own, where
    they may crash; a backend without one cannot be opened again, and is used where it is.
    """

    def describe(self) -> DeviceKey:
        """Return everything that the times measured here depend on, but for the model."""
        ...

    def build(self, model: bytes | Packed, shapes: Mapping[str, tuple[int, ...]]) -> Runnable:
        """Compile ONNX bytes with the given input shapes; inputs left out must have static ones.

        A ``Packed`` model has weights that no protobuf can hold; blocks always come as bytes.

        Raises:
            ModelError: this backend cannot build or run this model.
            DeviceError: the device was lost.
        """
        ...


@dataclasses.dataclass(frozen=True)
class BackendStatus:
    """A line of ``olm doctor``."""

    name: str
    usable: bool
    detail: str
    """The device and version when usable, else one sentence on why not."""


def open_backend(
    name: str = "onnxruntime", device: str = "cpu", precision: str = "fp32", engines: EngineOptions | None = None
) -> Backend:
    """Open a backend by the words of ``--backend``, ``--device`` (``cpu``, ``cuda:0``, ...) and ``--precision``.

    ``engines`` is for the TensorRT backends; its defaults are fine with any.

    Raises:
        DeviceError: there is no such backend or device here, or its software cannot be used.
        UsageError: there is no such precision, or the backend has it, or what ``engines`` asks for, on no machine.
    """
    engines = engines or EngineOptions()
    if name in _TENSORRT:
        from onnx_layermerge.latency.backends.tensorrt import open_tensorrt

        return open_tensorrt(
            name,
            device,
            precision,
            engines.level,
            timing_cache=engines.timing_cache,
            save_engines=engines.save_engines,
            shape_ranges=engines.ranges,
            build_limit_s=engines.build_limit_s,
        )
    if name in (*_ON_GPU, "onnxruntime"):
        engines.refuse_for(name)
    if name in _ON_GPU:
        from onnx_layermerge.latency.backends._onnxruntime_gpu import open_gpu

        return open_gpu(name, device, precision)
    if name != "onnxruntime":
        raise DeviceError(f"There is no backend {name!r}; {_HERE}.")
    if re.fullmatch(r"cuda(:\d+)?", device):
        raise DeviceError(
            f"Backend 'onnxruntime' is the CPU; for {device!r} say --backend {' or '.join(_ON_GPU)}, or {_HERE}."
        )
    if device != "cpu":
        raise DeviceError(f"There is no device {device!r}; {_HERE}.")
    if precision != "fp32":
        _refuse_precision(precision)
    try:
        from onnx_layermerge.latency.backends._onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise DeviceError(
            f"The onnxruntime package cannot be imported ({error}); install it with pip install onnxruntime."
        ) from error
    return OnnxRuntimeBackend()


def _refuse_precision(precision: str) -> None:
    from onnx_layermerge.latency.backends.tensorrt import PRECISIONS

    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is unknown; choose from {', '.join(PRECISIONS)}.")
    raise UsageError(
        f"Backend 'onnxruntime' computes in fp32 on a CPU, not in {precision}; leave out --precision, or say --backend "
        "tensorrt --device cuda:0."
    )


def available_backends() -> tuple[BackendStatus, ...]:
    """Try every backend this version knows about; never raises."""
    from onnx_layermerge.latency.backends._onnxruntime_gpu import status as status_on_gpu
    from onnx_layermerge.latency.backends.tensorrt import status

    try:
        line = BackendStatus("onnxruntime", True, open_backend().describe().text())
    except DeviceError as error:
        line = BackendStatus("onnxruntime", False, str(error))
    return (line, *(status_on_gpu(name) for name in _ON_GPU), *(status(name) for name in _TENSORRT))


def gpu_clocks(device: str = "cuda:0") -> BackendStatus:
    """What NVML tells of a GPU while blocks are timed there, or why it tells nothing; never raises."""
    from onnx_layermerge.latency.backends._cuda import open_driver
    from onnx_layermerge.latency.backends._nvml import nvml_status

    bus = ""
    try:
        driver = open_driver(device)
        try:
            bus = driver.facts().bus
        finally:
            driver.close()
    except DeviceError:
        pass  # the lines of the backends say so
    return BackendStatus("gpu clocks", *nvml_status(bus))


def preset_input(shape: tuple[int, ...], dtype: npt.DTypeLike, seed: int) -> npt.NDArray[Any]:
    """Make an input that hides no work: no zeros, no denormals, both signs.

    Floating-point values have 0.1 <= |x| < 1; integers are 1, which is a valid index into any
    axis longer than one; booleans are true.
    """
    kind = np.dtype(dtype)
    if kind.kind != "f":
        return np.ones(shape, kind)
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
    return np.asarray(values, kind)
