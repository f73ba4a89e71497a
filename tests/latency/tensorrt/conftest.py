"""Libraries to build with: a fake of every version's signatures, and TensorRT-RTX where it is installed."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.latency.backends.tensorrt import Library, load
from onnx_layermerge.latency.backends.tensorrt._library import library_of
from tests.latency.fake_cuda import Gpu
from tests.latency.tensorrt.fake import VERSIONS, World, fake


def fake_library(version: str, world: World) -> Library:
    name = "tensorrt-rtx" if "rtx" in version else "tensorrt"
    return library_of(name, fake(version, world))


def real_library() -> Library:
    try:
        return load("tensorrt-rtx")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def real() -> Library:
    """TensorRT-RTX itself, which needs no GPU to build."""
    return real_library()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world() -> World:
    return World(Gpu())


@pytest.fixture
def library(version: str, world: World) -> Library:
    return fake_library(version, world)


@pytest.fixture(params=[*VERSIONS, "real"])
def any_library(request: pytest.FixtureRequest, world: World) -> Library:
    """Every fake and the real one: what they refuse must read the same."""
    return real_library() if request.param == "real" else fake_library(request.param, world)


@pytest.fixture
def target() -> Any:
    """Compute capabilities to build for with a library: one where that can be named, else none."""
    return lambda library: ("8.6",) if library.capabilities else ()
