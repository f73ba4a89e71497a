from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_layermerge.fit import grid_of, patch_rows, sample_positions, value_rows
from onnx_layermerge.merge import AffineConv, Geometry


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_weights_times_patches_are_the_convolution(data: st.DataObject, rank: int) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    geometry = Geometry(each(1, 3), each(1, 3), each(0, 2), each(0, 2))
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 2, *(5,) * rank)), rng.standard_normal((4, 2, *geometry.kernel))
    conv = AffineConv.from_conv(
        weight, None, geometry.stride, (1,) * rank, geometry.pad_begin + geometry.pad_end, 1
    )
    wanted = conv.apply(x)
    assert grid_of(geometry, x) == wanted.shape[2:]
    places = sample_positions(3, wanted.shape[2:], data.draw(st.integers(1, 200)), rng)
    got = patch_rows(x, geometry, places).reshape(len(places), -1) @ weight.reshape(4, -1).T
    np.testing.assert_allclose(got, value_rows(wanted, places), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "each"), [(1, 1), (10, 4), (30, 10), (10**6, 12)])
def test_positions_are_spread_over_the_images_without_repeats(rows: int, each: int) -> None:
    places = sample_positions(3, (3, 4), rows, np.random.default_rng(0))
    assert places.shape == (3 * each, 3)
    assert len(np.unique(places, axis=0)) == len(places)
    assert np.bincount(places[:, 0]).tolist() == [each] * 3
    assert (np.diff(places[:, 0]) >= 0).all() and (places[:, 1:] < (3, 4)).all() and (places >= 0).all()
