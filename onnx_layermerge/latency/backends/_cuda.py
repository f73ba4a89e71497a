"""The few things that timing needs of a CUDA driver, behind one protocol and with nothing imported before it is opened.

1. cuda-python (``cuda.bindings.driver``): wheels, and it captures CUDA graphs.
2. pycuda: found where older TensorRT samples run; it exposes no stream capture, so work is enqueued anew every time.

Both share the device's primary context, which TensorRT and onnxruntime use too.  A fault of the device ends in a
`DeviceError`; that it has not enough memory for one model is that model's own `ModelError`.
"""

from __future__ import annotations

import importlib
import re

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends._cuda_python import CudaPython
from onnx_layermerge.latency.backends._driver import NO_LIBCUDA, DeviceFacts, Driver, one_line
from onnx_layermerge.latency.backends._pycuda import PyCuda

__all__ = ["CudaPython", "DeviceFacts", "Driver", "PyCuda", "open_driver"]


def open_driver(device: str = "cuda:0") -> Driver:
    """Open a device by its word, with the first adapter that is installed.

    Raises:
        DeviceError: no adapter, no driver, or no such device.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"There is no GPU {device!r}; name it as cuda:0.")
    index = int(match[1] or 0)
    for module_name, adapter in (("cuda.bindings.driver", CudaPython), ("pycuda.driver", PyCuda)):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise DeviceError(f"{NO_LIBCUDA[:-1]} ({one_line(error)}).") from error
        opened: Driver = adapter(module, index)
        return opened
    raise DeviceError("No CUDA binding for Python is installed; pip install cuda-python.")
