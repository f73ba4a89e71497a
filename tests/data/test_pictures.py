"""Cuts of built-in photographs: the range and size asked for, never the same twice, held-out pictures apart."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnx_layermerge.data import ImageOptions, InputSpec, Pictures, built_in_pictures
from onnx_layermerge.data._pictures import COLOURED, GREY, HELD_OUT
from onnx_layermerge.errors import DataError

SPEC = InputSpec("x", ("batch", 3, 24, 32), np.dtype(np.float32))
RAW = ImageOptions(preset="raw")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """A picture of its own level for each name: 40 and up for those that are fitted on, 200 and up for the others."""
    folder, files = tmp_path_factory.mktemp("skimage") / "data", []
    folder.mkdir()
    for number, name in enumerate((*COLOURED, *GREY)):
        rng = np.random.default_rng(number)
        level = 190 if name in HELD_OUT else 60
        shape = (50, 70) if name in GREY else (50, 70, 3)
        pixels = np.clip(level + rng.integers(-30, 30, shape), 0, 255).astype(np.uint8)
        path = (folder / name).with_suffix(".png")
        Image.fromarray(pixels).save(path)
        files.append(path.rename(folder / name))
    return Pictures(tuple(files))


def test_held_out_pictures_are_a_quarter_and_only_there(stand_ins: Pictures) -> None:
    fit, validation = stand_ins.samples(SPEC, RAW, 40, seed=0)
    assert (len(fit), len(validation)) == (30, 10)
    # Brightness and white move a cut by less than half of what lies between the two kinds.
    assert fit.batch(range(30))["x"].mean(axis=(1, 2, 3)).max() < 125
    assert validation.batch(range(10))["x"].mean(axis=(1, 2, 3)).min() > 125


@pytest.mark.parametrize("count", [2, 3, 1])
def test_either_part_has_a_sample(stand_ins: Pictures, count: int) -> None:
    assert min(map(len, stand_ins.samples(SPEC, RAW, count, seed=0))) >= 1


def test_no_two_samples_are_alike_and_the_same_seed_gives_the_same(stand_ins: Pictures) -> None:
    (fit, validation), (again, _) = (stand_ins.samples(SPEC, RAW, 32, seed=3) for _ in range(2))
    values = fit.batch(range(24))["x"]
    np.testing.assert_array_equal(values, again.batch(range(24))["x"])
    # In another order, and one by one: a sample depends on its number alone.
    np.testing.assert_array_equal(values[[7, 2]], again.batch([7, 2])["x"])
    assert len({sample.tobytes() for sample in values}) == 24
    assert fit.digest() == again.digest() != validation.digest()
    other, _ = stand_ins.samples(SPEC, RAW, 32, seed=4)
    assert other.digest() != fit.digest()
    assert not np.array_equal(other.batch([0])["x"], values[:1])


def test_the_range_and_the_layout_are_those_of_the_options(stand_ins: Pictures) -> None:
    raw = stand_ins.samples(SPEC, RAW, 8, seed=0)[0].batch(range(4))["x"]
    assert raw.shape == (4, 3, 24, 32) and raw.dtype == np.float32
    assert raw.min() >= 0 and raw.max() > 40
    unit = stand_ins.samples(SPEC, ImageOptions(preset="unit"), 8, seed=0)[0].batch(range(4))["x"]
    np.testing.assert_allclose(unit, raw / 255, atol=1e-6)
    last = InputSpec("x", ("batch", 24, 32, 3), np.dtype(np.float32))
    flipped = ImageOptions(preset="raw", color="bgr")
    nhwc = stand_ins.samples(last, flipped, 8, seed=0)[0].batch(range(4))["x"]
    np.testing.assert_array_equal(nhwc[..., ::-1].transpose(0, 3, 1, 2), raw)


def test_one_channel_stays_grey(stand_ins: Pictures) -> None:
    fit, _ = stand_ins.samples(InputSpec("x", (None, 1, 20, 20), np.dtype(np.uint8)), ImageOptions(), 16, seed=0)
    values = fit.batch(range(12))["x"]
    assert values.shape == (12, 1, 20, 20) and values.dtype == np.uint8


def test_an_input_that_takes_no_such_range_is_refused(stand_ins: Pictures) -> None:
    with pytest.raises(DataError, match="int8"):
        stand_ins.samples(InputSpec("x", (None, 3, 20, 20), np.dtype(np.int8)), ImageOptions(), 4, seed=0)


def test_the_cache_bounds_what_is_kept_and_changes_nothing(
    stand_ins: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = stand_ins.samples(SPEC, RAW, 8, seed=0)[0].batch(range(6))["x"]
    monkeypatch.setattr("onnx_layermerge.data._pictures.CACHE_BYTES", 2 * 24 * 32 * 3)
    fit, _ = stand_ins.samples(SPEC, RAW, 8, seed=0)
    for _ in range(2):
        np.testing.assert_array_equal(fit.batch(range(6))["x"], kept)
    assert len(fit._store._kept) == 2  # type: ignore[attr-defined]


def test_without_the_package_or_a_picture_in_it_there_are_none(
    stand_ins: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    places: dict[str, Path | None] = {"skimage": stand_ins.files[0].parents[1]}

    def find(name: str, *rest: str) -> object:
        if name not in places:
            return found(name, *rest)
        place = places[name]
        if place is None:
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
        return spec

    monkeypatch.setattr("importlib.util.find_spec", find)
    assert built_in_pictures() == stand_ins
    places["skimage"] = tmp_path
    assert built_in_pictures() is None
    places["skimage"] = None
    assert built_in_pictures() is None
    places.update(skimage=stand_ins.files[0].parents[1], PIL=None)
    assert built_in_pictures() is None


def test_the_real_ones_are_photographs() -> None:
    pictures = built_in_pictures()
    if pictures is None:
        pytest.skip("scikit-image is not installed")
    fit, validation = pictures.samples(SPEC, ImageOptions(preset="unit"), 32, seed=0)
    for part in (fit, validation):
        values = part.batch(range(len(part)))["x"]
        assert values.min() >= 0 and values.max() <= 1
        # Neighbours are alike, as nowhere in noise, and none is a plain field.
        steps = np.abs(np.diff(values, axis=3)).mean()
        assert steps < 0.5 * values.std() and values.std(axis=(1, 2, 3)).min() > 0.005
