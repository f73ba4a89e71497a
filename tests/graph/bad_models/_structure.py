"""Names, order, operators, versions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.graph.bad_models._case import add_node, case, tensor


@case("node 'c1' .* a cycle of 3")
def cycle(model):
    model.graph.node[0].input[0] = "c2"


@case("node 'inner' .* a cycle of 2")
def cycle_in_a_branch(model):
    nodes = [helper.make_node("Relu", ["j"], ["i"], name="inner"), helper.make_node("Neg", ["i"], ["j"], name="neg")]
    body = helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("i", onnx.TensorProto.FLOAT, None)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    add_node(model, "If", ["yes"], "branched", then_branch=body, else_branch=body)


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
