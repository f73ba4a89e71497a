"""Which samples a step sees; no torch in it."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.data import InputSpec, load_calibration
from onnx_layermerge.recover.training._batches import Batches, picture_axes

F32 = np.dtype(np.float32)
X = InputSpec("x", ("N", 3, 8, 16), F32)


def counted(count: int, spec: InputSpec = X) -> Batches:
    """Sample n is a ramp along its width, from n."""
    ramp = np.arange(count, dtype=np.float32)[:, None, None, None] + np.linspace(0, 0.5, 16, dtype=np.float32)
    values = np.broadcast_to(ramp, (count, 3, 8, 16)).copy()
    return Batches(load_calibration({"x": values}, [spec]), 4, 0, augment=True)


def test_each_round_has_every_sample_once_in_an_order_of_its_own() -> None:
    batches = counted(12)
    rounds = [np.concatenate([batches.numbers(3 * number + step) for step in range(3)]) for number in range(2)]
    assert all(sorted(each) == list(range(12)) for each in rounds)
    assert list(rounds[0]) != list(rounds[1])


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    one, other = counted(12), counted(12)
    for step in (0, 1, 5):
        np.testing.assert_array_equal(one.at(step)["x"], other.at(step)["x"])
    np.testing.assert_array_equal(counted(12).at(5)["x"], other.at(5)["x"])


def test_processes_share_a_step() -> None:
    batches = counted(12)
    data = batches._data
    parts = [Batches(data, 4, 0, augment=False, rank=rank, count=2).at(1)["x"] for rank in range(2)]
    whole = Batches(data, 4, 0, augment=False).at(1)["x"]
    assert sorted(np.concatenate(parts)[:, 0, 0, 0]) == sorted(whole[:, 0, 0, 0])


def test_pictures_are_mirrored_and_moved_and_stay_what_they_are() -> None:
    batches = counted(12)
    seen = np.concatenate([batches.at(step)["x"] for step in range(30)])
    rising = seen[:, 0, 0, 15] > seen[:, 0, 0, 0]
    assert 0.3 < rising.mean() < 0.7
    # By up to two of sixteen columns, the edge repeated.
    ramp = np.linspace(0, 0.5, 16, dtype=np.float32)
    base = np.floor(seen[:, 0, 0].min(1))
    offsets = {round(float(row[7] - start - ramp[7]) / float(ramp[1])) for row, start, up in
               zip(seen[:, 0, 0], base, rising, strict=True) if up}  # fmt: skip
    assert offsets == {-2, -1, 0, 1, 2}


def test_with_labels_nothing_is_mirrored() -> None:
    plain = counted(12)._data
    values = {"x": plain.batch(range(12))["x"], "y": np.arange(12)}
    data = load_calibration(values, [X, InputSpec("y", ("N",), np.dtype(np.int64))])
    batches = Batches(data, 4, 0, augment=True, labels="y")
    for step in range(9):
        found = batches.at(step)
        assert (found["x"][:, 0, 0, 15] > found["x"][:, 0, 0, 0]).all()
        np.testing.assert_array_equal(found["x"][:, 0, 0, 8].astype(int), found["y"])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        (("N", 3, 8, 8), (2, 3)),
        (("N", 1, 8, 8), (2, 3)),
        (("N", 8, 8, 3), (1, 2)),
        (("N", 16, 8, 8), None),
        (("N", 3, 64), None),
    ],
)
def test_pictures_have_one_or_three_colours(shape: tuple[str | int, ...], axes: tuple[int, int] | None) -> None:
    assert picture_axes(InputSpec("x", shape, F32)) == axes
