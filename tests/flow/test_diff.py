"""What differs between two files: everything that does, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge import ModelError
from onnx_layermerge.flow import diff
from onnx_layermerge.flow._diff import Difference
from tests.flow import jobs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return jobs.save(jobs.residual_net, tmp_path)[1]


def edited(source: Path, edit: Callable[[onnx.ModelProto], None]) -> Difference:
    model = onnx.load(source)
    edit(model)
    target = source.with_name("edited.onnx")
    onnx.save(model, target)
    return diff(source, target)


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def test_a_file_does_not_differ_from_itself(source: Path) -> None:
    found = diff(source, source)
    assert found.same and found.equal == 5 and found.convs == (5, 5)


def test_a_changed_weight_is_named_with_its_largest_change(source: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = weight(model, "a0.w")
        values = numpy_helper.to_array(tensor).copy()
        values.flat[np.abs(values).argmin()] += np.abs(values).max() / 4
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    found = edited(source, edit)
    (change,) = found.reweighted
    assert change.name == "a0" and change.change == pytest.approx(0.25, rel=1e-4)
    assert found.equal == 4 and not found.same
    assert not (found.gone or found.new or found.reshaped or found.tensors or found.operators or found.interface)


def test_weights_of_other_operators_are_apart(source: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        name = next(node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")).input[1]
        tensor = weight(model, name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), name))

    found = edited(source, edit)
    (change,) = found.tensors
    assert change.change == pytest.approx(0.5, rel=1e-5) and found.equal == 5


def test_other_pads_are_no_other_size(source: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        conv = next(node for node in model.graph.node if node.name == "a1")
        pads = next(attribute for attribute in conv.attribute if attribute.name == "pads")
        pads.ints[:] = [2, 2, 2, 2]

    found = edited(source, edit)
    (change,) = found.nodes
    assert change.name == "a1" and "pads=[1, 1, 1, 1]" in change.before and "pads=[2, 2, 2, 2]" in change.after
    assert found.equal == 4 and not (found.reshaped or found.reweighted)


def test_a_bias_that_is_omitted_by_an_empty_name_is_none(source: Path) -> None:
    model = onnx.load(source)
    conv = next(node for node in model.graph.node if node.name == "a1")
    del conv.input[2:]
    onnx.save(model, source)

    def omit(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.name == "a1").input.append("")

    assert edited(source, omit).same


@pytest.mark.parametrize("gained", [True, False])
def test_a_bias_on_one_side_leaves_the_weights_compared(source: Path, gained: bool) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = weight(model, "a1.w")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))

    def drop(model: onnx.ModelProto) -> None:
        conv = next(node for node in model.graph.node if node.name == "a1")
        model.graph.initializer.remove(weight(model, conv.input[2]))
        del conv.input[2:]

    if gained:
        bare = onnx.load(source)
        model = onnx.load(source)
        drop(bare)
        edit(model)
        target = source.with_name("edited.onnx")
        onnx.save(bare, source)
        onnx.save(model, target)
        found = diff(source, target)
    else:
        found = edited(source, lambda model: (edit(model), drop(model)))
    assert [(each.name, each.label) for each in found.biases] == [
        ("a1", "gained a bias" if gained else "lost its bias")
    ]
    (change,) = found.reweighted
    assert change.name == "a1" and change.change == pytest.approx(1.0) and found.equal == 4
    assert not (found.reshaped or found.nodes or found.tensors_gone or found.tensors_new)


SMALL = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
agraph (float[1, 4] x, bool c) => (float[1, 4] y, float[1, 4] z) {
  k = Constant<value = float[1] {1.0}>()
  l = LeakyRelu<alpha = 0.1>(x)
  s = Sub(l, k)
  b = If(c) <then_branch = yes () => (float[1, 4] t) { t = Relu(s) },
             else_branch = no () => (float[1, 4] e) { e = Sqrt(s) }>
  y = own.twice(b)
  z = Neg(l)
}
<domain: "own", opset_import: ["": 17]>
twice (v) => (w) { w = Add(v, v) }"""


@pytest.mark.parametrize(
    ("old", "new", "name", "words"),
    [
        ("alpha = 0.1", "alpha = 0.9", "l", ("alpha=0.1", "alpha=0.9")),
        ("Sub(l, k)", "Sub(k, l)", "s", ("Sub(l, k)", "Sub(k, l)")),
        ("{1.0}", "{7.0}", "k", ("[1.0]", "[7.0]")),
        ("Sqrt(s)", "Sqrt(l)", "b", ("else_branch=", "else_branch=")),
        ("z = Neg(l)", "z = Abs(l)", "z", ("Neg(l)", "Abs(l)")),
        ("Add(v, v)", "Mul(v, v)", "own.twice", ("1 nodes", "1 nodes")),
    ],
)
def test_what_other_nodes_compute_is_compared(
    tmp_path: Path, old: str, new: str, name: str, words: tuple[str, str]
) -> None:
    assert SMALL.count(old) == 1
    for file, text in (("a.onnx", SMALL), ("b.onnx", SMALL.replace(old, new))):
        onnx.save(onnx.parser.parse_model(text), tmp_path / file)
    assert diff(tmp_path / "a.onnx", tmp_path / "a.onnx").same
    found = diff(tmp_path / "a.onnx", tmp_path / "b.onnx")
    (change,) = (*found.nodes, *found.functions)
    assert not found.same and change.name == name and change.before != change.after
    assert words[0] in change.before and words[1] in change.after


def test_swapped_outputs_differ(tmp_path: Path) -> None:
    swapped = SMALL.replace("(float[1, 4] y, float[1, 4] z)", "(float[1, 4] z, float[1, 4] y)")
    for file, text in (("a.onnx", SMALL), ("b.onnx", swapped)):
        onnx.save(onnx.parser.parse_model(text), tmp_path / file)
    (change,) = diff(tmp_path / "a.onnx", tmp_path / "b.onnx").interface
    assert (change.name, change.before, change.after) == ("order of outputs", "y, z", "z, y")


def test_a_new_name_is_one_gone_and_one_new(source: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.name == "b1").name = "other"

    found = edited(source, rename)
    assert [each.name for each in found.gone] == ["b1"] and [each.name for each in found.new] == ["other"]
    assert found.gone[0].label == found.new[0].label and "3×3  16→6" in found.gone[0].label


def test_metadata_and_interface(source: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        onnx.helper.set_model_props(model, {"note": "new"})
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"

    found = edited(source, edit)
    assert [(each.name, each.before, each.after) for each in found.metadata] == [("note", "", "new")]
    assert found.interface[0].name == "input image" and "batch" in found.interface[0].before
    assert "[N, 4, 6, 6]" in found.interface[0].after and found.equal == 5


def test_convolutions_without_names_are_known_by_their_outputs(source: Path) -> None:
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, source)
    found = edited(source, lambda model: None)
    assert found.same and found.equal == 5


def test_operators_are_counted(source: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        out = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["inner" if name == out else name for name in node.output]
        model.graph.node.append(onnx.helper.make_node("Identity", ["inner"], [out], name="last"))

    found = edited(source, edit)
    assert found.operators == {"Identity": (0, 1)}
    out = onnx.load(source).graph.output[0].name
    assert {each.name for each in found.nodes} == {"inner", out} and not found.same


def test_a_file_that_is_none(source: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        diff(source, source.with_name("none.onnx"))
