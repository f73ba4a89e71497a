"""How an image file becomes a model's input: the user's options, the presets behind them, and the recipe.

Pixels x are 0…255 in the model's channel order; per channel c

    y_c = (x_c · scale − mean_c) / std_c

| preset    | scale | mean                    | std               | order | geometry                       |
| --------- | ----- | ----------------------- | ----------------- | ----- | ------------------------------ |
| imagenet  | 1/255 | .485 .456 .406          | .229 .224 .225    | RGB   | short side 256/224 · size, crop |
| inception | 1     | 127.5                   | 127.5             | RGB   | short side 256/224 · size, crop |
| lite      | 1     | 127                     | 128               | RGB   | short side = size, crop        |
| unit      | 1/255 | 0                       | 1                 | RGB   | short side = size, crop        |
| raw       | 1     | 0                       | 1                 | RGB   | short side = size, crop        |
| caffe     | 1     | 103.939 116.779 123.68  | 1                 | BGR   | short side 256/224 · size, crop |
| yolo      | 1/255 | 0                       | 1                 | RGB   | letterbox on grey 114          |

*size* is the height and width of the model's input (of the crop, where the input leaves them open). For an
input that is not square, "short side" means: the smallest scale at which the image covers the input times
the factor. Letterbox means: the largest scale at which the whole image fits, centred on grey. An explicit
resize or crop replaces the preset's geometry, an explicit scale, mean, std or color the preset's value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_layermerge.data._specs import Dim, InputSpec, is_float, shape_text
from onnx_layermerge.errors import DataError, UsageError

Size: TypeAlias = "int | tuple[int, int]"
LAYOUTS = ("auto", "nchw", "nhwc")
COLORS = ("auto", "rgb", "bgr", "gray")


@dataclass(frozen=True)
class Preset:
    """One row of the table in the module's docstring; ``cover`` is None for letterbox."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: Literal["rgb", "bgr"] = "rgb"
    cover: float | None = 1.0


PRESETS: dict[str, Preset] = {
    "imagenet": Preset(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), cover=256 / 224),
    "inception": Preset(1.0, (127.5,), (127.5,), cover=256 / 224),
    "lite": Preset(1.0, (127.0,), (128.0,)),
    "unit": Preset(1 / 255, (0.0,), (1.0,)),
    "raw": Preset(1.0, (0.0,), (1.0,)),
    "caffe": Preset(1.0, (103.939, 116.779, 123.68), (1.0,), color="bgr", cover=256 / 224),
    "yolo": Preset(1 / 255, (0.0,), (1.0,), cover=None),
}


@dataclass(frozen=True)
class ImageOptions:
    """What the user says about images; None and "auto" leave it to the preset and the model's input.

    mean, std: one number or one per channel (1 or 3), in the model's channel order; on the scaled pixels.
    scale: factor on the pixels 0…255.
    layout: "nchw", "nhwc", or "auto": where the input has 1 or 3 channels.
    color: "rgb", "bgr", "gray" or "auto": the preset's order, gray for an input of one channel. Gray into
        an input of three channels is repeated.
    resize: int for the short side, (height, width) for a plain stretch, in pixels.
    crop: centre crop after the resize, int for a square or (height, width), in pixels; None is the size of
        the model's input.
    preset: a row of the table; None is imagenet for a float input of three channels, unit for one channel,
        raw for an integer input (a warning says so), and no preset at all once scale is given.

    Raises UsageError for values that make no sense, whatever the model.
    """

    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    scale: float | None = None
    layout: str = "auto"
    color: str = "auto"
    resize: Size | None = None
    crop: Size | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("layout", self.layout, LAYOUTS),
            ("color", self.color, COLORS),
            ("preset", self.preset, (None, *PRESETS)),
        ):
            if value not in allowed:
                names = ", ".join(name for name in allowed if name is not None)
                raise UsageError(f"The {option} '{value}' is unknown: choose one of {names}.")
        for field in ("mean", "std"):
            object.__setattr__(self, field, _per_channel(field, getattr(self, field)))
        for field in ("resize", "crop"):
            object.__setattr__(self, field, _size(field, getattr(self, field)))
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise UsageError(f"The scale {self.scale} is impossible: give a positive number such as 1/255.")
        if self.preset is None and self.scale is None and (self.mean is not None or self.std is not None):
            raise UsageError(
                "A mean or std without a preset is ambiguous: say the scale of the pixels too "
                "(1 for 0…255, 1/255 = 0.00392157 for 0…1), or name a preset."
            )
        if self.resize is not None and self.crop is not None:
            (height, width), (high, wide) = _pair(self.resize), _pair(self.crop)
            if isinstance(self.resize, int):  # the long side is longer, how much depends on the image
                impossible = min(high, wide) > self.resize
            else:
                impossible = high > height or wide > width
            if impossible:
                raise UsageError(
                    f"The crop {high}×{wide} is larger than the resized image {height}×{width}: "
                    "enlarge the resize or shrink the crop."
                )


