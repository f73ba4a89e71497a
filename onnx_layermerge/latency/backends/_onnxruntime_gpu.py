"""onnxruntime on a GPU: the CUDA and the TensorRT execution provider, each a backend with a key of its own.

1. The model gets the shapes and the types that it is deployed in (``--precision`` casts it, as for TensorRT).
2. The session has one provider and may not use the CPU: onnxruntime would rather compute there than fail, silently.
   That is forbidden by its own option, and checked again by what it says of the session and of every node.
3. Inputs and outputs are bound to memory of the device, the provider records its work as a CUDA graph where it can, and
   the outputs are compared with those of the CPU before anybody can time them.
4. onnxruntime gives no events: a run ends when its outputs are there, and the clock is wall time.  What a launch and a
   wait cost is in every number alike, and cancels in slopes and differences.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_layermerge.errors import DeviceError, ModelError, OlmError
from onnx_layermerge.latency._clock import Instant, wall_clock
from onnx_layermerge.latency._device import DeviceKey
from onnx_layermerge.latency.backends import BackendStatus, Reopen
from onnx_layermerge.latency.backends._agreement import agree
from onnx_layermerge.latency.backends._cuda import open_driver
from onnx_layermerge.latency.backends._driver import DeviceFacts
from onnx_layermerge.latency.backends._providers import PROVIDERS, check_precision, load_module, loaded_version

if TYPE_CHECKING:
    from onnx_layermerge.graph import Packed

__all__ = ["NAMES", "GpuRunnable", "OnnxRuntimeGpuBackend", "open_gpu", "status"]

Array = npt.NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
# The first run allocates, the second is recorded, the third is the first replay.
_FIRST_RUNS = 3
NAMES = tuple(PROVIDERS)


def open_gpu(name: str, device: str = "cuda:0", precision: str = "fp32") -> OnnxRuntimeGpuBackend:
    """Open a GPU with an execution provider; one small convolution is loaded there, to see that it is not the CPU's.

    Raises:
        DeviceError: onnxruntime has not this provider, or cannot use it here; no driver, or no such device.
        UsageError: the provider cannot compute in this precision.
    """
    provider = PROVIDERS[name]
    check_precision(name, provider, precision)
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"{provider.title} runs on a GPU, not on {device!r}; say --device cuda:0.")
    module = load_module(provider)
    driver = open_driver(device)
    try:
        facts = driver.facts()
    finally:
        driver.close()
    reopen = Reopen(f"{__name__}:open_gpu", (name, device, precision))
    backend = OnnxRuntimeGpuBackend(module, name, facts, int(match[1] or 0), precision, reopen=reopen)
    backend.probe()
    return backend


def status(name: str, device: str = "cuda:0") -> BackendStatus:
    """The line of a backend; never raises, and leaves nothing open."""
    try:
        # Every GPU and provider can do tf32 or has nothing of the kind; fp32 depends on the environment.
        key = open_gpu(name, device, "tf32").describe()
    except OlmError as error:
        return BackendStatus(name, False, str(error))
    words = key.text().replace(f" / tf32 / protocol {key.protocol}", "")
    return BackendStatus(name, True, f"{words}, {', '.join(PROVIDERS[name].precisions)}")


class OnnxRuntimeGpuBackend:
    """Backends ``onnxruntime-cuda`` and ``onnxruntime-tensorrt`` on one GPU; ``clock`` is the one to time them with."""

    def __init__(
        self, module: Any, name: str, facts: DeviceFacts, index: int, precision: str, *, reopen: Reopen | None = None
    ) -> None:
        self.module, self.provider = module, PROVIDERS[name]
        self._name, self._facts, self.index, self.precision = name, facts, index, precision
        self._version = ""
        if reopen is not None:
            self.reopen = reopen

    def describe(self) -> DeviceKey:
        # Asked once: a key must not change when a library is loaded later.
        self._version = self._version or loaded_version(self.provider)
        settings = {
            "clock": "wall-synchronized",
            "cuda_graph": "where-possible",
            self.provider.library: self._version,
            **self.provider.settings(),
        }
        return DeviceKey(
            backend=self._name,
            backend_version=str(self.module.__version__),
            device=f"{self._facts.name} (compute capability {self._facts.capability})",
            threads=0,
            precision=self.precision,
            driver=self._facts.driver,
            settings=" ".join(f"{name}={value}" for name, value in sorted(settings.items())),
        )

    def clock(self) -> Instant:
        """Wall time; every run has ended when it is read."""
        return wall_clock()

    def probe(self) -> None:
        """Load one convolution.

        Raises:
            DeviceError: the provider cannot be used on this machine.
        """
        from onnx_layermerge.latency.backends._deployed import one_convolution

        try:
            self.session(one_convolution(self.precision), graph=False)
        except ModelError as error:
            raise DeviceError(f"onnxruntime {self.module.__version__}, {self._facts.name}: {error}") from error

    def build(self, model: bytes | Packed, shapes: Shapes) -> GpuRunnable:
        """Fix the shapes, cast to the backend's precision, load, and compare with onnxruntime on the CPU.

        Raises:
            ModelError: the provider cannot run all of it, or computes something else.
        """
        from onnx_layermerge.latency.backends._deployed import deployed
        from onnx_layermerge.latency.backends._onnxruntime import OnnxRuntimeRunnable

        if not isinstance(model, bytes):
            raise ModelError(
                f"{self.provider.title} takes models of up to 2 GB of weights here, and this one has more; use "
                "--device cpu."
            )
        reference = OnnxRuntimeRunnable(model, shapes)
        try:
            feeds = reference.inputs()
            expected = reference.outputs(feeds)
        finally:
            reference.close()
        data = deployed(model, feeds, self.precision)
        sizes = [value.shape for value in expected]
        try:
            runnable = GpuRunnable(self, data, feeds, sizes, graph=True)
        except ModelError:
            # Not everything can be recorded; what cannot be run at all fails once more, with the better reason.
            runnable = GpuRunnable(self, data, feeds, sizes, graph=False)
        with contextlib.ExitStack() as undo:
            undo.callback(runnable.close)
            agree(expected, runnable.outputs(feeds), self.precision, self.provider.title)
            undo.pop_all()
        return runnable

    def session(self, data: bytes, *, graph: bool) -> Any:
        """A session in which the provider computes every node.

        Raises:
            ModelError: there is none.
        """
        from onnx_layermerge.latency.backends._onnxruntime import ORT_ERRORS, first_line

        options = self.module.SessionOptions()
        options.graph_optimization_level = self.module.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        wanted = (self.provider.name, self.provider.options(self.index, self.precision, graph))
        try:
            session = self.module.InferenceSession(data, options, providers=[wanted], enable_fallback=0)
        except ORT_ERRORS as error:
            raise ModelError(
                f"{self.provider.title} cannot build this model ({first_line(error)}); update onnxruntime-gpu."
            ) from error
        registered = list(session.get_providers())
        if self.provider.name not in registered:
            raise ModelError(
                f"{self.provider.title} could not be loaded; onnxruntime took {', '.join(registered)}, so see olm "
                "doctor."
            )
        elsewhere = _elsewhere(session, self.provider.name)
        if elsewhere:
            raise ModelError(
                f"{self.provider.title} left {elsewhere}, so its time would not be the GPU's; use --backend tensorrt."
            )
        return session


class GpuRunnable:
    """A session with inputs and outputs on the device; ``recorded`` tells whether it was asked for a CUDA graph."""

    def __init__(
        self,
        backend: OnnxRuntimeGpuBackend,
        data: bytes,
        feeds: Mapping[str, Array],
        sizes: list[tuple[int, ...]],
        *,
        graph: bool,
    ) -> None:
        from onnx_layermerge.latency.backends._onnxruntime import DTYPES

        self._title, self.recorded = backend.provider.title, graph
        self._session: Any = backend.session(data, graph=graph)
        place = ("cuda", backend.index)
        values = backend.module.OrtValue
        with self._errors():
            self._binding: Any = self._session.io_binding()
            self._inputs: dict[str, Any] = {}
            self._presets: dict[str, Array] = {}
            for declared in self._session.get_inputs():
                array = np.ascontiguousarray(feeds[declared.name], DTYPES[declared.type])
                self._presets[declared.name] = array
                self._inputs[declared.name] = values.ortvalue_from_numpy(array, *place)
                self._binding.bind_ortvalue_input(declared.name, self._inputs[declared.name])
            self._outputs: list[Any] = []
            for declared, size in zip(self._session.get_outputs(), sizes, strict=True):
                if declared.type not in DTYPES:
                    raise ModelError(
                        f"Output {declared.name!r} is a {declared.type}, which cannot be timed; export numbers."
                    )
                value = values.ortvalue_from_shape_and_type(list(size), DTYPES[declared.type], *place)
                self._outputs.append(value)
                self._binding.bind_ortvalue_output(declared.name, value)
        for _ in range(_FIRST_RUNS):
            self.run()

    def run(self) -> None:
        with self._errors():
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()

    def inputs(self) -> dict[str, Array]:
        """The preset inputs, in the types of the session."""
        return dict(self._presets)

    def outputs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the model's order; half-precision ones come as float32."""
        unfit = [n for n, preset in self._presets.items() if n not in feeds or feeds[n].shape != preset.shape]
        if unfit:
            raise ModelError(f"Input {unfit[0]!r} takes the shape {self._presets[unfit[0]].shape} here; give that one.")
        try:
            self._feed(feeds)
            self.run()
            with self._errors():
                found = [np.array(value.numpy()) for value in self._outputs]
        finally:
            self._feed(self._presets)
        return [each.astype(np.float32) if each.dtype == np.float16 else each for each in found]

    def close(self) -> None:
        self._binding = self._session = None
        self._inputs, self._outputs = {}, []

    def _feed(self, feeds: Mapping[str, Array]) -> None:
        """In place: what was recorded reads the same addresses ever after."""
        with self._errors():
            for name, value in self._inputs.items():
                value.update_inplace(np.ascontiguousarray(feeds[name], self._presets[name].dtype))

    @contextlib.contextmanager
    def _errors(self) -> Any:
        from onnx_layermerge.latency.backends._onnxruntime import ORT_ERRORS, first_line

        try:
            yield
        except ORT_ERRORS as error:
            raise ModelError(
                f"{self._title} cannot run this model ({first_line(error)}); update onnxruntime-gpu."
            ) from error


def _elsewhere(session: Any, provider: str) -> str:
    """Nodes that another provider computes, in words; "" where there are none, or onnxruntime is too old to tell."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return ""
    found = [
        f"{node.op_type} {node.name!r} to {part.ep_name}"
        for part in ask()
        if part.ep_name != provider
        for node in part.get_nodes()
    ]
    return f"{found[0]} and {len(found) - 1} other nodes" if len(found) > 1 else "".join(found)
