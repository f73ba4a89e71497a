"""Every operator of the table against onnxruntime, at the corners where torch's function of like name differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.errors import ModelError  # noqa: E402
from onnx_layermerge.recover.training._call import OPERATORS  # noqa: E402
from tests.recover.training.running import agree, draw, module_of, one_node  # noqa: E402

Case = tuple[str, list[np.ndarray | None], dict[str, Any]]

X = draw(2, 6, 9, 8)
SMALL = draw(2, 3, 4)
I64 = np.int64


def whole(*values: int) -> np.ndarray:
    return np.array(values, I64)


UNARY = [
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Reciprocal", "Relu", "Round"),
    *("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "LeakyRelu", "Elu", "Celu", "Selu"),
    *("HardSigmoid", "ThresholdedRelu", "Shrink", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Flatten"),
    *("MeanVarianceNormalization", "LpNormalization", "Softmax", "LogSoftmax", "Shape", "Size", "IsNaN", "Dropout"),
    *("ArgMax", "ArgMin", "Transpose", "Squeeze"),
    *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
    "ReduceSumSquare",
]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]

CASES: list[Case] = [
    *((op, [X], {}) for op in UNARY),
    *((op, [SMALL, draw(3, 1, seed=1)], {"constants": ()}) for op in BINARY),
    *((op, [np.abs(SMALL) + 0.1], {}) for op in ("Log", "Sqrt", "ReduceLogSum")),
    ("Mish", [X], {"opset": 18}),
    ("Gelu", [X], {"opset": 20}),
    ("Gelu", [X], {"opset": 20, "approximate": "tanh"}),
    ("Elu", [X], {"alpha": 0.3}),
    ("Celu", [X], {"alpha": 2.0}),
    ("Selu", [X], {"alpha": 1.5, "gamma": 0.7}),
    ("LeakyRelu", [X], {"alpha": 0.2}),
    ("HardSigmoid", [X], {"alpha": 1 / 6, "beta": 0.4}),
    ("ThresholdedRelu", [X], {"alpha": 0.4}),
    ("Shrink", [X], {"bias": 0.3, "lambd": 0.8}),
    ("PRelu", [X, draw(6, 1, 1)], {}),
    ("Pow", [np.abs(SMALL), np.array(1.7, np.float32)], {}),
    ("Pow", [SMALL, whole(2)], {}),
    ("Pow", [np.abs(SMALL), draw(4)], {}),
    ("Clip", [X, np.float32(-0.2), np.float32(0.5)], {}),
    ("Clip", [X, None, np.float32(0.5)], {}),
    ("Clip", [X, np.float32(0)], {}),
    ("Clip", [X, np.float32(0.5), np.float32(-0.2)], {}),
    ("Clip", [X], {"opset": 10, "min": -0.5, "max": 0.1}),
    ("Clip", [np.arange(-5, 5), whole(-2).reshape(()), whole(3).reshape(())], {}),
    ("Div", [whole(-7, 7, 9), whole(2, -2, 4)], {}),
    ("Mod", [whole(-7, 7, 9), whole(2, -2, 4)], {}),
    ("Mod", [SMALL, np.float32(0.7)], {"fmod": 1}),
    ("Max", [SMALL, draw(4), draw(3, 1)], {}),
    ("Sum", [SMALL], {}),
    ("Equal", [whole(1, 2, 3), whole(1, 0, 3)], {}),
    ("Where", [SMALL > 0, SMALL, np.float32(0.5)], {"constants": (2,)}),
    ("And", [SMALL > 0, SMALL < 1], {"constants": ()}),
    ("Or", [SMALL > 0, SMALL < -1], {"constants": ()}),
    ("Xor", [SMALL > 0, SMALL < 1], {"constants": ()}),
    ("Not", [SMALL > 0], {}),
    ("Softmax", [SMALL], {"axis": 1}),
    ("Softmax", [SMALL], {"axis": 1, "opset": 11}),
    ("LogSoftmax", [SMALL], {"opset": 11}),
    ("BatchNormalization", [X, draw(6), draw(6, seed=1), draw(6, seed=2), np.abs(draw(6)) + 0.1], {"epsilon": 1e-3}),
    ("InstanceNormalization", [X, draw(6), draw(6, seed=1)], {"epsilon": 1e-3}),
    ("InstanceNormalization", [draw(2, 3, 7), draw(3), draw(3, seed=1)], {}),
    ("GroupNormalization", [X, draw(6), draw(6, seed=1)], {"num_groups": 3, "opset": 21}),
    ("GroupNormalization", [X, draw(3), draw(3, seed=1)], {"num_groups": 3, "opset": 18}),
    ("LayerNormalization", [X, draw(8), draw(8, seed=1)], {"epsilon": 1e-3}),
    ("LayerNormalization", [X, draw(9, 8)], {"axis": 2}),
    ("LpNormalization", [X], {"axis": 1, "p": 1}),
    ("MeanVarianceNormalization", [X], {"axes": [1, 2]}),
    ("LRN", [X], {"size": 3, "alpha": 0.2, "beta": 0.6, "bias": 1.5}),
    ("LRN", [X], {"size": 5}),
    ("Gemm", [draw(3, 4), draw(4, 5), draw(5)], {}),
    ("Gemm", [draw(3, 4), draw(5, 4), draw(5)], {"transB": 1}),
    ("Gemm", [draw(3, 4), draw(5, 4), draw(1)], {"transB": 1}),
    ("Gemm", [draw(4, 3), draw(4, 5), draw(3, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [draw(3, 4), draw(4, 5)], {}),
    ("MatMul", [draw(2, 3, 4), draw(4, 5)], {}),
    ("MatMul", [draw(2, 3, 4), draw(4)], {}),
    ("MatMul", [draw(2, 1, 3, 4), draw(5, 4, 2)], {"constants": ()}),
    ("Einsum", [draw(2, 3, 4), draw(4, 5)], {"equation": "b i j, j k -> b k i"}),
    ("Reshape", [X, whole(0, -1, 4)], {}),
    ("Reshape", [np.zeros((0, 3), np.float32), whole(0, 5)], {"allowzero": 1, "opset": 14}),
    ("Flatten", [X], {"axis": 2}),
    ("Flatten", [X], {"axis": 0}),
    ("Flatten", [X], {"axis": -1}),
    ("Squeeze", [draw(2, 1, 3, 1), whole(-1)], {}),
    ("Squeeze", [draw(2, 1, 3, 1)], {"axes": [1], "opset": 11}),
    ("Unsqueeze", [SMALL, whole(0, -1)], {}),
    ("Unsqueeze", [SMALL], {"axes": [1, 3], "opset": 11}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Concat", [SMALL, draw(2, 1, 4)], {"axis": -2, "constants": ()}),
    ("Split", [X, whole(1, 2, 3)], {"axis": 1, "outputs": 3}),
    ("Split", [X], {"axis": 1, "outputs": 2}),
    ("Split", [X], {"axis": 2, "outputs": 4, "num_outputs": 4, "opset": 18}),
    ("Split", [X], {"axis": 1, "outputs": 2, "split": [2, 4], "opset": 11}),
    ("Slice", [X, whole(1, -3), whole(4, 2**62), whole(1, -1)], {}),
    ("Slice", [X, whole(0), whole(2**31 - 1), whole(2), whole(3)], {}),
    ("Slice", [X, whole(-1), whole(-(2**62)), whole(3), whole(-2)], {}),
    ("Slice", [X, whole(7), whole(0), whole(3), whole(-1)], {}),
    ("Slice", [X, whole(5), whole(2), whole(3)], {}),
    ("Slice", [X], {"starts": [1], "ends": [-1], "axes": [2], "opset": 9}),
    ("Gather", [X, np.array([[0, -1], [2, 1]], I64)], {"axis": 1}),
    ("Gather", [X, whole(3).reshape(())], {"axis": 2}),
    ("GatherElements", [SMALL, np.array([[[0, 1, -1, 2]]] * 2, I64)], {"axis": 1}),
    ("Expand", [draw(3, 1), whole(2, 1, 4)], {}),
    ("Tile", [SMALL, whole(1, 2, 3)], {}),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("ConstantOfShape", [whole(2, 3)], {}),
    ("Range", [whole(2).reshape(()), whole(11).reshape(()), whole(3).reshape(())], {}),
    ("CumSum", [SMALL, whole(1).reshape(())], {}),
    ("CumSum", [SMALL, whole(2).reshape(())], {"exclusive": 1, "reverse": 1}),
    ("TopK", [SMALL, whole(2)], {"outputs": 2}),
    ("TopK", [SMALL, whole(2)], {"outputs": 2, "axis": 1, "largest": 0}),
    ("DepthToSpace", [draw(1, 8, 3, 2)], {"blocksize": 2}),
    ("DepthToSpace", [draw(1, 8, 3, 2)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [draw(1, 2, 6, 4)], {"blocksize": 2}),
    ("Cast", [SMALL * 3], {"to": 7}),
    ("Cast", [SMALL], {"to": 9}),
    ("Cast", [whole(3, -2)], {"to": 1}),
    ("CastLike", [SMALL, whole(1)], {}),
    ("ArgMax", [np.array([[1, 3, 3], [2, 2, 1]], np.float32)], {"axis": 1, "keepdims": 0}),
    ("ArgMin", [np.array([[1, 3, 1], [2, 2, 1]], np.float32)], {"axis": 1, "select_last_index": 1}),
    ("ReduceMean", [X], {"axes": [2, 3], "keepdims": 0}),
    ("ReduceMean", [X, whole(-1)], {"opset": 18}),
    ("ReduceMean", [X], {"opset": 18, "noop_with_empty_axes": 1}),
    ("ReduceSum", [X, whole(1, 2)], {"keepdims": 0}),
    ("ReduceProd", [SMALL], {"axes": [0, 2], "keepdims": 0}),
    ("MaxPool", [draw(1, 2, 11)], {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    ("MaxPool", [draw(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ("LpPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "p": 3}),
    ("AveragePool", [draw(1, 2, 11)], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("AveragePool", [draw(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "pads": [1, 0, 0, 0, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1], "opset": 19}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)], {}),
    ("Pad", [X, whole(0, 0, -1, 2, 0, 0, -3, 0)], {}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "edge"}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "wrap", "opset": 19}),
    ("Pad", [X, whole(1, 2), None, whole(-1)], {"opset": 18}),
    ("Pad", [X], {"pads": [0, 0, 1, 1, 0, 0, 0, 2], "value": 2.0, "opset": 10}),
    ("Upsample", [draw(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32)], {"opset": 9}),
    ("Upsample", [draw(1, 2, 3, 4), np.array([1, 1, 2, 2], np.float32)], {"opset": 9, "mode": "linear"}),
    ("Resize", [draw(1, 2, 3, 4), np.array([1, 1, 2, 1.5], np.float32)], {"opset": 10}),
]


def _name(case: Case) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[2].items())])


@pytest.mark.parametrize("case", CASES, ids=map(_name, CASES))
def test_an_operator_gives_what_onnxruntime_gives(case: Case) -> None:
    op, inputs, words = case
    agree(op, inputs, **words)


# These have cases of their own: random ones (test_windows.py), or none that onnxruntime's CPU can run.
ELSEWHERE = {"Conv", "ConvTranspose", "Constant", "RMSNormalization", "Swish"}


def test_no_operator_of_the_table_is_left_out() -> None:
    assert set(OPERATORS) - {op for op, *_ in CASES} == ELSEWHERE


def test_the_operators_that_onnxruntime_lacks_follow_their_formulas() -> None:
    x = draw(2, 5)
    got = {}
    for op, inputs, words in (
        ("Swish", [x], {"alpha": 1.5, "opset": 24}),
        ("RMSNormalization", [x, draw(5)], {"epsilon": 1e-3, "opset": 23}),
    ):
        data, feeds = one_node(op, inputs, **words)
        got[op] = module_of(data)({"i0": torch.from_numpy(feeds["i0"])})["o0"].detach().numpy()
    np.testing.assert_allclose(got["Swish"], x / (1 + np.exp(-1.5 * x)), rtol=1e-5)
    size = np.sqrt((x**2).mean(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(got["RMSNormalization"], x / size * draw(5), rtol=1e-5)


@pytest.mark.parametrize(
    "words",
    [{"value_float": 1.5}, {"value_floats": [1.0, 2.0]}, {"value_int": 3}, {"value_ints": [3, 4]}],
    ids=lambda words: next(iter(words)),
)
def test_constants_are_what_their_attribute_says(words: dict[str, Any]) -> None:
    data, _ = one_node("Constant", [], **words)
    found = module_of(data)({})["o0"].numpy()
    np.testing.assert_array_equal(found, np.array(next(iter(words.values()))))


@pytest.mark.parametrize(
    ("op", "inputs", "words", "named"),
    [
        ("NonZero", [SMALL], {}, "NonZero"),
        ("MaxPool", [X], {"kernel_shape": [2, 2], "outputs": 2}, "first output"),
        ("Resize", [X, None, np.array([1, 1, 0.5, 0.5], np.float32)], {"antialias": 1, "mode": "linear", "opset": 18},
         "smooths"),
        ("BatchNormalization", [X, *[draw(6)] * 4], {"training_mode": 1}, "training mode"),
        ("Cast", [SMALL], {"to": 14}, "COMPLEX64"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_named_with_its_node(
    op: str, inputs: list[Any], words: dict[str, Any], named: str
) -> None:
    data, feeds = one_node(op, inputs, **words)
    with pytest.raises(ModelError, match="the_node") as caught:
        module_of(data)({name: torch.from_numpy(array) for name, array in feeds.items()})
    assert named in str(caught.value) and op in str(caught.value)
