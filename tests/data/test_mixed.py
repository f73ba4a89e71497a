"""Mixtures stand beside the samples, are always the same, stay in range, and leave alone what is no picture."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_layermerge.data import Calibration, InputSpec, load_calibration, with_mixtures

SPECS = (
    InputSpec("image", ("batch", 3, 8, 8), np.dtype(np.float32)),
    InputSpec("step", ("batch", 1), np.dtype(np.float32)),
    InputSpec("size", ("batch",), np.dtype(np.int64)),
)


def samples(number: int = 6) -> Calibration:
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.uniform(0, 1, (number, 3, 8, 8)).astype(np.float32),
        "step": np.arange(number, dtype=np.float32)[:, None],
        "size": np.arange(number),
    }
    return load_calibration(arrays, SPECS)


def test_the_samples_come_first_and_as_they_are() -> None:
    data = samples()
    both = with_mixtures(data, 0)
    assert len(both) == 8
    plain, with_them = data.batch(range(6)), both.batch(range(6))
    for name in plain:
        np.testing.assert_array_equal(plain[name], with_them[name])


def test_a_mixture_is_none_of_the_samples_and_within_their_range() -> None:
    both = with_mixtures(samples(), 0)
    values = both.batch(range(8))
    for mixture in values["image"][6:]:
        assert mixture.dtype == np.float32 and mixture.min() >= 0 and mixture.max() <= 1
        assert all(np.abs(mixture - sample).max() > 0.05 for sample in values["image"][:6])
    # The image of the sample it began with still shows: its share is half or more.
    likeness = np.corrcoef(values["image"].reshape(8, -1))[6:, :6]
    assert likeness.argmax(axis=1).tolist() == [0, 1]


def test_what_is_no_picture_is_that_of_the_first_sample() -> None:
    values = with_mixtures(samples(), 0).batch(range(8))
    np.testing.assert_array_equal(values["step"][6:], values["step"][:2])
    np.testing.assert_array_equal(values["size"][6:], values["size"][:2])


@pytest.mark.parametrize("size", [1, 5, 12])
def test_the_same_seed_gives_the_same_whatever_the_batches(size: int) -> None:
    both = with_mixtures(samples(), 3)
    joined = np.concatenate([batch["image"] for batch in both.batches(size)])
    np.testing.assert_array_equal(joined, with_mixtures(samples(), 3).batch(range(8))["image"])
    assert not np.array_equal(joined, with_mixtures(samples(), 4).batch(range(8))["image"])


def test_parts_of_it_hold_both_kinds() -> None:
    part = with_mixtures(samples(40), 0).take(30, 0)
    plain = {image.tobytes() for image in samples(40).batch(range(40))["image"]}
    of_both = [image.tobytes() in plain for image in part.batch(range(30))["image"]]
    assert 15 < sum(of_both) < 30


def test_nothing_to_mix_leaves_the_data() -> None:
    table = load_calibration({"step": np.zeros((4, 1), np.float32)}, SPECS[1:2])
    assert with_mixtures(table, 0) is table
    one = samples(1)
    assert with_mixtures(one, 0) is one
