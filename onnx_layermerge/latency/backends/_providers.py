"""The GPU execution providers of onnxruntime: their options, what each can do, and whether this onnxruntime has them.

The names of the options are those of onnxruntime's documents; the two providers write their booleans differently.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import io
import os
from typing import Any

from onnx_layermerge.errors import DeviceError, UsageError

__all__ = ["PROVIDERS", "Provider", "check_precision", "load_module", "loaded_version"]

_TF32_OFF = "NVIDIA_TF32_OVERRIDE"


@dataclasses.dataclass(frozen=True)
class Provider:
    """An execution provider: onnxruntime's word for it, what it can do, and the library that does its work."""

    name: str
    title: str
    precisions: tuple[str, ...]
    library: str
    version_symbol: str
    sonames: tuple[str, ...]

    def options(self, index: int, precision: str, graph: bool) -> dict[str, str]:
        """Its options, all as words; the two write their booleans differently."""
        if self.name == "CUDAExecutionProvider":
            return {
                "device_id": str(index),
                "use_tf32": str(int(precision == "tf32")),
                "cudnn_conv_algo_search": "EXHAUSTIVE",
                "enable_cuda_graph": str(int(graph)),
            }
        # Without its fp16 and int8 switches it builds strongly typed networks: the types are those of the model.
        return {
            "device_id": str(index),
            "trt_fp16_enable": "False",
            "trt_int8_enable": "False",
            "trt_engine_cache_enable": "False",
            "trt_auxiliary_streams": "0",
            "trt_cuda_graph_enable": str(graph),
        }

    def settings(self) -> dict[str, str]:
        """What of them is part of the key."""
        if self.name == "CUDAExecutionProvider":
            return {"conv_search": "exhaustive"}
        return {"aux_streams": "0"}


PROVIDERS = {
    "onnxruntime-cuda": Provider(
        "CUDAExecutionProvider", "onnxruntime's CUDA provider", ("fp32", "tf32", "fp16"),
        "cudnn", "cudnnGetVersion", ("libcudnn.so.9", "libcudnn.so.8", "cudnn64_9.dll", "cudnn64_8.dll"),
    ),
    "onnxruntime-tensorrt": Provider(
        "TensorrtExecutionProvider", "onnxruntime's TensorRT provider", ("fp32", "tf32", "fp16"),
        "tensorrt", "getInferLibVersion",
        ("libnvinfer.so.11", "libnvinfer.so.10", "nvinfer_11.dll", "nvinfer_10.dll"),
    ),
}  # fmt: skip


def check_precision(name: str, provider: Provider, precision: str) -> None:
    """Raises UsageError unless the provider computes in this precision and in no other."""
    if precision not in provider.precisions:
        raise UsageError(
            f"{provider.title} is offered in {', '.join(provider.precisions)}, not in {precision}; use --backend "
            "tensorrt for that."
        )
    if name == "onnxruntime-tensorrt" and precision == "fp32" and os.environ.get(_TF32_OFF) != "0":
        raise UsageError(
            f"{provider.title} cannot switch TF32 off by itself; say --precision tf32, or set {_TF32_OFF}=0 in the "
            "environment for fp32."
        )


def load_module(provider: Provider) -> Any:
    """The onnxruntime of this Python, if it was built with the provider.

    Raises:
        DeviceError: it was not, or there is none.
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DeviceError(
            f"The onnxruntime package cannot be imported ({error}); install it with pip install onnxruntime-gpu."
        ) from error
    if provider.name not in module.get_available_providers():
        raise DeviceError(
            f"onnxruntime {module.__version__} is installed without {provider.name}; pip uninstall onnxruntime, then "
            "pip install onnxruntime-gpu, which takes its place."
        )
    preload = getattr(module, "preload_dlls", None)
    if preload is not None:
        # CUDA and cuDNN from pip are not where the linker looks; it prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()
    return module


def loaded_version(provider: Provider) -> str:
    """The version of the library that this process has loaded for the provider, as it tells it itself."""
    mode = getattr(os, "RTLD_NOLOAD", None)
    for soname in provider.sonames:
        try:
            library = ctypes.CDLL(soname) if mode is None else ctypes.CDLL(soname, mode=mode | os.RTLD_LAZY)
            ask = getattr(library, provider.version_symbol)
        except (OSError, AttributeError):
            continue
        ask.restype = ctypes.c_size_t
        return str(int(ask()) & 0xFFFFFFFF)
    return "unknown"
