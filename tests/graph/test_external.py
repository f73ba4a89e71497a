"""Large models: packed without copies, run from their files, hashed by content, and small in memory all the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Session, extract
from onnx_layermerge.graph import _pack as module
from onnx_layermerge.graph._load import load
from onnx_layermerge.graph._pack import pack, to_bytes
from tests import zoo

X = {"x": np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_OUTSIDE_BYTES", 100)


def mapped(folder: Path, name: str = "m") -> tuple[onnx.ModelProto, ir.Model]:
    """plain: c1 [6, 4, 3, 3], c2 and c3 [6, 6, 3, 3], in memory and in a file."""
    net, output = zoo.plain()
    proto = net.proto(output)
    path = folder / f"{name}.onnx"
    folder.mkdir(exist_ok=True)
    onnx.save(proto, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    return net.proto(output), load(path)


def test_a_packed_model_runs_from_its_file(tmp_path: Path) -> None:
    proto, model = mapped(tmp_path)
    packed = pack(model, most_inside=0)
    assert packed.folder == tmp_path and not packed.weights
    assert packed.total_bytes == sum(onnx.numpy_helper.to_array(t).nbytes for t in proto.graph.initializer)
    assert len(packed.data) < packed.total_bytes
    wanted = Session(proto.SerializeToString()).run(X)["c3"]
    np.testing.assert_array_equal(Session(packed).run(X)["c3"], wanted)
    assert pack(model).folder is None and len(pack(model).data) > packed.total_bytes


def test_new_weights_beside_mapped_ones(tmp_path: Path) -> None:
    proto, model = mapped(tmp_path)
    part = extract(model, ["x"], ["c2"])
    new = np.random.default_rng(5).standard_normal((6, 6, 3, 3)).astype(np.float32)
    part.graph.initializers["c2.w"].const_value = ir.Tensor(new, name="c2.w")
    packed = pack(part, most_inside=0)
    assert packed.folder == tmp_path and list(packed.weights) == ["c2.w"]
    assert np.shares_memory(packed.weights["c2.w"], new)
    next(t for t in proto.graph.initializer if t.name == "c2.w").CopyFrom(onnx.numpy_helper.from_array(new, "c2.w"))
    whole = extract(ir.from_proto(proto), ["x"], ["c2"])
    np.testing.assert_array_equal(Session(packed).run(X)["c2"], Session(whole).run(X)["c2"])


def test_weights_of_two_folders(tmp_path: Path) -> None:
    proto, model = mapped(tmp_path)
    _, other = mapped(tmp_path / "other", "n")
    model.graph.initializers["c2.w"].const_value = other.graph.initializers["c2.w"].const_value
    packed = pack(model, most_inside=0)
    assert packed.folder == tmp_path and list(packed.weights) == ["c2.w"]
    np.testing.assert_array_equal(Session(packed).run(X)["c3"], Session(proto.SerializeToString()).run(X)["c3"])


def test_large_weights_of_a_body(tmp_path: Path) -> None:
    kernel = np.random.default_rng(2).standard_normal((4, 4, 3, 3)).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(np.repeat(kernel, 4, axis=0), "k")
    info, made = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    out = [info("t", onnx.TensorProto.FLOAT, ["N", 16, 6, 6])]
    body = onnx.helper.make_graph([made("Conv", ["x", "k"], ["t"])], "b", [], out, [tensor])
    branch = made("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    image, answer = info("x", onnx.TensorProto.FLOAT, ["N", 4, 8, 8]), info("y", onnx.TensorProto.FLOAT, None)
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    graph = onnx.helper.make_graph([branch], "g", [image], [answer], [yes])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    proto = onnx.shape_inference.infer_shapes(proto)
    wanted = Session(proto.SerializeToString()).run(X)["y"]
    inside = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    for held in (inside, load(tmp_path / "m.onnx")):
        np.testing.assert_array_equal(Session(pack(held, most_inside=0)).run(X)["y"], wanted)


def test_bytes_above_the_bound_stand_for_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the weights lie; another weight, other bytes."""
    proto, model = mapped(tmp_path)
    _, moved = mapped(tmp_path / "elsewhere", "other")
    inside = to_bytes(model)
    monkeypatch.setattr(module, "MOST_INSIDE_BYTES", 100)
    assert len(to_bytes(model)) < len(inside)
    assert to_bytes(model) == to_bytes(moved) == to_bytes(ir.from_proto(proto))
    value = moved.graph.initializers["c3.w"]
    changed = value.const_value.numpy().copy()  # type: ignore[union-attr]
    changed.flat[-1] += 1
    value.const_value = ir.Tensor(changed, name="c3.w")
    assert to_bytes(model) != to_bytes(moved)


def test_a_message_over_2_gb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net, output = zoo.plain()

    class Full(onnx.ModelProto.__mro__[1]):  # type: ignore[misc, name-defined]
        def SerializeToString(self, **_: object) -> bytes:
            raise ValueError("too large")

    monkeypatch.setattr(module, "proto_with", lambda *_: Full)
    with pytest.raises(ModelError, match="does not fit into 2 GB"):
        pack(ir.from_proto(net.proto(output)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's own figures from /proc")
def test_peak_memory_from_file_to_file(tmp_path: Path) -> None:
    """72 MiB of weights: what the process takes on the way is a small part of that."""
    script = Path(__file__).parents[2] / "benchmarks" / "external_data.py"
    words = [sys.executable, str(script), "--gib", "0.07", "--json", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    subprocess.run(words, check=True, capture_output=True, timeout=100, env=environment)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["weight_bytes"] >= 70 * 2**20 and found["files_equal"]
    assert found["peak_bytes"] < 0.5 * found["weight_bytes"]
