"""What a library says, or does not say, when it goes wrong in ways that are seldom met."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_layermerge.errors import DeviceError, ModelError, OutputError
from onnx_layermerge.latency.backends.tensorrt import Library
from onnx_layermerge.latency.backends.tensorrt._errors import build_error, parse_error
from onnx_layermerge.latency.backends.tensorrt._files import write_whole
from onnx_layermerge.latency.backends.tensorrt._library import library_of
from onnx_layermerge.latency.backends.tensorrt._runnable import _engine_type
from onnx_layermerge.latency.backends.tensorrt._status import validity
from tests.latency.tensorrt.fake import World, fake
from tests.latency.tensorrt.nets import conv, residual
from tests.latency.tensorrt.test_engine import Open, opened  # noqa: F401 (a fixture)


def test_a_failure_without_a_word() -> None:
    parser = SimpleNamespace(num_errors=0)
    assert str(parse_error("It", parser)) == (
        "It cannot parse this model, and does not say why; try another version of it."
    )
    assert str(build_error("It", [("INFO", "all is well")])) == (
        "It cannot build this model, and does not say why; try another version of it."
    )


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("")
    with pytest.raises(OutputError, match=r"e\.engine cannot be written \(.*\); name another place"):
        write_whole(tmp_path / "engines" / "e.engine", b"")


def test_a_version_without_the_call_that_runs() -> None:
    module = fake("tensorrt-10", World())
    del module.IExecutionContext.execute_async_v3
    with pytest.raises(DeviceError, match="has no execute_async_v3; install TensorRT 10 or newer"):
        library_of("tensorrt", module)


def test_no_runtime_to_ask() -> None:
    class Runtime:
        def __init__(self, log: object) -> None:
            raise RuntimeError("no driver")

        def get_engine_validity(self, engine: bytes) -> None:
            raise AssertionError("never made")

    module = SimpleNamespace(**{**vars(fake("tensorrt-rtx-1", World())), "Runtime": Runtime})
    with pytest.raises(DeviceError, match=r"cannot start a runtime here \(no driver\); see olm doctor"):
        validity(Library("tensorrt-rtx", module, "1.0"), b"engine")


def test_weights_beside_the_model(opened: Open) -> None:  # noqa: F811
    with pytest.raises(ModelError, match="takes models of up to 2 GB of weights here, and this one has more; use"):
        opened().build(object(), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "method", "answer", "words"),
    [
        ("ICudaEngine", "create_execution_context", None, "has no execution context for this engine .*; lower --batch"),
        ("IExecutionContext", "get_tensor_shape", (-1, 16), "shape .* depends on the data; cut it there"),
        ("IBuilderConfig", "add_optimization_profile", -1, "make no optimization profile; check --shapes"),
    ],
)
def test_a_library_that_turns_away(
    kind: str, method: str, answer: Any, words: str, opened: Open, library: Library, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    backend = opened()
    monkeypatch.setattr(getattr(library.module, kind), method, lambda self, *_: answer)
    model, shapes = residual(), {}
    if method == "add_optimization_profile":
        model, shapes = conv(("N", 16, 8, 8)).SerializeToString(), {"x": (2, 16, 8, 8)}
    with pytest.raises(ModelError, match=words):
        backend.build(model, shapes)


def test_a_type_that_has_no_like_here() -> None:
    with pytest.raises(ModelError, match="'y' is a FP4, which cannot be timed; export numbers"):
        _engine_type(SimpleNamespace(name="FP4"), SimpleNamespace(name="y"))  # type: ignore[arg-type]
