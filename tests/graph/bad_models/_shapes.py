"""Channels, groups, ranks, windows, and sizes that no machine holds."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.graph.bad_models._case import add_node, attribute, case, put, sizes, tensor


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
