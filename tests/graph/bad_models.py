"""Files that must be refused: each a good two-convolution model with one thing wrong, and the words that say it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import zoo

Change = Callable[[onnx.ModelProto], Any]
CASES: dict[str, tuple[Callable[[Path], Path], str]] = {}


def good() -> onnx.ModelProto:
    """c1 → r1 → c2, weights c1.w [6, 4, 3, 3] and c2.w [6, 3, 3, 3] in two groups, biases of 6, x [1, 4, 8, 8]."""
    net = zoo.Net()
    c1 = net.conv(net.input(shape=(1, 4, 8, 8)), "c1", 6)
    return net.proto(net.conv(net.relu(c1, "r1"), "c2", 6, groups=2))


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def case(said: str) -> Callable[[Change], Change]:
    """A change to the good model; the refusal has to match ``said``."""

    def add(change: Change) -> Change:
        def build(folder: Path) -> Path:
            model = good()
            change(model)
            return saved(folder, model)

        CASES[change.__name__] = (build, said)
        return change

    return add


def tensor(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor(model, name).CopyFrom(numpy_helper.from_array(array, name))


def attribute(model: onnx.ModelProto, node: int, name: str, value: Any) -> None:
    kept = [each for each in model.graph.node[node].attribute if each.name != name]
    del model.graph.node[node].attribute[:]
    model.graph.node[node].attribute.extend([*kept, helper.make_attribute(name, value)])


def add_node(model: onnx.ModelProto, op: str, inputs: list[str], output: str, **more: Any) -> None:
    model.graph.node.append(helper.make_node(op, inputs, [output], name=f"{output}.node", **more))


def sizes(*values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), "sizes")


@case("node 'c1' .* a cycle of 3")
def cycle(model):
    model.graph.node[0].input[0] = "c2"


@case("node 'r1' .* reads 'c1' before it is made")
def unsorted(model):
    nodes = [model.graph.node[i] for i in (1, 0, 2)]
    order = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(order)


@case("node 'c2' .* reads 'gone', which nothing makes")
def missing_value(model):
    model.graph.node[2].input[0] = "gone"


@case("nothing makes the output 'nowhere'")
def missing_output(model):
    model.graph.output[0].name = "nowhere"


@case("node 'inner' .* reads 'gone', which nothing makes")
def missing_in_a_branch(model):
    body = helper.make_graph(
        [helper.make_node("Relu", ["gone"], ["i"], name="inner")],
        "b",
        [],
        [helper.make_tensor_value_info("i", 1, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    add_node(model, "If", ["yes"], "branched", then_branch=body, else_branch=body)


@case("'r1' is made twice, by node 'r1' .* and by node 'again'")
def made_twice(model):
    model.graph.node.append(helper.make_node("Neg", ["x"], ["r1"], name="again"))


@case("node 'again' .* makes 'c1.w', which is an input or a weight already")
def made_over_a_weight(model):
    model.graph.node.append(helper.make_node("Neg", ["x"], ["c1.w"], name="again"))


@case("two inputs are called 'x'")
def two_inputs(model):
    model.graph.input.append(model.graph.input[0])


@case("two weights are called 'c1.b'")
def two_weights(model):
    model.graph.initializer.append(tensor(model, "c1.b"))


@case("node 'r1' .Rely. is no operator of ai.onnx opset 17")
def unknown_operator(model):
    model.graph.node[1].op_type = "Rely"


@case("node 'up.node' .Upsample. was removed from ai.onnx opset 17")
def removed_operator(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    add_node(model, "Upsample", ["c2", "scales"], "up")


@case("of the domain 'strange', for which no opset is given")
def domain_without_opset(model):
    model.graph.node[1].domain = "strange"


@case("the local function 'f' calls itself")
def recursive_function(model):
    inner = helper.make_node("f", ["a"], ["b"], domain="local")
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", "f", ["a"], ["b"], [inner], opset))
    model.opset_import.append(opset[1])
    add_node(model, "f", ["c2"], "called", domain="local")


@case("the weights 'thin' are sparse")
def sparse_weights(model):
    thin = model.graph.sparse_initializer.add()
    thin.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "thin"))
    thin.indices.CopyFrom(numpy_helper.from_array(np.array([0, 5]), "at"))
    thin.dims.extend([10])


@case("node 'thin.node' .Constant. holds a sparse tensor")
def sparse_constant(model):
    values = numpy_helper.from_array(np.ones(2, np.float32), "v")
    indices = numpy_helper.from_array(np.array([0, 5]), "at")
    add_node(model, "Constant", [], "thin", sparse_value=helper.make_sparse_tensor(values, indices, [10]))


@case("quantized, as node 'q.node' .QuantizeLinear. shows; compress the float model and quantize afterwards")
def quantized(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "scale"))
    add_node(model, "QuantizeLinear", ["c2", "scale"], "q")


@case("quantized, as node 'q.node' .QLinearAdd. shows")
def quantized_by_a_runtime(model):
    add_node(model, "QLinearAdd", ["c2"], "q", domain="com.microsoft")


@case("quantized, as node 'q' .DequantizeLinear. shows")
def quantized_in_a_function(model):
    inner = helper.make_node("DequantizeLinear", ["a", "a"], ["b"], name="q")
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "f", ["a"], ["b"], [inner], opset))


@case("opset 999 is newer than what onnx .* knows .*; upgrade onnx")
def opset_of_the_future(model):
    model.opset_import[0].version = 999


@case("IR version 999 is newer than what onnx .* knows")
def ir_version_of_the_future(model):
    model.ir_version = 999


@case("the model names no opset of ai.onnx")
def no_opset(model):
    del model.opset_import[:]


@case("the model does not say its IR version")
def no_ir_version(model):
    model.ClearField("ir_version")


@case("opset 6 cannot be converted .*; export it with opset 7 or newer")
def old_and_inconvertible(model):
    model.ir_version, model.opset_import[0].version = 3, 6
    add_node(model, "Upsample", ["c2"], "up", scales=[1.0, 1.0, 2.0, 2.0])  # an operator that has to be rewritten
    model.graph.node[-1].domain = ""
    add_node(model, "Sum", ["c2"], "second")
    add_node(model, "Concat", ["c2", "x"], "joined", axis=1)
    add_node(model, "Tile", ["c2", "c2", "c2"], "tiled")


@case("'c1' .Conv. reads 4 channels, but its weights are for 3 in 1 groups")
def channels(model):
    put(model, "c1.w", np.ones((6, 3, 3, 3), np.float32))


@case("'c1' .Conv. has group 4, which does not divide its 6 output channels")
def group(model):
    put(model, "c1.w", np.ones((6, 1, 3, 3), np.float32))
    attribute(model, 0, "group", 4)


@case("'c1' .Conv. has group 0, which may not be below 1")
def no_group(model):
    attribute(model, 0, "group", 0)


@case("'c1' .Conv. slides over 1 axes, but its input is of rank 4")
def rank(model):
    put(model, "c1.w", np.ones((6, 4, 3), np.float32))
    for name, value in (("pads", [1, 1]), ("strides", [1]), ("dilations", [1])):
        attribute(model, 0, name, value)


@case(r"'c1' .Conv. has weights of shape \[6, 4\], but needs at least 3 axes")
def flat_weight(model):
    put(model, "c1.w", np.ones((6, 4), np.float32))


@case(r"'c1' .Conv. has a bias of shape \[5\], but 6 output channels")
def bias(model):
    put(model, "c1.b", np.ones(5, np.float32))


@case(r"'c1' .Conv. has a bias of shape \[6, 1\]")
def bias_rank(model):
    put(model, "c1.b", np.ones((6, 1), np.float32))


@case("Node .c1.'s input 1 ")
def no_weight(model):
    model.graph.node[0].input[1] = ""


@case(r"'c1' .Conv. has kernel_shape \[5, 5\], but weights of shape \[6, 4, 3, 3\]")
def kernel_shape(model):
    attribute(model, 0, "kernel_shape", [5, 5])


@case(r"'c1' .Conv. has kernel_shape \[3\], but weights of shape \[6, 4, 3, 3\]")
def kernel_rank(model):
    attribute(model, 0, "kernel_shape", [3])


@case(r"'c1' .Conv. has strides \[1, 0\], which may not be below 1")
def stride(model):
    attribute(model, 0, "strides", [1, 0])


@case(r"'c1' .Conv. has dilations \[-1, 1\], which may not be below 1")
def dilation(model):
    attribute(model, 0, "dilations", [-1, 1])


@case(r"'c1' .Conv. has pads \[1, 1, 1, -1\], which may not be below 0")
def pads(model):
    attribute(model, 0, "pads", [1, 1, 1, -1])


@case("'c1' .Conv. has 3 pads, but needs 4")
def number_of_pads(model):
    attribute(model, 0, "pads", [1, 1, 1])


@case("'c1' .Conv. has a kernel that spans 11 along axis 2, but its padded input has 10")
def kernel_too_large(model):
    attribute(model, 0, "dilations", [5, 1])


@case("'pool.node' .MaxPool. has a kernel that spans 9 along axis 3, but its padded input has 8")
def pool_too_large(model):
    add_node(model, "MaxPool", ["c2"], "pool", kernel_shape=[8, 9])


@case("'up.node' .ConvTranspose. has group 4, which does not divide its 6 input channels")
def transposed_group(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones((6, 1, 2, 2), np.float32), "up.w"))
    add_node(model, "ConvTranspose", ["c2", "up.w"], "up", group=4)


@case(r"'c1' .Conv. has weights of shape \[0, 4, 3, 3\], which hold nothing")
def empty_weight(model):
    put(model, "c1.w", np.ones((0, 4, 3, 3), np.float32))


@case("'c1' .Conv. has weights of type STRING, which opset 17 does not allow there")
def weight_of_strings(model):
    tensor(model, "c1.w").CopyFrom(helper.make_tensor("c1.w", TensorProto.STRING, [6, 4, 3, 3], [b"1"] * 216))


@case("weights of type BFLOAT16, .*; export it with opset 22 or newer")
def weight_newer_than_the_opset(model):
    values = tensor(model, "c1.w")
    values.CopyFrom(helper.make_tensor("c1.w", TensorProto.BFLOAT16, values.dims, np.ones(216)))


@case("the input 'x' has size 0 along axis 2")
def empty_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0


@case("the input 'x' has size -1 along axis 0; .* a name for one that varies")
def negative_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


@case("the input 'x' is a tensor of 1x4x1099511627776x8 elements")
def absurd_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


@case("'filled.node' .ConstantOfShape. is a tensor of 1048576x1024 elements")
def absurd_constant(model):
    model.graph.initializer.append(sizes(2**20, 2**10))
    add_node(model, "ConstantOfShape", ["sizes"], "filled")


@case("'tiled.node' .Tile. is a tensor of 1x8192x16384x64 elements")
def absurd_tile(model):
    model.graph.initializer.append(sizes(1, 2048, 2048, 8))
    add_node(model, "Tile", ["x", "sizes"], "tiled")


@case(r"the tensor 'c1.w' declares \[1048576, 1048576, 3, 3\] elements, which no memory holds")
def absurd_weight(model):
    tensor(model, "c1.w").dims[:] = [2**20, 2**20, 3, 3]


@case(r"the tensor 'c1.w' of \[6, 4096, 1024, 1024\] needs 103079215104 bytes and holds 864")
def weight_with_little_data(model):
    tensor(model, "c1.w").dims[:] = [6, 4096, 1024, 1024]


@case("the tensor 'c1.b' of .6. needs 6 values and holds 5")
def too_few_values(model):
    tensor(model, "c1.b").CopyFrom(TensorProto(name="c1.b", data_type=1, dims=[6], float_data=[1.0] * 5))


@case("the tensor 'c1.w' has a negative size")
def negative_size(model):
    tensor(model, "c1.w").dims[0] = -6


@case("the tensor 'c1.w' is of the unknown type 77")
def unknown_type(model):
    tensor(model, "c1.w").data_type = 77


@case("the tensor 'held' of .4. needs 16 bytes and holds 4")
def constant_with_little_data(model):
    short = TensorProto(data_type=1, dims=[4], raw_data=b"\0" * 4)
    add_node(model, "Constant", [], "held", value=short)


def _with(name: str, at: int, value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        array = numpy_helper.to_array(tensor(model, name)).copy()
        array.flat[at] = value
        put(model, name, array)

    change.__name__ = f"{'nan' if np.isnan(value) else 'inf'}_in_{name}"
    return change


case("the tensor 'c1.w' holds NaN")(_with("c1.w", 215, float("nan")))
case("the tensor 'c2.b' holds Inf")(_with("c2.b", 0, float("-inf")))


@case("the tensor 'shift' holds NaN")
def nan_in_a_shift(model):
    values = np.zeros((6, 1, 1), np.float16)
    values[3] = np.nan
    half = helper.make_tensor("shift", TensorProto.FLOAT16, values.shape, values.tobytes(), raw=True)
    model.graph.initializer.append(half)
    add_node(model, "Neg", ["shift"], "shifted")


@case("the tensor 'wide.w' holds Inf")
def infinity_in_bfloat16(model):
    model.opset_import[0].version, model.ir_version = 22, 10
    values = np.full(16, 0x3F80, np.uint16)
    values[7] = 0x7F80
    brain = helper.make_tensor("wide.w", TensorProto.BFLOAT16, (4, 4, 1, 1), values.tobytes(), raw=True)
    model.graph.initializer.append(brain)
    add_node(model, "Cast", ["x"], "narrow", to=TensorProto.BFLOAT16)
    add_node(model, "Conv", ["narrow", "wide.w"], "wide")


def external(said: str) -> Callable[[Callable[[Path, TensorProto], None]], None]:
    """The weights of c1 in ``w.bin`` beside the model, whose entry or file is then changed."""

    def add(change: Callable[[Path, TensorProto], None]) -> None:
        def build(folder: Path) -> Path:
            model = good()
            held = tensor(model, "c1.w")
            (folder / "w.bin").write_bytes(held.raw_data)
            move(held, "w.bin", 0, 864)
            change(folder, held)
            return saved(folder, model)

        CASES[change.__name__] = (build, said)

    return add


def move(held: TensorProto, location: str, offset: object = 0, length: object = 864) -> None:
    held.ClearField("raw_data")
    held.ClearField("external_data")
    held.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        held.external_data.add(key=key, value=str(value))


def outside(folder: Path) -> Path:
    """A good data file, but in the folder above."""
    place = folder.parent / f"{folder.name}.bin"
    place.write_bytes((folder / "w.bin").read_bytes())
    return place


@external("'c1.w' lies in '.*', outside the model's folder; copy its data file")
def external_above(folder, held):
    move(held, f"../{outside(folder).name}")


@external("'c1.w' lies in '/.*', an absolute path")
def external_absolute(folder, held):
    move(held, str(folder / "w.bin"))


@external(r"'c1.w' lies in 'C:\\w.bin', an absolute path")
def external_on_a_drive(folder, held):
    move(held, "C:\\w.bin")


@external("'c1.w' lies in 'link.bin', outside the model's folder")
def external_link(folder, held):
    (folder / "link.bin").symlink_to(outside(folder))
    move(held, "link.bin")


@external("'c1.w' lies in 'w.bin', which has 2 hard links; copy that file")
def external_hard_link(folder, held):
    os.link(folder / "w.bin", folder / "other.bin")


@external("'c1.w' lies in 'w.bin', which is missing")
def external_missing(folder, held):
    (folder / "w.bin").unlink()


@external("'c1.w' lies in 'w.bin', which is no file")
def external_folder(folder, held):
    (folder / "w.bin").unlink()
    (folder / "w.bin").mkdir()


@external("'c1.w' ends at byte 868 of 'w.bin', which has 864")
def external_short(folder, held):
    move(held, "w.bin", 4)


@external("'c1.w' of .* needs 864 bytes and declares 860 at 0")
def external_length(folder, held):
    move(held, "w.bin", 0, 860)


@external("declares 864 at -4")
def external_before_the_file(folder, held):
    move(held, "w.bin", -4)


@external("an offset or of a length that is no number")
def external_no_number(folder, held):
    move(held, "w.bin", "first")


@external("'c1.w' lies in a file without a name")
def external_nameless(folder, held):
    move(held, "")


@external("'c1.w' ends at byte 103079215104 of 'w.bin'")
def external_absurd(folder, held):
    held.dims[:] = [6, 4096, 1024, 1024]
    move(held, "w.bin", 0, 103079215104)


@external("the tensor 'c1.w' holds NaN")
def external_nan(folder, held):
    values = np.ones(216, np.float32)
    values[-1] = np.nan
    (folder / "w.bin").write_bytes(values.tobytes())


def raw(said: str, name: str, content: Callable[[bytes], bytes]) -> None:
    def build(folder: Path) -> Path:
        path = folder / "bad.onnx"
        path.write_bytes(content(good().SerializeToString()))
        return path

    CASES[name] = (build, said)


raw("is empty", "empty", lambda data: b"")
raw("cannot be read as ONNX|is not a valid ONNX|needs", "truncated", lambda data: data[: len(data) * 2 // 3])
raw("cannot be read as ONNX|IR version", "text", lambda data: b"These are the notes on the model.\n" * 30)
raw("cannot be read as ONNX|IR version", "picture", lambda data: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
raw(
    "holds no nodes",
    "header",
    lambda data: onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString(),
)
