"""The presets, and what the options settle to for an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import PRESETS, ImageOptions, InputSpec
from onnx_layermerge.data._options import recipe_for
from onnx_layermerge.errors import DataError, UsageError


def spec(*shape: int | str | None, dtype: str = "float32") -> InputSpec:
    return InputSpec("x", shape, np.dtype(dtype))


NCHW = spec("N", 3, 224, 224)
GRAY = spec("N", 1, 28, 28)


@pytest.mark.parametrize(
    ("preset", "low", "high", "resize", "color"),
    [  # low and high: what pixels 0 and 255 become in the first channel
        ("imagenet", -0.485 / 0.229, (1 - 0.485) / 0.229, 256 / 224, "rgb"),
        ("inception", -1.0, 1.0, 256 / 224, "rgb"),
        ("lite", -127 / 128, 1.0, 1.0, "rgb"),
        ("unit", 0.0, 1.0, 1.0, "rgb"),
        ("raw", 0.0, 255.0, 1.0, "rgb"),
        ("caffe", -103.939, 255 - 103.939, 256 / 224, "bgr"),
        ("yolo", 0.0, 1.0, None, "rgb"),
    ],
)
def test_preset(preset: str, low: float, high: float, resize: float | None, color: str) -> None:
    recipe = recipe_for(ImageOptions(preset=preset), NCHW)
    for pixel, wanted in ((0, low), (255, high)):
        got = (pixel * recipe.scale - float(recipe.mean[0])) / float(recipe.std[0])
        assert got == pytest.approx(wanted, abs=2e-5)
    assert (recipe.resize, recipe.color, recipe.size, recipe.notes) == (resize, color, (224, 224), ())


def test_every_preset_is_tested() -> None:
    mark = test_preset.pytestmark[0]  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(PRESETS)


def test_explicit_values_override_the_preset() -> None:
    recipe = recipe_for(ImageOptions(preset="caffe", mean=[1, 2, 3], color="rgb", resize=(300, 280)), NCHW)
    assert recipe.mean.tolist() == [1, 2, 3]
    assert (recipe.color, recipe.resize, recipe.scale) == ("rgb", (300, 280), 1.0)


@pytest.mark.parametrize(
    ("target", "name"),
    [(NCHW, "imagenet"), (GRAY, "unit"), (spec("N", 224, 224, 3, dtype="uint8"), "raw")],
)
def test_without_a_preset_one_is_chosen_and_said(target: InputSpec, name: str) -> None:
    recipe = recipe_for(ImageOptions(), target)
    assert recipe.scale == PRESETS[name].scale
    assert f"as '{name}'" in recipe.notes[0]


def test_with_a_scale_no_preset_is_guessed() -> None:
    recipe = recipe_for(ImageOptions(scale=1.0, mean=127, std=128), NCHW)
    assert recipe.notes == ()
    assert (recipe.mean == 127).all()
    assert (recipe.std == 128).all()


@pytest.mark.parametrize(
    ("target", "options", "layout", "size"),
    [
        (spec(1, 3, 32, 40), {}, "nchw", (32, 40)),
        (spec(1, 32, 40, 3), {}, "nhwc", (32, 40)),
        (spec("N", 3, "H", "W"), {"crop": 64}, "nchw", (64, 64)),
        (spec("N", 3, None, None), {"resize": (64, 48)}, "nchw", (64, 48)),
        (spec(None, None, None, None), {"layout": "nhwc", "crop": (64, 48)}, "nhwc", (64, 48)),
        (spec("N", 3, 32, "W"), {"crop": (32, 48)}, "nchw", (32, 48)),
    ],
)
def test_layout_and_size(
    target: InputSpec, options: dict[str, Any], layout: str, size: tuple[int, int]
) -> None:
    recipe = recipe_for(ImageOptions(preset="unit", **options), target)
    assert (recipe.layout, recipe.size, recipe.channels) == (layout, size, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "resnet"},
        {"layout": "chw"},
        {"color": "yuv"},
        {"preset": "unit", "std": 0},
        {"preset": "unit", "std": (0.2, -0.2, 0.2)},
        {"preset": "unit", "mean": float("nan")},
        {"preset": "unit", "mean": (1, 2)},
        {"preset": "unit", "mean": "grey"},
        {"mean": 0.5},
        {"std": (0.2, 0.2, 0.2)},
        {"scale": 0},
        {"scale": float("inf")},
        {"resize": 0},
        {"resize": 2.5},
        {"resize": (1, 2, 3)},
        {"crop": "big"},
        {"crop": -1},
        {"resize": 200, "crop": 224},
        {"resize": (200, 300), "crop": (224, 224)},
    ],
)
def test_impossible_options_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        ImageOptions(**options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (spec("N", 10), {}, "need four axes"),
        (spec("N", None, None, None), {}, "say the layout"),
        (spec("N", 3, 32, 3), {}, "say the layout"),
        (spec("N", 4, 32, 32), {"layout": "nchw"}, "has 4 channels"),
        (GRAY, {"color": "rgb"}, "choose the color gray"),
        (GRAY, {"preset": "imagenet"}, "mean has 3 values"),
        (spec("N", 3, 32, 32, dtype="uint8"), {"preset": "unit"}, "use the preset raw"),
        (spec("N", 3, 32, 32, dtype="int8"), {"preset": "raw"}, "a .npz instead"),
        (spec("N", 3, "H", "W"), {}, "say the crop"),
        (spec("N", 3, "H", "W"), {"resize": 256}, "say the crop"),
        (NCHW, {"crop": 192}, "would be 192×192"),
        (NCHW, {"resize": 200}, "resize 200×200 is smaller"),
        (NCHW, {"resize": (224, 200)}, "resize 224×200 is smaller"),
    ],
)
def test_options_that_do_not_fit_the_input(target: InputSpec, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        recipe_for(ImageOptions(**options), target)
