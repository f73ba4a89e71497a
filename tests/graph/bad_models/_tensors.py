"""Weights that are not what they declare, or not finite."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graph.bad_models._case import Change, add_node, case, put, tensor


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
