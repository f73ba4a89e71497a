"""Blocks of a model built ahead of time: each once, failures recorded, on a fake library and on the real one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnx
import pytest

from onnx_layermerge.errors import DeviceError, ModelError, UsageError
from onnx_layermerge.flow import _build_only
from onnx_layermerge.flow._build_only import build_only
from onnx_layermerge.latency.backends.tensorrt import load
from tests.latency.fake_cuda import Gpu
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World
from tests.zoo import Net


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three equal convolutions between a stem and a classifier."""
    net = Net()
    value = net.relu(net.conv(net.input("x", (1, 3, 16, 16)), "stem", 16), "stem.relu")
    for index in range(3):
        value = net.relu(net.conv(value, f"conv{index}"), f"relu{index}")
    onnx.save(net.proto(net.classifier(value)), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(Gpu())
    library = fake_library("tensorrt-rtx-1", world)
    monkeypatch.setattr(_build_only, "load", lambda name: library)
    return world


def test_every_distinct_block_is_built_once(path: Path, world: World) -> None:
    report = build_only([path, path], capabilities=("8.6", "12.0", "8.6"))
    (model,) = report.models.values()
    assert 0 < len(report.blocks) == len(set(model.blocks)) == len(world.configs)
    assert len(report.blocks) < 2 * model.candidates, "equal blocks must be shared"
    assert report.capabilities == ("8.6", "12.0") and not report.failed and report.backend.startswith("tensorrt-rtx")
    assert all(block.engine_bytes > 0 and block.layers and block.seconds > 0 for block in report.blocks)
    assert any(block.label.startswith("keep ") for block in report.blocks), "what is replaced is built too"
    assert json.loads(json.dumps(dataclasses.asdict(report)))["precision"] == "fp32"


def test_blocks_that_fail_are_recorded_and_the_others_go_on(
    path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = _build_only.build, []

    def build(*words: object) -> object:
        seen.append(words)
        if len(seen) == 2:
            raise ModelError("no kernel.")
        if len(seen) == 3:
            raise DeviceError("no memory.")
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(_build_only, "build", build)
    report = build_only([path], capabilities=("8.6",))
    assert [block.reason for block in report.failed] == ["no kernel.", "no memory."]
    assert all(block.engine_bytes == 0 and block.layers == () for block in report.failed)
    assert len(report.blocks) == len(seen) > 3


def test_fp16_blocks_are_built_in_fp16(path: Path, world: World) -> None:
    build_only([path], capabilities=("8.6",), precision="fp16")
    kinds = {tensor.dtype.name for network in world.networks for tensor in (*network._inputs, *network._outputs)}
    assert kinds == {"HALF"}


def test_progress_counts_the_blocks(path: Path, world: World) -> None:
    seen: list[tuple[str, int, int, str]] = []
    report = build_only([path], capabilities=("8.6",), progress=lambda *words: seen.append(words))
    steps = [(done, total) for stage, done, total, _ in seen if stage == "build"]
    assert steps == [(index, len(report.blocks)) for index in range(len(report.blocks) + 1)]


def test_words_that_make_no_sense(path: Path, world: World) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        build_only([], capabilities=("8.6",))
    with pytest.raises(UsageError, match="at least one compute capability"):
        build_only([path], capabilities=())
    with pytest.raises(UsageError, match="int8 is unknown"):
        build_only([path], capabilities=("8.6",), precision="int8")
    with pytest.raises(DeviceError, match=r"compute capability '9\.0'; it builds for 7\.5"):
        build_only([path], capabilities=("8.6", "9.0"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_and_fuses_every_block(precision: str, path: Path) -> None:
    """Each convolution is one layer with its activation, and nothing is reformatted at the ends of a block."""
    try:
        load("tensorrt-rtx")
    except DeviceError as error:
        pytest.skip(str(error))
    report = build_only([path], capabilities=("8.6",), precision=precision)
    assert report.blocks and [block.reason for block in report.failed] == []
    layers = {block.label: [set(layer.nodes) for layer in block.layers] for block in report.blocks}
    ends = {"c0/stem.relu.widen"}, {"c0/narrow"}
    convs = [{f"c0/conv{index}", f"c0/relu{index}"} for index in (0, 1)]
    assert layers["keep stem.relu → relu1"] == [ends[0], *convs, ends[1]]
    assert layers["fit 3x3 conv0…conv1"] == [ends[0], {"c0/replacement", "c0/relu1"}, ends[1]]
    assert layers["drop conv0…relu0"] == [*ends]
