"""Folders of images: the pixels that come out, the order, laziness, and unreadable files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import Calibration, ImageOptions, InputSpec, load_calibration
from onnx_layermerge.data import _images as images_module
from onnx_layermerge.errors import DataError

Image = pytest.importorskip("PIL.Image")
RAW = ImageOptions(preset="raw")


def spec(*shape: int | str | None, dtype: str = "float32") -> InputSpec:
    return InputSpec("x", shape, np.dtype(dtype))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def folder_of(tmp_path: Path, count: int, side: int = 8) -> Path:
    for index in range(count):
        Image.fromarray(noise(index, side, side, 3)).save(tmp_path / f"{index:03}.png")
    return tmp_path


def only(folder: Path, target: InputSpec, options: ImageOptions) -> np.ndarray:
    return load_calibration(folder, [target], images=options).batch([0])["x"][0]


def test_pixels_follow_the_formula(tmp_path: Path) -> None:
    pixels = noise(1, 8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = ImageOptions(preset="imagenet", resize=8)
    got = only(tmp_path, spec("N", 3, 8, 8), options)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = ((pixels / 255.0 - mean) / std).transpose(2, 0, 1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(only(tmp_path, spec("N", 8, 8, 3), options), got.transpose(1, 2, 0))


def test_caffe_turns_the_channels_before_the_mean(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "a.png")
    got = only(tmp_path, spec("N", 3, 8, 8), ImageOptions(preset="caffe"))
    np.testing.assert_allclose(got[:, 0, 0], [30 - 103.939, 20 - 116.779, 10 - 123.68], atol=1e-5)


def test_gray_for_one_channel_and_repeated_for_three(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
    one = only(tmp_path, spec("N", 1, 8, 8), RAW)
    three = only(tmp_path, spec("N", 3, 8, 8), ImageOptions(preset="raw", color="gray"))
    assert one.shape == (1, 8, 8)
    assert (one == 76).all()  # 0.299 · 255
    assert three.shape == (3, 8, 8)
    assert (three == 76).all()


def test_an_integer_input_takes_the_bytes(tmp_path: Path) -> None:
    pixels = noise(2, 8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = only(tmp_path, spec("N", 8, 8, 3, dtype="uint8"), ImageOptions())
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (only(tmp_path, spec("N", 3, 8, 8), RAW) == 255).all()


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = noise(3, 8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(only(tmp_path, spec("N", 8, 8, 3), RAW), pixels[::-1, ::-1])


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 257 * 40, np.uint16)).save(tmp_path / "a.png")
    assert (only(tmp_path, spec("N", 1, 8, 8), RAW) == 40).all()


def test_centre_crop(tmp_path: Path) -> None:
    pixels = noise(4, 8, 12, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = only(tmp_path, spec("N", 6, 6, 3), ImageOptions(preset="raw", resize=8))
    np.testing.assert_array_equal(got, pixels[1:7, 3:9])


def test_short_side_covers_and_stretch_bends(tmp_path: Path) -> None:
    """A ramp from left to right: the crop keeps its middle half, the stretch its whole range."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    cropped = only(tmp_path, spec("N", 16, 16, 3), RAW)
    bent = only(tmp_path, spec("N", 16, 16, 3), ImageOptions(preset="raw", resize=(16, 16)))
    assert 55 < cropped[0, 0, 0] < 75
    assert bent[0, 0, 0] < 15
    assert bent[0, -1, 0] > 240


def test_the_letterbox_keeps_the_whole_image_on_grey(tmp_path: Path) -> None:
    Image.new("RGB", (32, 16), (255, 255, 255)).save(tmp_path / "a.png")
    got = only(tmp_path, spec("N", 3, 16, 16), ImageOptions(preset="yolo"))
    assert (got[:, 4:12] == 1).all()
    np.testing.assert_allclose(got[:, :4], 114 / 255, rtol=1e-6)
    np.testing.assert_allclose(got[:, 12:], 114 / 255, rtol=1e-6)


def test_files_are_found_in_sub_folders_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    levels = {"b/1.JPG": 30, "c.bmp": 40, "a.tif": 10, "a.webp": 20}
    for name, level in levels.items():
        Image.new("L", (8, 8), level).save(tmp_path / name)
    Image.new("L", (8, 8), 99).save(tmp_path / ".hidden.png")
    (tmp_path / "labels.txt").write_text("no image")
    data = load_calibration(tmp_path, [spec("N", 1, 8, 8)], images=RAW)
    got = data.batch(range(len(data)))["x"][:, 0, 0, 0]
    np.testing.assert_allclose(got, [10, 20, 30, 40], atol=2)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    plain = images_module.decode

    def decode(path: Path, recipe: Any) -> np.ndarray:
        names.append(path.name)
        return plain(path, recipe)

    monkeypatch.setattr(images_module, "decode", decode)
    return names


