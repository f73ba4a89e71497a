"""Element types other than float32 through the main job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_layermerge import compress
from onnx_layermerge.errors import ModelError
from tests.flow import jobs
from tests.machine import Machine


def brain(path: Path, target: Path) -> Path:
    """The float32 model in ``path`` with every weight, input and output as bfloat16."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            bits = (numpy_helper.to_array(tensor).view(np.uint32) >> 16).astype(np.uint16)
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.BFLOAT16, list(tensor.dims), bits.tobytes(), raw=True)
            )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    model.opset_import[0].version = 22
    onnx.save(model, target)
    return target


def test_a_bfloat16_model_comes_out_as_one(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    source = brain(path, tmp_path / "brain.onnx")
    report = compress(
        source, tmp_path / "out.onnx", speedup=1.3, calib=jobs.samples(net), profile=tmp_path / "t.json", rivals=2
    )
    assert any("bfloat16" in warning for warning in report.warnings)
    made = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(made, full_check=True)
    floats = {tensor.data_type for tensor in made.graph.initializer} - {TensorProto.INT64}
    assert floats == {TensorProto.BFLOAT16}
    ends = (*made.graph.input, *made.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.BFLOAT16}
    before = {tensor.name: tensor.raw_data for tensor in onnx.load(source).graph.initializer}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in before]
    assert kept and all(tensor.raw_data == before[tensor.name] for tensor in kept)


def test_float64_says_that_it_cannot_be_timed_here(machine: Machine, tmp_path: Path) -> None:
    net, path = jobs.save(jobs.residual_net, tmp_path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, tmp_path / "double.onnx")
    with pytest.raises(ModelError, match="does not run|cannot"):
        compress(tmp_path / "double.onnx", tmp_path / "out.onnx", speedup=1.3, profile=tmp_path / "t.json")
    assert not (tmp_path / "out.onnx").exists()
