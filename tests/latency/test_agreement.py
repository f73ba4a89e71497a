"""Outputs held against the CPU's: what is rounding, by type, and what is a fault."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_layermerge.errors import ModelError
from onnx_layermerge.latency.backends._agreement import agree
from onnx_layermerge.latency.backends._onnxruntime import OnnxRuntimeRunnable
from onnx_layermerge.latency.backends.tensorrt import cast
from tests.zoo import Net

RNG = np.random.default_rng(0)
INF, NAN = np.inf, np.nan


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def segmentation() -> bytes:
    """The class of each pixel, [1, 48, 48], int64."""
    net = Net(seed=3)
    value = net.input("x", (1, 3, 48, 48))
    for index in range(3):
        value = net.relu(net.conv(value, f"conv{index}", 16), f"relu{index}")
    proto = net.proto(net.conv(value, "head", 21, 1))
    proto.graph.node.append(helper.make_node("ArgMax", ["head"], ["classes"], axis=1, keepdims=0))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("classes", onnx.TensorProto.INT64, (1, 48, 48)))
    return proto.SerializeToString()


def test_classes_that_tip_over_by_rounding_agree_and_other_classes_do_not() -> None:
    model = segmentation()
    reference = OnnxRuntimeRunnable(model, {})
    feeds = reference.inputs()
    (want,) = reference.outputs(feeds)
    rounded = OnnxRuntimeRunnable(cast(model, "fp16"), {})
    (have,) = rounded.outputs({name: feed.astype(np.float16) for name, feed in feeds.items()})
    assert want.dtype == np.int64 and np.any(want != have), "the types must matter, or nothing is shown"
    agree([want], [have], "fp16", "It")
    with pytest.raises(ModelError, match=r"It computes something else: output 0 differs in \d+\.\d% of its entries"):
        agree([want], [np.roll(want, 1, axis=-1)], "fp16", "It")


@pytest.mark.parametrize(("precision", "most"), [("fp32", 3), ("tf32", 30), ("fp16", 60), ("bf16", 300)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_the_share_of_entries_that_differ_is_bounded_and_not_their_distance(
    precision: str, most: int, dtype: type[np.generic]
) -> None:
    want = RNG.integers(0, 2, 1000).astype(dtype)
    for count, passes in ((most, True), (most + 1, False)):
        have = want.copy()
        have[:count] = ~want[:count] if dtype is np.bool_ else want[:count] + 100
        if passes:
            agree([want], [have], precision, "It")
        else:
            with pytest.raises(ModelError, match=rf"{count / 1000:.1%} of its entries, and {most / 1000:.1%} is round"):
                agree([want], [have], precision, "It")


def test_a_few_entries_may_swap_places_and_no_more() -> None:
    want = np.array([[7, 2, 9, 4, 1]])
    agree([want], [np.array([[7, 9, 2, 4, 1]])], "fp16", "It")
    agree([np.array([3])], [np.array([5])], "fp16", "It")
    with pytest.raises(ModelError, match=r"60\.0% of its entries"):
        agree([want], [np.array([[9, 7, 2, 4, 1]])], "fp16", "It")


def test_what_is_not_finite_agrees_with_the_same_alone() -> None:
    want = floats(INF, -INF, NAN, 1, -2)
    agree([want], [want + floats(0, 0, 0, 1e-4, 0)], "fp32", "It")
    with pytest.raises(ModelError, match=r"off by 5\.0% of its largest value, and 0\.1% is rounding"):
        agree([want], [want + floats(0, 0, 0, 0, 0.1)], "fp32", "It")
    agree([floats(NAN, INF)], [floats(NAN, INF)], "fp32", "It")


@pytest.mark.parametrize(("want", "have"), [(INF, -INF), (INF, 3), (NAN, INF), (NAN, 3), (3, NAN), (3, INF)])
def test_what_is_finite_in_one_place_only_is_named(want: float, have: float) -> None:
    with pytest.raises(ModelError, match=r"output 1 has Inf or NaN .* in 1 of its 3 entries; try another --prec"):
        agree([floats(1), floats(1, want, 2)], [floats(1), floats(1, have, 2)], "bf16", "It")


@pytest.mark.parametrize("shape", [(), (0, 4), (2, 3)])
def test_any_shape_can_be_compared(shape: tuple[int, ...]) -> None:
    for dtype in (np.float16, np.float32, np.int64, np.bool_):
        agree([np.ones(shape, dtype)], [np.ones(shape, dtype)], "fp32", "It")
        with pytest.raises(ModelError, match="output 0 the shape"):
            agree([np.ones(shape, dtype)], [np.ones((*shape, 1), dtype)], "fp32", "It")


@pytest.mark.parametrize("given", [0, 1, 3])
def test_another_number_of_outputs_is_a_sentence(given: int) -> None:
    said = f"^It gives {given} outputs for the 2 of the model; try another version of it\\.$"
    with pytest.raises(ModelError, match=said):
        agree([floats(1)] * 2, [floats(1)] * given, "fp32", "It")