def test_images_are_decoded_on_demand_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = counted(monkeypatch)
    data = load_calibration(folder_of(tmp_path, 40), [spec("N", 3, 8, 8)], images=RAW)
    assert len(names) == images_module.PROBES
    for part in data.split():  # parts share the cache
        list(part.batches(4))
    assert len(data.batch(range(40))["x"]) == 40
    assert sorted(names) == [f"{index:03}.png" for index in range(40)]
    names.clear()
    data.digest()
    assert names == []


def test_the_cache_is_bounded_and_drops_the_least_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = counted(monkeypatch)
    one = 3 * 8 * 8 * 4
    data = load_calibration(
        folder_of(tmp_path, 12), [spec("N", 3, 8, 8)], images=RAW, cache_bytes=2 * one + one // 2
    )
    names.clear()
    for index in (0, 1, 0, 2, 0, 1):  # 2 pushes 1 out, for 0 was used since
        data.batch([index])
    assert names == ["000.png", "001.png", "002.png", "001.png"]
    store: Any = data._store
    assert store._held == 2 * one == sum(sample.nbytes for sample in store._cache.values())


def test_a_cache_without_room_still_works(tmp_path: Path) -> None:
    data = load_calibration(folder_of(tmp_path, 3), [spec("N", 3, 8, 8)], images=RAW, cache_bytes=0)
    np.testing.assert_array_equal(data.batch([2])["x"][0].transpose(1, 2, 0), noise(2, 8, 8, 3))


def test_a_batch_is_a_copy(tmp_path: Path) -> None:
    data = load_calibration(folder_of(tmp_path, 2), [spec("N", 3, 8, 8)], images=RAW)
    data.batch([0])["x"][:] = -1
    assert data.batch([0])["x"].min() >= 0


def test_the_limit_is_a_seeded_subset(tmp_path: Path) -> None:
    def load(seed: int) -> Calibration:
        return load_calibration(tmp_path, [spec("N", 3, 8, 8)], images=RAW, limit=5, seed=seed)

    folder_of(tmp_path, 30)
    assert len(load(1)) == 5
    assert load(1).digest() == load(1).digest() != load(2).digest()


def test_the_digest_knows_the_options_and_the_files(tmp_path: Path) -> None:
    def digest(options: ImageOptions) -> str:
        return load_calibration(tmp_path, [spec("N", 3, 8, 8)], images=options).digest()

    folder_of(tmp_path, 3)
    before = digest(RAW)
    assert before != digest(ImageOptions(preset="unit"))
    Image.fromarray(noise(77, 8, 8, 3)).save(tmp_path / "001.png")
    assert before != digest(RAW)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (folder_of(tmp_path, 2) / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png cannot be read \(its content is of no known"):
        load_calibration(tmp_path, [spec("N", 3, 8, 8)], images=RAW)


def test_a_truncated_image_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    folder_of(tmp_path, 20, side=64)
    bad = tmp_path / "001.png"
    bad.write_bytes(bad.read_bytes()[:3000])
    data = load_calibration(tmp_path, [spec("N", 3, 64, 64)], images=RAW)
    with pytest.raises(DataError, match=r"001\.png cannot be read"):
        data.batch(range(20))


def test_an_image_smaller_than_the_crop_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is 8×8 after the resize, smaller than the crop 8×12"):
        only(tmp_path, spec("N", 3, 8, 12), ImageOptions(preset="raw", resize=8))


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif holds floats"):
        only(tmp_path, spec("N", 1, 8, 8), RAW)


def test_images_need_a_model_with_one_input(tmp_path: Path) -> None:
    second = InputSpec("y", ("N", 2), np.dtype("float32"))
    with pytest.raises(DataError, match=r"the model has 2 \('x', 'y'\)"):
        load_calibration(folder_of(tmp_path, 2), [spec("N", 3, 8, 8), second])


def test_constant_images_are_warned_about(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "z.png")
    data = load_calibration(folder_of(tmp_path, 2), [spec("N", 3, 8, 8)], images=RAW)
    assert any("1 of 3 calibration samples looked at are constant" in note for note in data.warnings)


def test_a_guessed_preset_is_warned_about(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    guessed = load_calibration(tmp_path, [spec("N", 3, 8, 8)])
    named = load_calibration(tmp_path, [spec("N", 3, 8, 8)], images=ImageOptions(preset="imagenet"))
    assert any("normalized as 'imagenet'" in note for note in guessed.warnings)
    assert not any("normalized" in note for note in named.warnings)
    assert guessed.digest() == named.digest()


def test_without_pillow_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="pip install pillow"):
        load_calibration(tmp_path, [spec("N", 3, 8, 8)], images=RAW)
