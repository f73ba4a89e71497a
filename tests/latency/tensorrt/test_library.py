"""Which library is found, and the one sentence on why none is."""

from __future__ import annotations

import sys
import types

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends.tensorrt import Library, _library, load
from tests.latency.tensorrt.fake import World, fake


def test_the_bindings_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake("tensorrt-11", World())
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if not installed
    monkeypatch.setitem(sys.modules, "tensorrt_bindings", module)
    found = load("tensorrt")
    assert found.module is module and found.title == f"tensorrt {module.__version__}" and found.capabilities == ()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=f"^{name} is not installed; install .*pip"):
        load(name)


def test_a_library_of_another_major_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise ImportError("libnvinfer.so.10: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(_library.importlib, "import_module", refuse)
    with pytest.raises(DeviceError, match=r"installed but cannot be loaded \(libnvinfer\.so\.10: cannot open"):
        load("tensorrt")


@pytest.mark.parametrize("lacking", ["OnnxParser", "Runtime"])
def test_a_version_that_is_too_old(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake("tensorrt-10", World())
    delattr(module, lacking)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(DeviceError, match=f"has no {lacking}; install TensorRT 10 or newer"):
        load("tensorrt")


def test_capabilities_are_the_librarys_own(real: Library) -> None:
    assert {"8.6", "8.9", "12.0"} <= set(real.capabilities) and "9.0" not in real.capabilities
    assert real.capability("12.0") is real.module.ComputeCapability.SM120
