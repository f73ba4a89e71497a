"""Mirror images stand behind the samples, for pictures alone."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.data import InputSpec, load_calibration, with_mirrored, with_mixtures


@pytest.mark.parametrize(("shape", "axis"), (((3, 4, 5), 3), ((1, 4, 5), 3), ((4, 5, 3), 2)))
def test_the_width_is_mirrored(shape: tuple[int, ...], axis: int) -> None:
    array = np.random.default_rng(0).uniform(0, 255, (6, *shape)).astype(np.uint8)
    data = load_calibration({"x": array}, [InputSpec("x", ("N", *shape), np.dtype(np.uint8))])
    both = with_mirrored(data)
    assert len(both) == 12
    values = both.batch(range(12))["x"]
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values[:6], data.batch(range(6))["x"])
    np.testing.assert_array_equal(values[6:], np.flip(data.batch(range(6))["x"], axis))
    shuffled = both.batch([7, 1, 11])["x"]
    np.testing.assert_array_equal(shuffled, values[[7, 1, 11]])
    prints = [both.take(1, seed).digest() for seed in range(40)]
    assert len(set(prints)) == 12


def test_mixtures_are_made_of_both() -> None:
    array = np.random.default_rng(0).uniform(0, 1, (6, 3, 4, 4)).astype(np.float32)
    data = load_calibration({"x": array}, [InputSpec("x", ("N", 3, 4, 4), np.dtype(np.float32))])
    assert len(with_mixtures(with_mirrored(data), 0)) == 16


@pytest.mark.parametrize("shapes", ([(64, 4, 4)], [(3, 40)], [(3, 4, 4), (1,)]))
def test_what_is_no_single_picture_is_left_as_it_is(shapes: list[tuple[int, ...]]) -> None:
    arrays = {f"x{number}": np.zeros((4, *shape), np.float32) for number, shape in enumerate(shapes)}
    specs = [InputSpec(name, ("N", *array.shape[1:]), array.dtype) for name, array in arrays.items()]
    data = load_calibration(arrays, specs)
    assert with_mirrored(data) is data
