"""Options for engines and ranges of shapes: what reaches the package, and what a backend without engines says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import onnx_layermerge
from onnx_layermerge.latency import EngineOptions, compare
from onnx_layermerge.latency.backends._cuda import CudaPython
from onnx_layermerge.latency.backends.tensorrt import _status
from onnx_layermerge.verify import _speed
from tests.latency.fake_cuda import Gpu, cuda_python
from tests.latency.tensorrt.conftest import fake_library
from tests.latency.tensorrt.fake import World

COMMANDS = ["profile", "plan", "compress", "verify"]
RANGE = ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))
OPTIONS = [
    ("--opt-level", "5"), ("--timing-cache", "t.cache"), ("--save-engines", "engines"), ("--build-limit", "90"),
    ("--shapes", "x:1..4..16x3x8x8"),
]  # fmt: skip


def _words(command: str, model: Path) -> list[Any]:
    more = {"compress": [model.parent / "out.onnx", "--speedup", "1.1"], "verify": [model]}
    return [command, model, *more.get(command, [])]


@pytest.mark.parametrize("command", COMMANDS)
def test_all_of_it_reaches_the_package(command: str, model: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def called(*paths: object, **words: Any) -> None:
        seen.update(words)
        raise onnx_layermerge.DeviceError("enough.")

    monkeypatch.setattr(onnx_layermerge, command, called)
    assert run(*_words(command, model), *(word for pair in OPTIONS for word in pair)).exit_code == 5
    assert seen["engines"] == EngineOptions(5, "t.cache", "engines", 90.0, {"x": RANGE})
    assert seen["shapes"] == {"x": (4, 3, 8, 8)}
    assert run(*_words(command, model), "--shapes", "x:2x3x8x8").exit_code == 5
    assert seen["engines"] is None and seen["shapes"] == {"x": (2, 3, 8, 8)}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_a_backend_without_engines_refuses_them(
    command: str, option: str, value: str, model: Path, run, timings
) -> None:
    table = [] if command == "verify" else timings
    result = run(*_words(command, model), option, value, *table)
    assert result.exit_code == 2 and option in result.stderr and "--backend tensorrt" in result.stderr
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in model.parent.iterdir()) == ["in.onnx"]


@pytest.mark.parametrize("words", [("--opt-level", "6"), ("--build-limit", "0"), ("--shapes", "x:4..1x3x8x8")])
def test_values_that_make_no_sense(words: tuple[str, str], model: Path, run) -> None:
    result = run("verify", model, model, "--backend", "tensorrt", *words)
    assert result.exit_code == 2 and words[0] in result.stderr


def test_inspect_builds_nothing_and_takes_no_range(model: Path, run) -> None:
    result = run("inspect", model, "--shapes", "x:1..8x3x8x8")
    assert result.exit_code == 2 and "one size a dimension" in result.stderr


def test_an_engine_for_a_range_is_timed_at_its_usual_shape(
    model: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(Gpu())
    monkeypatch.setattr(_status, "load", lambda name: fake_library("tensorrt-10", world))
    monkeypatch.setattr(_status, "open_driver", lambda device: CudaPython(cuda_python(world.gpu)))
    monkeypatch.setattr(_speed, "compare", partial(compare, isolate=False))  # another process has no such world
    gpu = ("--backend", "tensorrt", "--device", "cuda:0", "-q")
    words = ("--shapes", "x:1..4..16x3x8x8", "--opt-level", "2", "--timing-cache", tmp_path / "cache")
    result = run("verify", model, model, *gpu, *words)
    assert result.exit_code == 0, result.output
    assert world.configs and all(config._profiles == [{"x": list(RANGE)}] for config in world.configs)
    assert all(config.builder_optimization_level == 2 for config in world.configs)
    assert (tmp_path / "cache").exists()
    for said in (
        "level=2", "shapes=x:1x3x8x8..4x3x8x8..16x3x8x8", "--shapes=x:4x3x8x8", "--minShapes=x:1x3x8x8",
        "--optShapes=x:4x3x8x8", "--maxShapes=x:16x3x8x8",
    ):  # fmt: skip
        assert said in result.stdout.replace("\n", ""), said
    assert "cache" not in result.stdout
    result = run("verify", model, model, *gpu, "--shapes", "x:1..4x1..3x8x8")
    assert result.exit_code == 2 and "--shapes x:1x1x8x8 contradicts the model" in result.stderr