def _per_channel(field: str, value: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers: Sequence[float] = value if isinstance(value, Sequence) else np.atleast_1d(value).tolist()
    try:
        values = tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        raise UsageError(f"The {field} {value!r} is no number: give one number or one per channel.") from None
    if len(values) not in (1, 3):
        raise UsageError(f"The {field} has {len(values)} values: give one, or three for three channels.")
    if not all(math.isfinite(number) for number in values) or (field == "std" and min(values) <= 0):
        limits = "finite and above zero" if field == "std" else "finite"
        raise UsageError(f"The {field} {', '.join(map(str, values))} is impossible: give values {limits}.")
    return values


def _size(field: str, value: Any) -> Size | None:
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    whole = all(isinstance(number, (int, np.integer)) and not isinstance(number, bool) for number in numbers)
    if not whole or len(numbers) not in (1, 2) or min(numbers) < 1:
        raise UsageError(f"The {field} {value!r} is impossible: give one or two pixel counts of at least 1.")
    return int(numbers[0]) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Recipe:
    """Everything that turns pixels into one sample of one input.

    mean, std: float32, (channels,). size: (height, width) of the result in pixels.
    resize: int: the short side; (h, w): a plain stretch; float: cover ``size`` times it; None: letterbox.
    """

    scale: float
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    color: str
    channels: int
    layout: str
    size: tuple[int, int]
    resize: int | tuple[int, int] | float | None
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()

    def key(self) -> bytes:
        """The recipe as text for digests: equal recipes and equal files give equal samples."""
        parts = (self.scale, self.mean.tolist(), self.std.tolist(), self.color, self.channels, self.layout,
                 self.size, self.resize, self.dtype.str)  # fmt: skip
        return repr(parts).encode()


def recipe_for(options: ImageOptions, spec: InputSpec) -> Recipe:
    """Settles what the options leave open by looking at the input; DataError where that cannot be done."""
    layout, (channels_dim, height, width) = _layout(options.layout, spec)
    channels = channels_dim if isinstance(channels_dim, int) else (1 if options.color == "gray" else 3)
    if channels not in (1, 3):
        raise DataError(
            f"The model's input '{spec.name}' has {channels} channels, but images give 1 or 3: "
            "give the data as a .npz instead."
        )
    preset, notes = _preset(options, spec, channels)
    color = options.color
    if color == "auto":
        color = "gray" if channels == 1 else preset.color
    if channels == 1 and color != "gray":
        raise DataError(f"The model's input '{spec.name}' has one channel: choose the color gray.")
    scale = preset.scale if options.scale is None else options.scale
    mean = _spread("mean", options.mean, preset.mean, channels, spec)
    std = _spread("std", options.std, preset.std, channels, spec)
    if not is_float(spec.dtype):
        holds = spec.dtype.kind in "iu" and np.iinfo(spec.dtype).max >= 255
        if not holds or scale != 1 or mean.any() or (std != 1).any():
            raise DataError(
                f"The model's input '{spec.name}' takes {spec.dtype}, which normalized pixels cannot be: "
                + ("use the preset raw." if holds else "give the data as a .npz instead.")
            )
    size, resize = _geometry(options, preset, spec, height, width)
    return Recipe(scale, mean, std, color, channels, layout, size, resize, spec.dtype, notes)


def _layout(layout: str, spec: InputSpec) -> tuple[str, tuple[Dim, Dim, Dim]]:
    """The layout and the input's (channels, height, width)."""
    if len(spec.shape) != 4:
        raise DataError(
            f"The model's input '{spec.name}' has shape {shape_text(spec.shape)}, but images need four axes: "
            "give the data as a .npz instead."
        )
    _, first, second, third = spec.shape
    if layout == "auto":
        fits = [name for name, dim in (("nchw", first), ("nhwc", third)) if dim in (1, 3)]
        if len(fits) != 1:
            raise DataError(
                f"The model's input '{spec.name}' has shape {shape_text(spec.shape)}, which does not tell "
                "where its channels stand: say the layout, nchw or nhwc."
            )
        layout = fits[0]
    return layout, (first, second, third) if layout == "nchw" else (third, first, second)


def _preset(options: ImageOptions, spec: InputSpec, channels: int) -> tuple[Preset, tuple[str, ...]]:
    if options.preset is not None:
        return PRESETS[options.preset], ()
    if options.scale is not None:
        return Preset(options.scale, (0.0,), (1.0,)), ()
    name = "raw" if not is_float(spec.dtype) else "unit" if channels == 1 else "imagenet"
    note = (
        f"No preset was named, so images are normalized as '{name}': if the model was trained with another "
        f"normalization, name it ({', '.join(PRESETS)}) or give mean, std and scale."
    )
    return PRESETS[name], (note,)


def _spread(
    field: str, given: Any, preset: tuple[float, ...], channels: int, spec: InputSpec
) -> npt.NDArray[np.float32]:
    values = preset if given is None else given
    if len(values) not in (1, channels):
        raise DataError(
            f"The {field} has {len(values)} values, but the model's input '{spec.name}' has one channel: "
            f"give one {field}, or the preset unit or raw."
        )
    return np.full(channels, values, dtype=np.float32)


def _geometry(
    options: ImageOptions, preset: Preset, spec: InputSpec, height: Dim, width: Dim
) -> tuple[tuple[int, int], int | tuple[int, int] | float | None]:
    """The size of the result, and the resize of ``Recipe``."""
    if options.crop is not None:
        size = _pair(options.crop)
    elif isinstance(height, int) and isinstance(width, int):
        size = (height, width)
    elif isinstance(options.resize, tuple):
        size = options.resize
    else:
        raise DataError(
            f"The model's input '{spec.name}' has shape {shape_text(spec.shape)} and leaves the image size "
            "open: say the crop, or the resize as height and width."
        )
    if any(isinstance(dim, int) and dim != got for dim, got in zip((height, width), size, strict=True)):
        raise DataError(
            f"The images would be {size[0]}×{size[1]}, but the model's input '{spec.name}' has shape "
            f"{shape_text(spec.shape)}: change the crop or leave it out."
        )
    if options.resize is None:
        return size, preset.cover if preset.cover is not None or options.crop is None else 1.0
    too_small = (
        options.resize < min(size) if isinstance(options.resize, int)
        else options.resize[0] < size[0] or options.resize[1] < size[1]
    )  # fmt: skip
    if too_small:
        high, wide = _pair(options.resize)
        raise DataError(
            f"The resize {high}×{wide} is smaller than the {size[0]}×{size[1]} that the model's input "
            f"'{spec.name}' takes: enlarge the resize."
        )
    return size, options.resize
