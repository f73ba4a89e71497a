"""Tables, processes and libraries that go wrong in ways that are seldom met."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_layermerge.errors import DeviceError, ModelError, OlmError, OutputError, ProfileError
from onnx_layermerge.latency import _json_form, _process
from onnx_layermerge.latency._schema import translated
from onnx_layermerge.latency._supervisor import isolated_slopes
from onnx_layermerge.latency._worker import _Link
from onnx_layermerge.latency.backends import _cuda, _onnxruntime, open_backend
from onnx_layermerge.latency.backends._cuda import PyCuda, open_driver
from tests.latency.fake_cuda import Gpu, pycuda
from tests.latency.rough import Rough
from tests.latency.test_onnxruntime_gpu import gpu, opened, world  # noqa: F401 (fixtures)
from tests.latency.test_worker import rough  # noqa: F401 (a fixture)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="The latency table .* cannot be read: .*; check its permissions"):
        _json_form.read(tmp_path)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("database is locked", ProfileError, "is in use by another process; wait for it to finish"),
        ("database or disk is full", OutputError, r"cannot be written \(database or disk is full\); what it held"),
    ],
)
def test_what_the_database_says_is_a_sentence(said: str, kind: type[OlmError], words: str) -> None:
    with pytest.raises(kind, match=words), translated(Path("t.sqlite")):
        raise sqlite3.OperationalError(said)


def test_no_process_can_be_started(rough: Rough, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_process.subprocess, "Popen", refuse)
    with pytest.raises(DeviceError, match=r"No process can be started for timing \(Resource temporarily unavailable"):
        isolated_slopes([rough.block("a")], rough.reopen)


def test_a_process_that_never_begins(rough: Rough, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(_process, "_START", "raise SystemExit('no such module')")
    with pytest.raises(DeviceError, match="process for timing could not be started: no such module; see olm doctor"):
        isolated_slopes([rough.block("a")], rough.reopen)


def test_a_block_that_could_not_be_made_on_the_other_side() -> None:
    link = SimpleNamespace(tell=lambda *_, **__: None, receive=lambda: {"error": "no such block"})
    spec = _Link._spec(link, {"key": "k", "label": "l", "number": 0, "shapes": {}, "ceiling_s": None})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no such block"):
        spec.build(1)


def test_a_driver_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(_cuda.importlib, "import_module", refuse)
    with pytest.raises(DeviceError, match=r"libcuda\.so\.1 cannot be loaded; install the driver.*cannot open shared"):
        open_driver()


def test_pycuda_replays_no_graph() -> None:
    with pytest.raises(DeviceError, match="pycuda captures no CUDA graphs; pip install cuda-python"):
        PyCuda(pycuda(Gpu()), 0).replay(object(), object())


def texts() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "texts", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_model_of_texts_is_not_timed() -> None:
    with pytest.raises(ModelError, match=r"Input 'x' is a tensor\(string\), which cannot be timed; export it with"):
        open_backend().build(texts(), {})


def test_a_run_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    runnable = open_backend().build(bytes(model.SerializeToString()), {})
    runnable._session = SimpleNamespace(run_with_iobinding=fail)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"onnxruntime cannot run this model \(out of memory\)"):
        runnable.run()


def test_weights_beside_the_model_are_not_for_the_gpus_providers(gpu: Gpu) -> None:  # noqa: F811
    with pytest.raises(ModelError, match="takes models of up to 2 GB of weights here, and this one has more; use"):
        opened().build(object(), {})


def test_an_output_of_a_type_that_is_not_timed(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2, 1])
    graph = helper.make_graph([helper.make_node("ArgMax", ["x"], ["y"], axis=1)], "one", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    known = {name: kind for name, kind in _onnxruntime.DTYPES.items() if kind is not np.int64}
    monkeypatch.setattr(_onnxruntime, "DTYPES", known)
    with pytest.raises(ModelError, match=r"Output 'y' is a tensor\(int64\), which cannot be timed; export numbers"):
        opened().build(bytes(model.SerializeToString()), {})
