"""Which shapes, names and dtypes fit a model's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import InputSpec, load_calibration
from onnx_layermerge.errors import DataError

RNG = np.random.default_rng(3)


def spec(shape: tuple[int | str | None, ...], dtype: str = "float32", name: str = "x") -> InputSpec:
    return InputSpec(name, shape, np.dtype(dtype))


def load(inputs: list[InputSpec], **arrays: Any) -> dict[str, np.ndarray]:
    data = load_calibration(arrays, inputs)
    return data.batch(range(len(data)))


def test_a_double_becomes_the_inputs_float() -> None:
    values = RNG.normal(size=(5, 3))
    got = load([spec(("N", 3))], x=values)["x"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values.astype(np.float32))


def test_bytes_in_another_order_are_read_right() -> None:
    values = RNG.normal(size=(5, 3)).astype(">f4")
    np.testing.assert_array_equal(load([spec(("N", 3))], x=values)["x"], values)


def test_integers_that_fit_become_the_inputs_integers() -> None:
    got = load([spec(("N", 2), "int8")], x=np.array([[-128, 127], [0, 1]]))["x"]
    assert got.dtype == np.int8
    assert got.tolist() == [[-128, 127], [0, 1]]


@pytest.mark.parametrize(
    ("values", "want", "words"),
    [
        (np.zeros((4, 2), np.uint8), "float32", r"takes float32: convert the array"),
        (np.zeros((4, 2), np.int64), "float32", r"holds int64"),
        (np.zeros((4, 2), bool), "float32", r"holds bool"),
        (np.zeros((4, 2)), "int64", r"save it as integers"),
        (np.zeros((4, 2), np.int32), "bool", r"save it as booleans"),
        (np.full((4, 2), "a"), "float32", r"holds text"),
        (np.full((4, 2), None), "float32", r"holds Python objects"),
        (np.zeros((4, 2), complex), "float32", r"holds complex128"),
        (np.full((4, 2), 1e39), "float32", r"Sample 0 .* too large for float32"),
        (np.full((4, 2), 300), "uint8", r"from 300 to 300, which do not fit uint8"),
        (np.full((4, 2), 2**64 - 1, np.uint64), "int64", r"do not fit int64"),
        (np.array([[0, 0], [1, np.nan]]), "float32", r"Sample 1 .* NaN or infinite"),
        (np.array([[0, 0], [1, -np.inf]]), "float32", r"Sample 1 .* NaN or infinite"),
    ],
)
def test_a_dtype_or_value_that_does_not_fit_is_refused(values: np.ndarray, want: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load([spec(("N", 2), want)], x=values)


@pytest.mark.parametrize("shape", [(4, 3, 8, 9), (4, 3, 8), (3, 8, 8), (4, 1, 8, 8)])
def test_a_static_shape_must_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"but the model's input 'x' has shape \(N, 3, 8, 8\)"):
        load([spec(("N", 3, 8, 8))], x=np.zeros(shape, np.float32))


def test_channels_at_the_wrong_end_are_named() -> None:
    with pytest.raises(DataError, match="channels seem to stand last in the data"):
        load([spec(("N", 3, 8, 8))], x=np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(DataError, match="channels seem to stand first in the data"):
        load([spec(("N", 8, 8, 3))], x=np.zeros((4, 3, 8, 8), np.float32))


def test_a_symbol_has_one_size_over_all_inputs() -> None:
    inputs = [spec(("N", "T")), spec(("N", "T", 2), name="y")]
    x, y = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5, 2))
    assert load(inputs, x=x, y=y)["y"].shape == (4, 5, 2)
    with pytest.raises(DataError, match=r"has 6 for the dimension 'T', but .*'x'.* has 5"):
        load(inputs, x=x, y=RNG.normal(size=(4, 6, 2)))


def test_a_symbol_and_an_unknown_dimension_have_one_size_over_all_samples() -> None:
    for dim, words in (("T", "the dimension 'T'"), (None, "axis 1 of input 'x'")):
        stream = [{"x": np.zeros((1, 5), np.float32)}, {"x": np.zeros((1, 6), np.float32)}]
        with pytest.raises(DataError, match=f"Item 1 .* has 6 for {words}"):
            load_calibration(stream, [spec(("N", dim))])


def test_the_batch_symbol_is_free() -> None:
    stream = [{"x": np.zeros((count, 2), np.float32)} for count in (1, 3)]
    assert len(load_calibration(stream, [spec(("N", 2))])) == 4
    assert len(load_calibration(stream, [spec((1, 2))])) == 4


def test_an_input_of_one_number_a_sample() -> None:
    got = load([spec(("N",), "int64")], x=np.arange(4))["x"]
    assert got.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="single number"):
        load([spec(("N",), "int64")], x=7)


def test_names_are_listed_when_one_is_missing() -> None:
    inputs = [spec(("N", 2)), spec(("N", 2), name="y")]
    with pytest.raises(DataError, match=r"holds 'x', 'z', but the model's inputs are 'x', 'y'"):
        load(inputs, x=np.zeros((4, 2)), z=np.zeros((4, 2)))


def test_inputs_must_agree_in_samples() -> None:
    inputs = [spec(("N", 2)), spec(("N", 2), name="y")]
    with pytest.raises(DataError, match=r"'x' 4, 'y' 5"):
        load(inputs, x=np.zeros((4, 2)), y=np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [([], "no inputs"), ([spec(())], "scalar"), ([spec(("N",), "U3")], "cannot be")],
)
def test_a_model_that_no_data_can_feed(inputs: list[InputSpec], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(inputs, x=np.zeros((4, 2)))


@pytest.mark.parametrize("shape", [(0, 2), (4, 0)])
def test_empty_arrays_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"no samples|no values"):
        load([spec(("N", "T"))], x=np.zeros(shape, np.float32))
