"""What a user says of engines: handed to TensorRT alone, in the key where it changes a time."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_layermerge.errors import UsageError
from onnx_layermerge.latency import EngineOptions, open_backend
from onnx_layermerge.latency.backends import tensorrt

RANGE = ((1, 3), (4, 3), (8, 3))


def test_the_tensorrt_backends_get_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(tensorrt, "open_tensorrt", lambda *words, **named: seen.append((words, named)))
    open_backend("tensorrt-rtx", "cuda:1", "bf16", EngineOptions(3, "cache", "folder", 7.0, {"x": RANGE}))
    named = {"timing_cache": "cache", "save_engines": "folder", "shape_ranges": {"x": RANGE}, "build_limit_s": 7.0}
    assert seen == [(("tensorrt-rtx", "cuda:1", "bf16", 3), named)]


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": 0}, "--opt-level"), ({"timing_cache": "f"}, "--timing-cache"),
        ({"save_engines": "d"}, "--save-engines"),
        ({"build_limit_s": 1.0}, "--build-limit"), ({"ranges": {"x": RANGE}}, "a range in --shapes"),
    ],
)  # fmt: skip
def test_others_refuse_each_of_them(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' builds no engines that {said} .*--backend tensorrt"):
        open_backend(name, "cpu" if name == "onnxruntime" else "cuda:0", "fp32", EngineOptions(**options))


def test_only_what_changes_a_time_is_in_the_key() -> None:
    assert EngineOptions(timing_cache="f", save_engines="d", build_limit_s=1.0).settings() == EngineOptions().settings()
    assert EngineOptions().settings() == {"level": "default"}
    ranges = {"x": RANGE}
    kinds = [EngineOptions(), EngineOptions(3), EngineOptions(ranges=ranges), EngineOptions(3, ranges=ranges)]
    keys = [" ".join(f"{name}={value}" for name, value in each.settings().items()) for each in kinds]
    assert [[each.fits(f"io=linear {key}") for key in keys] for each in kinds] == [
        [index == other for other in range(4)] for index in range(4)
    ]
    assert EngineOptions().fits("") and not EngineOptions(3).fits("")


@pytest.mark.parametrize(
    "words",
    [{"level": 6}, {"level": -1}, {"build_limit_s": 0}, {"build_limit_s": float("nan")}, {"ranges": {"x": ((1,),)}}],
)
def test_nonsense_is_refused_at_once(words: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        EngineOptions(**words)
