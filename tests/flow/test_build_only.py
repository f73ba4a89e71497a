"""Blocks of a model built ahead of time: each once, failures recorded, on a fake library and on the real one."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_layermerge.errors import DeviceError, OutputError, UsageError
from onnx_layermerge.flow import _build_only
from onnx_layermerge.flow._build_only import build_only
from onnx_layermerge.flow._prepare import prepare
from onnx_layermerge.flow._sheet import sheet_of
from onnx_layermerge.latency import EngineOptions
from onnx_layermerge.latency.backends.tensorrt import load
from tests.latency.fake_cuda import Gpu
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World
from tests.latency.tensorrt.other_process import reopen
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
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fake library here and in the process that builds; what that one did is in the log, a line of JSON a build."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setattr(_build_only, "load", lambda name: fake_library("tensorrt-rtx-1", World(Gpu())))
    monkeypatch.setattr(_build_only, "_reopen", lambda name, options: reopen(options, path))
    return path


def built(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_every_distinct_block_is_built_once(path: Path, log: Path) -> None:
    report = build_only([path, path], capabilities=("8.6", "12.0", "8.6"))
    (model,) = report.models.values()
    assert 0 < len(report.blocks) == len(set(model.blocks)) == len(built(log))
    assert [block.key for block in report.blocks] == [each["key"] for each in built(log)] == list(model.blocks)
    assert len(report.blocks) < 2 * model.candidates, "equal blocks must be shared"
    assert report.capabilities == ("8.6", "12.0") and not report.failed and report.backend.startswith("tensorrt-rtx")
    assert all(block.engine_bytes > 0 and block.layers and block.seconds > 0 for block in report.blocks)
    assert any(block.label.startswith("keep ") for block in report.blocks), "what is replaced is built too"
    assert json.loads(json.dumps(dataclasses.asdict(report)))["precision"] == "fp32"
    assert {each["process"] for each in built(log)}.isdisjoint({os.getpid()}) and report.median_s > 0


def test_blocks_that_fail_are_recorded_and_the_others_go_on(path: Path, log: Path) -> None:
    """Refused, short of memory, killed, hung: each is one block's failure."""
    prepared = prepare(path, method="olm")
    keys = list(sheet_of(prepared).blocks)
    ways = ["model", "device", "killed", "hangs"]
    log.with_suffix(".plan").write_text(json.dumps(dict(zip(keys, ways, strict=False))), encoding="utf-8")
    report = build_only([path], capabilities=("8.6",), engines=EngineOptions(build_limit_s=2))
    assert [block.reason for block in report.blocks][: len(ways)] == [
        "no kernel.", "no memory.", "killed by SIGKILL, as the system does when memory runs out", "hung for 2 s",
    ]  # fmt: skip
    assert all(block.engine_bytes == 0 and block.layers == () for block in report.failed)
    assert len(report.failed) == len(ways) < len(report.blocks) == len(keys)
    assert sorted(block.key for block in report.blocks) == sorted(keys)


def test_fp16_blocks_are_built_in_fp16(path: Path, log: Path) -> None:
    build_only([path], capabilities=("8.6",), precision="fp16")
    assert {kind for each in built(log) for kind in each["types"]} == {"HALF"}


def test_progress_counts_the_blocks(path: Path, log: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    report = build_only([path], capabilities=("8.6",), progress=lambda *words: seen.append(words))
    steps = [(done, total) for stage, done, total, _ in seen if stage == "build"]
    every = [(index, len(report.blocks)) for index in range(len(report.blocks) + 1)]
    assert steps == [*every, every[-1]]


def test_engines_are_saved_under_the_keys_of_their_blocks(path: Path, log: Path, tmp_path: Path) -> None:
    report = build_only([path], capabilities=("8.6",), engines=EngineOptions(save_engines=tmp_path / "engines"))
    for block in report.blocks:
        assert (tmp_path / "engines" / f"{block.key}.engine").stat().st_size == block.engine_bytes
    with pytest.raises(OutputError, match="cannot be written"):
        build_only([path], capabilities=("8.6",), engines=EngineOptions(save_engines=log))  # a file, not a folder


def test_words_that_make_no_sense(path: Path, log: Path) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        build_only([], capabilities=("8.6",))
    with pytest.raises(UsageError, match="at least one compute capability"):
        build_only([path], capabilities=())
    with pytest.raises(UsageError, match="int8 is unknown"):
        build_only([path], capabilities=("8.6",), precision="int8")
    with pytest.raises(UsageError, match="build limit of 0 s"):
        build_only([path], capabilities=("8.6",), engines=EngineOptions(build_limit_s=0))
    with pytest.raises(DeviceError, match=r"compute capability '9\.0'; it builds for 7\.5"):
        build_only([path], capabilities=("8.6", "9.0"))
    assert not built(log)


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
