"""Engines on a GPU: the `Backend` and `Runnable` of TensorRT.

The number is what trtexec calls GPU compute time: from an event before the kernels to one behind them, no transfers.
`Meter` puts the two events around every replay and adds up what lies between; its reading is the backend's clock.

An engine is compared with onnxruntime on the CPU before anybody can time it: the outputs for the preset inputs may
differ by no more than the precision's rounding (`agree`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnx_layermerge.errors import DeviceError, ModelError
from onnx_layermerge.latency._clock import Instant
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends import Reopen
from onnx_layermerge.latency.backends._agreement import agree
from onnx_layermerge.latency.backends._driver import Driver
from onnx_layermerge.latency.backends.tensorrt._build import build
from onnx_layermerge.latency.backends.tensorrt._cast import cast
from onnx_layermerge.latency.backends.tensorrt._errors import make_log
from onnx_layermerge.latency.backends.tensorrt._library import Library
from onnx_layermerge.latency.backends.tensorrt._meter import Meter
from onnx_layermerge.latency.backends.tensorrt._options import BuildOptions
from onnx_layermerge.latency.backends.tensorrt._runnable import EngineRunnable
from onnx_layermerge.latency.backends.tensorrt._watch import EngineWatch

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

__all__ = ["TensorRTBackend"]

Shapes = Mapping[str, tuple[int, ...]]

# Larger than any second-level cache today, for devices that do not tell theirs.
_LEAST_FLUSH = 128 << 20


class TensorRTBackend:
    """Backends ``tensorrt`` and ``tensorrt-rtx`` on one GPU.

    ``clock`` is the one to time its runnables with: it waits for the GPU and reads GPU compute seconds.
    """

    def __init__(
        self,
        library: Library,
        driver: Driver,
        options: BuildOptions,
        *,
        reopen: Reopen | None = None,
        check: bool = True,
    ) -> None:
        self._library, self._driver, self._options, self._check = library, driver, options, check
        self._facts = driver.facts()
        self._undo = contextlib.ExitStack()
        self._undo.callback(driver.close)
        self._stream = driver.stream()
        self._log = make_log(library.module, verbose=False)
        try:
            self._runtime = library.module.Runtime(self._log)
        except (TypeError, RuntimeError) as error:
            self._undo.close()
            raise DeviceError(
                f"{library.title} cannot start a runtime on {self._facts.name} ({error}); see olm doctor."
            ) from error
        self._meter = Meter(driver, self._stream)
        self._flush: tuple[int, int] | None = None
        if reopen is not None:
            self.reopen = reopen

    def describe(self) -> DeviceKey:
        options = self._options
        settings = {
            "aux_streams": "0",
            "driver_api": self._driver.name,
            "gate": "on" if self._meter.gated else "off",
            "io": options.layout,
            **options.engines().settings(),
        }
        return DeviceKey(
            backend=self._library.name,
            backend_version=self._library.version,
            device=f"{self._facts.name} (compute capability {self._facts.capability})",
            threads=0,
            precision=options.precision,
            driver=self._facts.driver,
            settings=" ".join(f"{name}={value}" for name, value in sorted(settings.items())),
        )

    def clock(self) -> Instant:
        """GPU compute seconds and wall seconds; see `Meter`."""
        return self._meter.clock()

    @property
    def build_limit_s(self) -> float:
        """Wall seconds after which a build in a process of its own counts as hung."""
        return self._options.limit_s

    def watch(self) -> EngineWatch:
        """Begin to look at the GPU's clocks, what slows them, and who else uses it; ends with the backend at last."""
        watch = EngineWatch(self._facts.bus, self._meter)
        self._undo.callback(watch.close)
        return watch

    def build(self, model: bytes | Packed, shapes: Shapes) -> EngineRunnable:
        """Cast to the backend's precision, build, load, and compare with onnxruntime.

        Raises:
            ModelError: it cannot be built, is not of this precision, or computes something else.
            DeviceError: the device was lost, or is not supported by this library.
        """
        if not isinstance(model, bytes):
            raise ModelError(
                f"{self._library.title} takes models of up to 2 GB of weights here, and this one has more; use "
                "--device cpu."
            )
        built = build(self._library, cast(model, self._options.precision), shapes, self._options)
        runnable = EngineRunnable(self, built.engine, built.ports, built.layers)
        with contextlib.ExitStack() as undo:
            undo.callback(runnable.close)
            if self._check:
                _compare(runnable, model, self._options.precision, self._library.title)
            undo.pop_all()
        return runnable

    def close(self) -> None:
        """Give the GPU back; runnables are of no use any more."""
        self._undo.close()

    def _overwrite_l2(self) -> None:
        """Enqueue what leaves nothing of ours in the second-level cache.

        Raises:
            ModelError: there is no memory left for it.
        """
        if self._flush is None:
            size = max(_LEAST_FLUSH, 2 * self._facts.l2_bytes)
            self._flush = (self._driver.allocate(size), size)
        self._driver.fill(*self._flush, self._stream)


def _compare(runnable: EngineRunnable, model: bytes, precision: str, title: str) -> None:
    from onnx_layermerge.latency.backends._onnxruntime import OnnxRuntimeRunnable

    feeds = runnable.inputs()
    reference = OnnxRuntimeRunnable(model, {name: feed.shape for name, feed in feeds.items()})
    try:
        expected = reference.outputs(feeds)
    finally:
        reference.close()
    agree(expected, runnable.outputs(feeds), precision, f"The engine of {title}")
