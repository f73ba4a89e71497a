"""Opening the backend by its words, and the line of ``olm doctor``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from onnx_layermerge.errors import DeviceError, UsageError
from onnx_layermerge.latency.backends._cuda import CudaPython
from onnx_layermerge.latency.backends.tensorrt import NAMES, _status, open_tensorrt, reopen_tensorrt, status, validity
from tests.latency.fake_cuda import Gpu, cuda_python
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World
from tests.latency.tensorrt.nets import residual


@pytest.fixture
def here(version: str, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with a library and a GPU; its backend's name."""
    library = fake_library(version, world)
    monkeypatch.setattr(_status, "load", lambda name: library)
    monkeypatch.setattr(_status, "open_driver", lambda device: CudaPython(cuda_python(_gpu(world))))
    return library.name


def _gpu(world: World) -> Gpu:
    assert world.gpu is not None
    return world.gpu


def test_another_process_opens_the_same(here: str) -> None:
    backend = open_tensorrt(here, "cuda:0", "fp16", "3")
    module, _, function = backend.reopen.function.partition(":")
    again = getattr(importlib.import_module(module), function)(*backend.reopen.words)
    assert again.describe() == backend.describe() and again.describe().precision == "fp16"
    assert "level=3" in again.describe().settings
    assert again.build(residual(), {}).outputs(again.build(residual(), {}).inputs())
    again.close()
    backend.close()


def test_options_reach_the_backend_and_its_twin(here: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"save_engines": tmp_path / "engines", "build_limit_s": 30, "layout": "linear"}
    words["shape_ranges"] = {"x": ((1, 16, 14, 14), (1, 16, 14, 14), (8, 16, 14, 14))}
    if here == "tensorrt":
        words["timing_cache"] = tmp_path / "cache"
    backend = open_tensorrt(here, **words)
    twin = reopen_tensorrt(*backend.reopen.words)
    assert twin.describe() == backend.describe() and twin.build_limit_s == backend.build_limit_s == 30
    assert "io=linear level=default shapes=x:1x16x14x14..1x16x14x14..8x16x14x14" in twin.describe().settings
    twin.build(residual(), {})
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 1
    assert (tmp_path / "cache").exists() is (here == "tensorrt")
    twin.close()
    backend.close()
    if here != "tensorrt":
        with pytest.raises(UsageError, match="leave --timing-cache out"):
            open_tensorrt(here, timing_cache=tmp_path / "cache")


def test_what_the_runtime_says_of_an_engine(here: str) -> None:
    library = _status.load(here)
    assert validity(library, b"engine") == ("INVALID" if library.capabilities else None)


def test_a_usable_machine_is_described_and_left_as_it_was(here: str, world: World) -> None:
    found = status(here)
    assert found.usable and "Made Up 1000 (compute capability 8.6)" in found.detail and "CUDA 13.1" in found.detail
    assert _gpu(world).left() == {}


def test_a_gpu_that_the_library_does_not_name(here: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = CudaPython.facts

    def hopper(self: CudaPython) -> object:
        return type(facts(self))("Made Up 9000", "9.0", "CUDA 13.1")

    monkeypatch.setattr(CudaPython, "facts", hopper)
    found = status(here)
    assert found.usable is (here == "tensorrt")
    if not found.usable:
        assert "does not support compute capability 9.0 of Made Up 9000, only 7.5" in found.detail
    assert _gpu(world).left() == {}


def test_a_library_without_a_driver_says_what_it_can_do(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str) -> None:
        raise DeviceError("No CUDA binding for Python is installed; pip install cuda-python.")

    monkeypatch.setattr(_status, "open_driver", refuse)
    found = status(here)
    assert not found.usable and "pip install cuda-python" in found.detail
    assert ("builds ahead of time" in found.detail) is (here == "tensorrt-rtx")


def test_a_runtime_that_does_not_start_gives_the_gpu_back(
    here: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(_status.load(here).module.Runtime, "__init__", refuse)
    with pytest.raises(DeviceError, match="cannot start a runtime on Made Up 1000"):
        open_tensorrt(here)
    assert _gpu(world).left() == {}


def test_words_that_make_no_sense(here: str) -> None:
    with pytest.raises(DeviceError, match="runs on a GPU; say --device cuda:0"):
        open_tensorrt(here, "cpu")
    with pytest.raises(UsageError, match="'high' is unknown; choose from 0 to 5"):
        open_tensorrt(here, level="high")


@pytest.mark.parametrize("name", NAMES)
def test_this_machine_whatever_it_has(name: str) -> None:
    found = status(name)
    assert found.name == name and found.detail and "\n" not in found.detail
