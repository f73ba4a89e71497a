"""The output appears whole or not at all, also when it is two files, and nobody else's data are written over."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_layermerge.errors import OutputError
from onnx_layermerge.graph import Session, check_target, write
from onnx_layermerge.graph import _write as module
from onnx_layermerge.graph._load import load
from tests import zoo

X = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)


def model_in_two(folder: Path, *, seed: int = 0, name: str = "in") -> tuple[Path, ir.Model]:
    """The residual network, its weights in ``<name>.bin``."""
    net, output = zoo.residual()
    net.rng = np.random.default_rng(seed)
    proto = net.proto(output)
    for tensor in proto.graph.initializer:
        array = net.rng.standard_normal(tensor.dims).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    path = folder / f"{name}.onnx"
    onnx.save(proto, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    return path, load(path)


def result(path: Path) -> np.ndarray:
    model = load(path)
    return Session(model).run({"x": X})[str(model.graph.outputs[0].name)]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def locations(path: Path) -> set[str]:
    proto = onnx.load(path, load_external_data=False)
    return {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}


def test_weights_in_a_file_go_to_a_file(tmp_path: Path) -> None:
    source, model = model_in_two(tmp_path)
    before, weight = digests(tmp_path), model.graph.initializers["c1.w"].const_value
    write(model, tmp_path / "out.onnx")
    after = digests(tmp_path)
    assert set(after) == {*before, "out.onnx", "out.onnx.data"} and before.items() <= after.items()
    assert model.graph.initializers["c1.w"].const_value is weight
    assert (tmp_path / "out.onnx.data").stat().st_mode == (tmp_path / "out.onnx").stat().st_mode
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("out.onnx", "out.onnx.data"):
        (tmp_path / name).rename(elsewhere / name)
    np.testing.assert_array_equal(result(elsewhere / "out.onnx"), result(source))
    sizes = {
        t.name: t.HasField("raw_data")
        for t in onnx.load(elsewhere / "out.onnx", load_external_data=False).graph.initializer
    }
    assert sizes["c1.b"] and not sizes["c1.w"]  # 16 bytes are kept inside, 576 × 4 are not


def test_weights_above_the_bound_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, output = zoo.residual()
    model = ir.from_proto(net.proto(output))
    size = module.weight_bytes(model)
    assert size == sum(array.nbytes for array in net.weights.values())
    monkeypatch.setattr(module, "MOST_INSIDE_BYTES", size)
    write(model, tmp_path / "one.onnx")
    assert set(digests(tmp_path)) == {"one.onnx"}
    monkeypatch.setattr(module, "MOST_INSIDE_BYTES", size - 1)
    write(model, tmp_path / "two.onnx")
    assert locations(tmp_path / "two.onnx") == {"two.onnx.data"}
    np.testing.assert_array_equal(result(tmp_path / "two.onnx"), result(tmp_path / "one.onnx"))


def test_the_same_model_is_the_same_two_files_again(tmp_path: Path) -> None:
    """Also over what stands there: the pair is replaced, not joined by another."""
    _, model = model_in_two(tmp_path)
    _, other = model_in_two(tmp_path, seed=1, name="other")
    write(model, tmp_path / "out.onnx")
    first = digests(tmp_path)
    write(other, tmp_path / "out.onnx")
    assert digests(tmp_path) != first and set(digests(tmp_path)) == set(first)
    write(model, tmp_path / "out.onnx")
    assert digests(tmp_path) == first


def test_a_file_of_that_name_that_is_not_the_outputs_own_is_left_alone(tmp_path: Path) -> None:
    source, model = model_in_two(tmp_path)
    (tmp_path / "out.onnx.data").write_bytes(b"notes")
    for _ in range(2):
        write(model, tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx.data").read_bytes() == b"notes"
        assert locations(tmp_path / "out.onnx") == {"out.onnx.2.data"}
    assert len(list(tmp_path.iterdir())) == 5
    np.testing.assert_array_equal(result(tmp_path / "out.onnx"), result(source))


def test_the_inputs_own_data_are_never_written_over(tmp_path: Path) -> None:
    """Not even where the output, and the model that stands there, call theirs the same."""
    path, model = model_in_two(tmp_path)
    write(model, tmp_path / "out.onnx")
    again = load(tmp_path / "out.onnx")
    data = digests(tmp_path)["out.onnx.data"]
    write(again, tmp_path / "out.onnx")
    assert digests(tmp_path)["out.onnx.data"] == data and locations(tmp_path / "out.onnx") == {"out.onnx.2.data"}
    np.testing.assert_array_equal(result(tmp_path / "out.onnx"), result(path))


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """``os.name`` raises at its ``number``-th call."""
    real: Callable[..., object] = getattr(os, name)
    calls = []

    def call(*words: object, **options: object) -> object:
        calls.append(words)
        if len(calls) == number:
            no_space()
        return real(*words, **options)

    monkeypatch.setattr(module.os, name, call)


@pytest.mark.parametrize(("name", "number"), [("fsync", 1), ("fsync", 2), *(("replace", n) for n in range(2, 6))])
@pytest.mark.parametrize("standing", [False, True])
def test_nothing_is_left_behind_when_writing_fails(
    name: str, number: int, standing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``os.replace``: first that of onnx_ir inside the temporary folder, then the old pair aside, then the new one."""
    _, model = model_in_two(tmp_path)
    if standing:
        _, old = model_in_two(tmp_path, seed=1, name="old")
        write(old, tmp_path / "out.onnx")
    elif name == "replace" and number > 3:
        pytest.skip("no old pair to move")
    before = digests(tmp_path)
    fail_at(monkeypatch, name, number)
    with pytest.raises(OutputError, match="No space left on device"):
        write(model, tmp_path / "out.onnx")
    monkeypatch.undo()
    assert digests(tmp_path) == before


def test_an_invalid_model_in_two_is_not_written(tmp_path: Path) -> None:
    _, model = model_in_two(tmp_path)
    before = digests(tmp_path)
    next(node for node in model.graph if node.op_type == "Relu").op_type = "Rely"
    with pytest.raises(OutputError, match=r"fails the ONNX checker .*Rely"):
        write(model, tmp_path / "out.onnx")
    assert digests(tmp_path) == before


def test_the_weights_of_the_input_are_no_output(tmp_path: Path) -> None:
    path, _ = model_in_two(tmp_path)
    before = digests(tmp_path)
    with pytest.raises(OutputError, match="holds the weights of the input"):
        check_target(tmp_path / "in.bin", not_over=path)
    assert digests(tmp_path) == before


def test_data_that_a_copy_still_reads_are_not_written_over(tmp_path: Path) -> None:
    _, model = model_in_two(tmp_path)
    write(model, tmp_path / "out.onnx")
    (tmp_path / "keep.onnx").write_bytes((tmp_path / "out.onnx").read_bytes())
    kept = result(tmp_path / "keep.onnx")
    _, other = model_in_two(tmp_path, seed=5, name="other")
    write(other, tmp_path / "out.onnx")
    np.testing.assert_array_equal(result(tmp_path / "keep.onnx"), kept)
    assert not np.array_equal(result(tmp_path / "out.onnx"), kept)
