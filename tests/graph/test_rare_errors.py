"""Models, files and libraries that go wrong in ways that are seldom met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_layermerge.errors import ModelError, OutputError
from onnx_layermerge.graph import _check_tensors, _load, _normalise, _read, _write, load, read
from onnx_layermerge.graph._write import check_target
from tests import zoo


def proto() -> onnx.ModelProto:
    net, last = zoo.plain()
    return net.proto(last)


def nameless(model: onnx.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32)))


def short_of_strings(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=[3], string_data=[b"a", b"b"])


def empty_window(model: onnx.ModelProto) -> None:
    node = helper.make_node("MaxPool", [model.graph.node[-1].output[0]], ["pooled"], "pool", kernel_shape=[0, 2])
    model.graph.node.append(node)
    model.graph.output[0].name = "pooled"
    del model.graph.value_info[:]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for name in "nchw":
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param=name)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nameless, "a weight has no name; export the model again"),
        (short_of_strings, "the tensor 'words' declares 3 strings and holds 2; export the model again"),
        (empty_window, r"node 'pool' \(MaxPool\) has a kernel of size \[0, 2\]; export the model again"),
    ],
)
def test_a_model_that_contradicts_itself(
    spoil: Callable[[onnx.ModelProto], None], words: str, tmp_path: Path
) -> None:
    model = proto()
    spoil(model)
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=rf"bad\.onnx: {words}"):
        load(tmp_path / "bad.onnx")


def test_numbers_that_are_none_of_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether onnx takes a bit pattern of more than 16 bits for a half depends on its version."""

    def refuse(_: object) -> None:
        raise OverflowError("Python integer 70000 out of bounds for uint16")

    model = proto()
    model.graph.initializer.add(name="halves", data_type=TensorProto.FLOAT16, dims=[1], int32_data=[70_000])
    onnx.save(model, tmp_path / "m.onnx")
    monkeypatch.setattr(_check_tensors.numpy_helper, "to_array", refuse)
    with pytest.raises(ModelError, match="the tensor 'halves' holds numbers that are none of its type; export the"):
        load(tmp_path / "m.onnx")


def test_an_old_broadcast_over_values_of_which_nothing_is_known(tmp_path: Path) -> None:
    odd = helper.make_node("Odd", ["x"], ["y"], "odd", domain="mine")
    add = helper.make_node("Add", ["x", "y"], ["z"], "sum", broadcast=1, axis=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "z")]
    imports = [helper.make_opsetid("", 6), helper.make_opsetid("mine", 1)]
    model = helper.make_model(helper.make_graph([odd, add], "old", ends[:1], ends[1:]), opset_imports=imports)
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match=r"opset 6 broadcasts in node 'sum' \(Add\) over unknown axes; export it with"):
        load(tmp_path / "old.onnx")


def test_a_file_without_the_right_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(proto(), path)
    model = load(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_load.onnx, "load", refuse)
    with pytest.raises(ModelError, match=r"m\.onnx cannot be read \(Permission denied\); check its permissions"):
        load(path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"m\.onnx cannot be read \(Permission denied\); check its permissions"):
        _read._digest(path, model)


def test_a_model_that_passes_the_checker_and_that_onnx_ir_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(proto(), tmp_path / "m.onnx")

    def refuse(_: object) -> None:
        raise TypeError("an unknown type")

    monkeypatch.setattr(_load.ir, "from_proto", refuse)
    with pytest.raises(ModelError, match=r"m\.onnx cannot be read \(an unknown type\); export it again"):
        load(tmp_path / "m.onnx")


def test_a_step_that_changes_an_opset_is_named() -> None:
    model = ir.from_proto(proto())

    def meddle(model: ir.Model) -> bool:
        model.graph.opset_imports[""] = 3
        return False

    with pytest.raises(ModelError, match="broke at step 'meddle': it changed opset ai.onnx; please report it"):
        _normalise.normalise(model, steps=(_normalise.Step("meddle", meddle),))


def test_a_change_that_no_single_step_shows_is_reported_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = zoo.Net()
    onnx.save(net.proto(net.relu(net.batch_norm(net.conv(net.input(), "c"), "n"), "r")), tmp_path / "m.onnx")
    told = iter(["output 'r' differs"])
    monkeypatch.setattr(_read.Reference, "check", lambda self, model: next(told, ""))
    with pytest.raises(ModelError, match="preparing the model broke it: output 'r' differs; please report it"):
        read(tmp_path / "m.onnx")


def test_a_folder_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_write.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="the folder .* is not writable; choose another"):
        check_target(tmp_path / "out.onnx")


def test_no_folder_can_be_made_beside_an_output_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(_write, "MOST_INSIDE_BYTES", 0)
    monkeypatch.setattr(_write.tempfile, "mkdtemp", refuse)
    with pytest.raises(OutputError, match=r"cannot write into .* \(Read-only file system\); choose another folder"):
        _write.write(ir.from_proto(proto()), tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []
