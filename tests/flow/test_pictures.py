"""Without calibration data: pictures where they fit and their range is known, else drops alone; and words for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from onnx_layermerge import DataError, ImageOptions, Report, compress, plan
from onnx_layermerge.data import InputSpec, Pictures, built_in_pictures
from onnx_layermerge.data._pictures import COLOURED, GREY
from onnx_layermerge.flow import _data
from onnx_layermerge.flow._data import NO_DATA, NOT_INSTALLED
from tests import zoo
from tests.flow import jobs
from tests.machine import Machine

SIDE = 16
RANGE = ImageOptions(preset="unit")
Make = Callable[[], tuple[zoo.Net, str]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Smooth fields that stand in for the photographs, which are not installed everywhere."""
    folder, files = tmp_path_factory.mktemp("pictures"), []
    for number, name in enumerate((*COLOURED, *GREY)):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        path = (folder / name).with_suffix(".png")
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(path)
        files.append(path.rename(folder / name))
    return Pictures(tuple(files))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, pictures: Pictures) -> None:
    monkeypatch.setattr(_data, "built_in_pictures", lambda: pictures)


def image_net(channels: int = 3, side: int = SIDE, *, classes: float = 1.0) -> tuple[zoo.Net, str]:
    net = zoo.Net(seed=11)
    stem = net.relu(net.conv(net.input("image", ("batch", channels, side, side)), "stem", 6), "r")
    output = jobs.blocks(net, stem)
    net.weights["scores.w"] *= np.float32(classes)
    return net, output


def run(folder: Path, make: Make = image_net, *, name: str = "out.onnx", **options: Any) -> Report:
    _, path = jobs.save(make, folder)
    given = {"speedup": 1.2, "samples": 48, "rivals": 2, "profile": folder / "table.json"} | options
    return compress(path, folder / name, **given)


def test_pictures_are_fitted_on_and_the_loss_on_held_out_ones_is_told(machine: Machine, tmp_path: Path) -> None:
    report = run(tmp_path, images=RANGE, speedup=1.4)
    assert NO_DATA not in report.warnings and report.validation is not None
    assert {block.recipe for block in report.blocks} - {"drop"}
    first, last = report.warnings[0], next(each for each in report.warnings if each.startswith("expected loss"))
    assert "48 cuts" in first and "'unit' (as you said)" in first and "--calib" in first
    assert "12 cuts" in last and f"{report.validation.agreement:.1%}" in last and f"{report.validation.kl:.3g}" in last


def test_the_same_pictures_give_the_same_bytes(machine: Machine, tmp_path: Path) -> None:
    for name in ("out.onnx", "again.onnx"):
        run(tmp_path, images=RANGE, name=name, method="drop")
    first, second = (tmp_path / name for name in ("out.onnx", "again.onnx"))
    assert first.read_bytes() == second.read_bytes()
    notes = {prop.key: prop.value for prop in onnx.load(first).metadata_props}
    digest = next(value for key, value in notes.items() if key.endswith("calibration.sha256"))
    assert len(digest) == 2 * 64 + 1


def test_a_range_that_the_model_does_not_tell_is_not_guessed(machine: Machine, tmp_path: Path) -> None:
    report = run(tmp_path)
    assert report.warnings[0] == NO_DATA and report.validation is None
    assert "'image'" in report.warnings[1] and "--preset" in report.warnings[1]
    assert {block.recipe for block in report.blocks} == {"drop"}


def test_a_range_that_the_model_tells_is_taken(machine: Machine, tmp_path: Path) -> None:
    def make() -> tuple[zoo.Net, str]:
        net = zoo.Net(seed=11)
        mean = net.constant("mean", np.array(127.5, np.float32))
        centred = net.node("Sub", net.input("image", ("batch", 3, SIDE, SIDE)), mean, name="centred")
        scaled = net.node("Div", centred, mean, name="scaled")
        return net, jobs.blocks(net, net.relu(net.conv(scaled, "stem", 6), "r"))

    report = run(tmp_path, make)
    assert "'raw'" in report.warnings[0] and report.validation is not None


def test_plan_takes_pictures_too(machine: Machine, tmp_path: Path) -> None:
    _, path = jobs.save(image_net, tmp_path)
    options = {"samples": 32, "profile": tmp_path / "table.json"}
    fitted, dropped = plan(path, images=RANGE, **options), plan(path, **options)
    assert fitted.basis == "kl" and "public-domain" in fitted.warnings[0]
    assert dropped.basis == "drop-only" and dropped.warnings[0] == NO_DATA
    assert max(point.speedup for point in fitted.drop_only) == max(point.speedup for point in dropped.points)


def test_what_to_install_is_said_where_pictures_would_do(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_data, "built_in_pictures", lambda: None)
    assert run(tmp_path, images=RANGE).warnings[:2] == (NO_DATA, NOT_INSTALLED)
    assert "onnx-layermerge[pictures]" in NOT_INSTALLED


@pytest.mark.parametrize(
    "make", [lambda: image_net(4), lambda: image_net(3, 12), jobs.two_inputs], ids=["4 channels", "small", "two"]
)
def test_a_model_that_takes_no_picture_hears_of_none(make: Make, machine: Machine, tmp_path: Path) -> None:
    report = run(tmp_path, make)
    assert NO_DATA in report.warnings and not any("picture" in warning for warning in report.warnings)


def test_options_that_change_nothing_are_told(machine: Machine, tmp_path: Path) -> None:
    report = run(tmp_path, lambda: image_net(4), images=RANGE)
    assert report.warnings[0] == NO_DATA and "no effect" in report.warnings[1]


