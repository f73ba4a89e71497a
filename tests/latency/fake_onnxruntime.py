"""The module ``onnxruntime`` with GPU providers that compute on the CPU: its rules about them, and how it cheats."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import numpy as np
import onnxruntime as real

# Every option that the documents of each provider name and that is used here.
DOCUMENTED = {
    "CUDAExecutionProvider": {
        "device_id", "use_tf32", "cudnn_conv_algo_search", "enable_cuda_graph", "prefer_nhwc", "gpu_mem_limit",
        "arena_extend_strategy", "do_copy_in_default_stream", "user_compute_stream", "cudnn_conv_use_max_workspace",
    },
    "TensorrtExecutionProvider": {
        "device_id", "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_engine_cache_enable",
        "trt_timing_cache_enable", "trt_auxiliary_streams", "trt_cuda_graph_enable", "trt_builder_optimization_level",
    },
}  # fmt: skip


@dataclasses.dataclass
class World:
    """What this onnxruntime has, how it fails, and what was asked of it."""

    available: tuple[str, ...] = (*DOCUMENTED, "CPUExecutionProvider")
    falls_back: bool = False
    on_cpu: tuple[str, ...] = ()
    graphs: bool = True
    factor: float = 1.0
    fails_at: int = 10**9
    tells_nodes: bool = True
    sessions: list[Session] = dataclasses.field(default_factory=list)


class Options:
    """``SessionOptions``."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class Value:
    """``OrtValue`` on a device: an array that the host sees only as a copy."""

    def __init__(self, array: np.ndarray, device: str, index: int) -> None:
        self.array, self.place = np.array(array), (device, index)

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray, device: str = "cpu", index: int = 0) -> Value:
        return cls(array, device, index)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Any, dtype: Any, device: str = "cpu", index: int = 0) -> Value:
        return cls(np.zeros(shape, dtype), device, index)

    def update_inplace(self, array: np.ndarray) -> None:
        assert array.shape == self.array.shape and array.dtype == self.array.dtype
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()


class Binding:
    """``IOBinding``."""

    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self.waited = 0

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def synchronize_outputs(self) -> None:
        self.waited += 1


class Session:
    """``InferenceSession``; like the real one it may take the CPU when a provider does not load."""

    def __init__(self, world: World, data: bytes, options: Options, providers: Any, enable_fallback: int) -> None:
        ((self.provider, self.options),) = providers
        unknown = set(self.options) - DOCUMENTED[self.provider]
        if unknown:
            raise ValueError(f"Unknown provider option: {sorted(unknown)[0]}")
        if self.provider.startswith("Tensorrt"):
            wrong = [k for k, v in self.options.items() if k.endswith("_enable") and v not in ("True", "False")]
            if wrong:
                raise RuntimeError(f"The value for the key '{wrong[0]}' should be 'True' or 'False'.")
        self.world, self.data, self.fallback = world, data, enable_fallback
        self.entries = options.entries
        self.graph = self.options.get("enable_cuda_graph") == "1" or self.options.get("trt_cuda_graph_enable") == "True"
        if world.on_cpu and self.entries.get("session.disable_cpu_ep_fallback") == "1" and not world.tells_nodes:
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP.")
        if self.graph and not world.graphs:
            raise RuntimeError("This session cannot use the graph capture feature.")
        self.runs, self.bound = 0, (0,)
        self._real = real.InferenceSession(data, providers=["CPUExecutionProvider"])
        world.sessions.append(self)
        if world.tells_nodes:
            self.get_provider_graph_assignment_info = self._assigned

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"] if self.world.falls_back else [self.provider, "CPUExecutionProvider"]

    def _assigned(self) -> list[Any]:
        node = types.SimpleNamespace(op_type="Conv", name="first", domain="")
        parts = [types.SimpleNamespace(ep_name=self.provider, get_nodes=lambda: [node])]
        for name in self.world.on_cpu:
            other = types.SimpleNamespace(op_type="Resize", name=name, domain="")
            parts.append(types.SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda other=other: [other]))
        return parts

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def io_binding(self) -> Binding:
        self.binding = Binding()
        return self.binding

    def run_with_iobinding(self, binding: Binding) -> None:
        self.runs += 1
        if self.runs > self.world.fails_at:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered\nmore lines")
        values = (*binding.inputs.values(), *binding.outputs.values())
        assert all(value.place[0] == "cuda" for value in values), "bound to the host"
        addresses = tuple(value.array.ctypes.data for value in values)
        assert not self.graph or self.runs <= 2 or addresses == self.bound, "a graph reads what it was recorded with"
        self.bound = addresses
        found = self._real.run(None, {name: value.array for name, value in binding.inputs.items()})
        for value, array in zip(binding.outputs.values(), found, strict=True):
            value.update_inplace((array * self.world.factor).astype(array.dtype))


def module(world: World) -> Any:
    """The module itself."""

    def session(data: bytes, options: Options, *, providers: Any, enable_fallback: int = 1) -> Session:
        return Session(world, data, options, providers, enable_fallback)

    return types.SimpleNamespace(
        __version__="1.99.0", get_available_providers=lambda: list(world.available), SessionOptions=Options,
        GraphOptimizationLevel=real.GraphOptimizationLevel, OrtValue=Value, InferenceSession=session,
        preload_dlls=lambda: print("something that no result may hold"),
    )  # fmt: skip
