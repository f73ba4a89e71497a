"""The view on the samples: batches, splits, subsets, digests, warnings; and sources that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnx_layermerge.data as data_room
from onnx_layermerge.data import Calibration, ImageOptions, InputSpec, load_calibration
from onnx_layermerge.errors import DataError, UsageError

X = InputSpec("x", ("N", 2), np.dtype("float32"))


def of(values: list[int]) -> Calibration:
    """Samples [v, v + 1000]."""
    column = np.array(values, dtype=np.float32)
    return load_calibration({"x": np.stack([column, column + 1000], axis=1)}, [X])


def ids(data: Calibration) -> list[int]:
    return [int(value) for value in data.batch(range(len(data)))["x"][:, 0]]


def test_the_public_names() -> None:
    assert data_room.__all__ == [
        "CACHE_BYTES",
        "PRESETS",
        "SMALLEST_SIDE",
        "Calibration",
        "ImageOptions",
        "InputSpec",
        "Layout",
        "Pictures",
        "Range",
        "answers",
        "answers_finite",
        "built_in_pictures",
        "check_finite",
        "check_fits",
        "constant_outputs",
        "gather",
        "how_many_fit",
        "infer_range",
        "load_calibration",
        "not_finite",
        "nothing_left",
        "open_array",
        "same_answer",
        "same_values",
        "suspicious_range",
        "with_mirrored",
        "with_mixtures",
    ]


def test_batch_keeps_the_asked_order() -> None:
    data = of(list(range(10)))
    assert data.batch([7, 0, 7, -1])["x"][:, 0].tolist() == [7, 0, 7, 9]
    for wrong in ([10], [-11], []):
        with pytest.raises(IndexError):
            data.batch(wrong)


def test_batches_cover_everything_once() -> None:
    sizes = [len(batch["x"]) for batch in of(list(range(10))).batches(4)]
    assert sizes == [4, 4, 2]
    with pytest.raises(UsageError):
        next(of([1]).batches(0))


def test_changing_a_batch_changes_no_sample() -> None:
    data = of([1, 2, 3])
    data.batch([0])["x"][:] = 99
    data.batch(range(3))["x"][:] = 99
    assert ids(data) == [1, 2, 3]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_split_is_disjoint_whole_and_of_the_wanted_size(fraction: float) -> None:
    fit, validation = of(list(range(40))).split(fraction, seed=3)
    assert len(validation) == round(40 * fraction)
    assert sorted(ids(fit) + ids(validation)) == list(range(40))


def test_split_follows_the_seed() -> None:
    data = of(list(range(40)))
    assert ids(data.split(seed=1)[1]) == ids(data.split(seed=1)[1])
    assert ids(data.split(seed=1)[1]) != ids(data.split(seed=2)[1])


@pytest.mark.parametrize("seed", range(20))
def test_copies_are_never_on_both_sides(seed: int) -> None:
    values = [0] * 7 + [1, 1, 2, 2, 2, 3, 4, 5, 6, 6]
    fit, validation = of(values).split(0.3, seed)
    assert not set(ids(fit)) & set(ids(validation))
    assert sorted(ids(fit) + ids(validation)) == sorted(values)
    assert 1 <= len(validation) <= 5


def test_a_split_where_every_sample_has_many_copies() -> None:
    fit, validation = of([1] * 9 + [2] * 8).split(0.1)
    assert (ids(fit), ids(validation)) == ([1] * 9, [2] * 8)


def test_a_split_of_two() -> None:
    for fraction in (0.01, 0.99):
        assert [len(part) for part in of([1, 2]).split(fraction)] == [1, 1]


@pytest.mark.parametrize("values", [[1], [1, 1, 1]])
def test_one_distinct_sample_cannot_be_split(values: list[int]) -> None:
    with pytest.raises(DataError, match="at least two different"):
        of(values).split()


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_an_impossible_fraction(fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        of([1, 2]).split(fraction)


def test_take_is_a_seeded_subset() -> None:
    data = of(list(range(40)))
    some = ids(data.take(10, seed=4))
    assert some == ids(data.take(10, seed=4)) == sorted(set(some))
    assert some not in (ids(data.take(10, seed=5)), list(range(10)))
    assert ids(data.take(99)) == ids(data)
    with pytest.raises(UsageError):
        data.take(0)


def test_parts_of_parts() -> None:
    fit, _ = of(list(range(40))).split()
    assert set(ids(fit.take(5))) < set(ids(fit))
    assert fit.source == "The dict of arrays"


def test_digest_depends_on_samples_and_their_order() -> None:
    data = of([1, 2, 3])
    digests = [of(values).digest() for values in ([1, 2, 3], [3, 2, 1], [1, 2], [1, 2, 4])]
    assert len(set(digests)) == 4
    assert data.digest() == digests[0] == data.take(3).digest()
    assert len(data.digest()) == 64


def test_copies_have_the_same_fingerprint_and_parts_those_of_their_samples() -> None:
    data = of([1, 2, 1, 3])
    first, second, third, fourth = data.fingerprints()
    assert first == third and len({first, second, fourth}) == 3
    part = data.take(2, seed=1)
    assert part.fingerprints() == of(ids(part)).fingerprints()


def test_digest_depends_on_shape_and_dtype() -> None:
    values = np.arange(4, dtype=np.float32)
    digests = {
        load_calibration(
            {"x": values.reshape(1, *shape).view(dtype)}, [InputSpec("x", ("N", None, None), np.dtype(dtype))]
        ).digest()
        for shape in ((1, 4), (2, 2))
        for dtype in ("float32", "int32")
    }
    assert len(digests) == 4


def test_good_data_have_no_warnings() -> None:
    data = of(list(range(32)))
    assert data.warnings == ()


def test_warnings() -> None:
    few, copies, same = of(list(range(31))), of([0, 0, 0, *range(40)]), of([5] * 40)
    assert few.warnings == ("Only 31 calibration samples: fits are poor below 32, give more.",)
    assert copies.warnings == ("3 of 43 calibration samples are exact copies of others.",)
    assert same.warnings == ("All 40 calibration samples are identical: give different ones.",)
    assert few.split()[0].warnings == ()
    repeated = of([*range(6)] * 10)
    assert repeated.warnings == (
        "Only 6 different calibration samples: fits are poor below 32, give more.",
        "54 of 60 calibration samples are exact copies of others.",
    )
    assert (len(repeated), repeated.distinct, len(few), few.distinct) == (60, 6, 31, 31)


def test_constant_samples_are_warned_about() -> None:
    values = np.arange(80, dtype=np.float32).reshape(40, 2)
    values[[3, 8]] = [[1, 1], [2, 2]]
    data = load_calibration({"x": values}, [X])
    assert len(data.warnings) == 1
    assert data.warnings[0].startswith("2 of 40 calibration samples looked at are constant")


def test_image_options_for_arrays_are_warned_about() -> None:
    values = np.arange(80, dtype=np.float32).reshape(40, 2)
    data = load_calibration({"x": values}, [X], images=ImageOptions(preset="unit"))
    assert data.warnings == (
        "The dict of arrays holds arrays, not images: the image options have no effect.",
    )


def test_a_source_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no calibration data at .*nothing") as caught:
        load_calibration(tmp_path / "nothing", [X])
    assert caught.value.exit_code == 1


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("1,2")
    with pytest.raises(DataError, match=r"give a \.npz, a folder"):
        load_calibration(path, [X])


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(DataError, match=r"holds no \.npy files and no images"):
        load_calibration(tmp_path, [X])


def test_a_folder_of_two_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2, np.float32))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="leave one kind"):
        load_calibration(tmp_path, [X])


@pytest.mark.parametrize("limit", [0, -3])
def test_an_impossible_limit(limit: int) -> None:
    with pytest.raises(UsageError, match="limit on samples"):
        load_calibration({"x": np.zeros((4, 2))}, [X], limit=limit)