def test_a_model_to_which_all_pictures_are_one_is_told(machine: Machine, tmp_path: Path) -> None:
    def make() -> tuple[zoo.Net, str]:
        net, scores = image_net(classes=0.01)
        return net, net.add(scores, net.constant("bias", np.array([0, 9, 0, 0, 0], np.float32)), "sure")

    report = run(tmp_path, make, images=RANGE, method="drop")
    assert any("the same top-1 to 100%" in warning for warning in report.warnings)


def test_an_output_that_is_the_same_for_all_pictures_is_told(machine: Machine, tmp_path: Path) -> None:
    net, scores = image_net()
    dead = net.node("Mul", scores, net.constant("none", np.zeros(5, np.float32)), name="dead")
    path = net.save(tmp_path / "in.onnx", scores, dead)
    options = {"speedup": 1.2, "samples": 48, "rivals": 2, "profile": tmp_path / "table.json", "method": "drop"}
    report = compress(path, tmp_path / "out.onnx", images=RANGE, **options)
    assert any("the same values of output 'dead'" in warning for warning in report.warnings)
    # With nothing else pictures are no use, and it is said why.
    path = net.save(tmp_path / "in.onnx", dead)
    report = compress(path, tmp_path / "out.onnx", images=RANGE, **options)
    assert report.warnings[0] == NO_DATA and "the same values of output 'dead'" in report.warnings[1]


def test_the_real_pictures_do(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if built_in_pictures() is None:
        pytest.skip("scikit-image is not installed")
    monkeypatch.setattr(_data, "built_in_pictures", built_in_pictures)
    report = run(tmp_path, images=RANGE, method="drop")
    assert report.validation is not None and np.isfinite(report.validation.kl)


# --- samples that are there and no good ----------------------------------------------------------------------------


def folder_of(images: list[np.ndarray], folder: Path) -> Path:
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    return folder / "images"


def test_one_image_is_too_few(machine: Machine, tmp_path: Path) -> None:
    calib = folder_of([np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)], tmp_path)
    with pytest.raises(DataError, match="only one distinct sample: give at least two"):
        run(tmp_path, calib=calib, images=RANGE)
    assert not (tmp_path / "out.onnx").exists()


def test_images_of_one_colour_are_told(machine: Machine, tmp_path: Path) -> None:
    colours = [np.full((20, 20, 3), (10 * number, 200, 30), np.uint8) for number in range(8)]
    warnings = run(tmp_path, calib=folder_of(colours, tmp_path), images=RANGE, method="drop").warnings
    assert any("8 of 8" in warning and "constant" in warning for warning in warnings)


def test_a_range_off_by_255_is_told_and_a_right_one_is_not(machine: Machine, tmp_path: Path) -> None:
    net, _ = image_net()
    samples = np.abs(jobs.samples(net)["image"])
    fine = run(tmp_path, calib={"image": samples}, method="drop").warnings
    wrong = run(tmp_path, calib={"image": samples * 255}, method="drop").warnings
    assert any("times as large" in warning for warning in wrong)
    assert not any("times as large" in warning for warning in fine)


@pytest.mark.parametrize("command", ["compress", "plan"])
def test_outputs_that_are_no_numbers_are_an_error(command: str, machine: Machine, tmp_path: Path) -> None:
    def make() -> tuple[zoo.Net, str]:
        net, scores = image_net()
        return net, net.node("Log", scores, name="logs")

    net, path = jobs.save(make, tmp_path)
    with pytest.raises(DataError, match=r"output 'logs' is NaN or infinite for \d+ of \d+ samples .* check the range"):
        if command == "plan":
            plan(path, calib=jobs.samples(net), profile=tmp_path / "table.json")
        else:
            run(tmp_path, make, calib=jobs.samples(net))
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_that_has_no_answer_to_noise_asks_for_samples(machine: Machine, tmp_path: Path) -> None:
    def make() -> tuple[zoo.Net, str]:
        net, scores = image_net(4)
        return net, net.node("Log", scores, name="logs")

    with pytest.raises(DataError, match=r"Without --calib .* noise .*'logs' is NaN or infinite .*: give samples of"):
        run(tmp_path, make)
    assert not (tmp_path / "out.onnx").exists()


def test_pictures_to_which_the_model_has_no_answer_are_not_taken(
    machine: Machine, tmp_path: Path, pictures: Pictures
) -> None:
    """One that is bright, and is none of the held-out."""
    spec = InputSpec("image", ("batch", 3, SIDE, SIDE), np.dtype(np.float32))
    parts = [part.batch(range(len(part)))["image"].mean((1, 2, 3)) for part in pictures.samples(spec, RANGE, 48, 0)]
    brightest = [float(part.max()) for part in parts]
    assert brightest[0] > brightest[1]

    def make() -> tuple[zoo.Net, str]:
        net, scores = image_net()
        mean = net.node("ReduceMean", "image", name="mean", axes=[1, 2, 3], keepdims=0)
        left = net.node("Sub", net.constant("bright", np.float32(sum(brightest) / 2)), mean, name="left")
        # Below 0.1 as well, where the noise is and no picture.
        over = net.node("Sub", mean, net.constant("dim", np.float32(0.1)), name="over")
        root = net.node("Sqrt", net.node("Mul", left, over, name="both"), name="root")
        column = net.node("Reshape", root, net.constant("shape", np.array([-1, 1])), name="column")
        return net, net.add(scores, column, "lit")

    # What is left is noise, whose mean is 0.
    with pytest.raises(DataError, match="Without --calib .* noise .* 'lit'"):
        run(tmp_path, make, images=RANGE)
