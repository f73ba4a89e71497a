"""Each option once, and the types of their values; a command subscribes to groups of them.

What a value means, and whether it makes sense for a model, is the package's to say.
"""

# ParamType became generic in Click 8.4 and cannot be subscripted before.
# mypy: disable-error-code=type-arg

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar, cast

import click

__all__ = [
    "METHODS",
    "MODEL",
    "PRECISIONS",
    "REFITS",
    "Finite",
    "data_options",
    "device_options",
    "model_options",
    "output_options",
    "profile_option",
    "require_builds_option",
    "seed_option",
    "shapes_option",
]

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

# Existence is left to the package: its sentence says more, and its exit code is the documented one.
MODEL = click.Path()

METHODS = ("olm", "drop", "layermerge")
REFITS = ("off", "auto")
PRESETS = ("imagenet", "inception", "lite", "unit", "raw", "caffe", "yolo")
LAYOUTS = ("auto", "nchw", "nhwc")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
COLORS = ("auto", "rgb", "bgr", "gray")
_IMAGES = ("preset", "mean", "std", "scale", "layout", "color", "resize", "crop")


class Finite(click.ParamType):
    """A number from ``low`` to ``high``, both included, that is neither NaN nor infinite."""

    name = "number"

    def __init__(self, low: float, high: float = math.inf) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A float, or a usage error."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not (math.isfinite(number) and self.low <= number <= self.high):
            upper = "" if self.high == math.inf else f" and at most {self.high:g}"
            self.fail(f"{value!r} is out of range; give a number of at least {self.low:g}{upper}.", param, ctx)
        return number


class Numbers(click.ParamType):
    """``0.485,0.456,0.406``, ``127.5`` or ``1/255``: a tuple of numbers, or one number with ``single``."""

    name = "numbers"

    def __init__(self, *, single: bool = False) -> None:
        self.single = single
        self.name = "number" if single else "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A float, or a tuple of them, or a usage error."""
        try:
            numbers = tuple(float(Fraction(part.strip())) for part in str(value).split(","))
        except (ValueError, ZeroDivisionError, OverflowError):
            self.fail(f"{value!r} is no number; give for example 127.5, 1/255 or 0.485,0.456,0.406.", param, ctx)
        if not self.single:
            return numbers
        if len(numbers) != 1:
            self.fail(f"{value!r} holds {len(numbers)} numbers; give one.", param, ctx)
        return numbers[0]


class Size(click.ParamType):
    """``256`` or ``HEIGHTxWIDTH``, in pixels."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int or a pair of ints, or a usage error."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is no size; give pixels as 256 or as HEIGHTxWIDTH, 240x320.", param, ctx)
        return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


class Shapes(click.ParamType):
    """``x:1x3x224x224``, several joined by commas: pairs of an input's name (which may hold colons) and its shape."""

    name = "NAME:DIMS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Pairs in the order given, or a usage error."""
        pairs = []
        for part in str(value).split(","):
            name, _, dims = part.strip().rpartition(":")
            sizes = dims.lower().split("x")
            if not name or not all(size.isascii() and size.isdigit() and int(size) > 0 for size in sizes):
                self.fail(f"{part!r} is no shape; give an input's name and sizes, such as x:1x3x224x224.", param, ctx)
            pairs.append((name, tuple(int(size) for size in sizes)))
        return pairs


def _merge_shapes(
    ctx: click.Context, option: click.Parameter, given: Sequence[list[tuple[str, tuple[int, ...]]]]
) -> dict[str, tuple[int, ...]]:
    merged: dict[str, tuple[int, ...]] = {}
    for name, shape in (pair for pairs in given for pair in pairs):
        if name in merged:
            raise click.BadParameter(f"input {name!r} is given twice; give each input once.", ctx, option)
        merged[name] = shape
    return merged


def _all(*options: Callable[[Any], Any]) -> Decorator[F]:
    """Several options as one decorator, in the order of the help page."""

    def apply(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def shapes_option(command: F) -> F:
    """--shapes."""
    return click.option(
        "--shapes", type=Shapes(), multiple=True, callback=_merge_shapes,
        help="Shape of an input with dynamic dimensions, such as x:1x3x224x224; repeatable.",
    )(command)  # fmt: skip


def model_options(command: F) -> F:
    """--shapes, --batch."""
    return _all(
        shapes_option,
        click.option(
            "--batch", type=click.IntRange(1), default=1, show_default=True, metavar="N",
            help="Size of a dynamic first dimension.",
        ),
    )(command)  # fmt: skip


def device_options(command: F) -> F:
    """--device, --backend, --precision."""
    return _all(
        click.option("--device", default="cpu", show_default=True, help="Where the model is to run fast."),
        click.option(
            "--backend", default="onnxruntime", show_default=True,
            help="What runs it there; `olm doctor` lists what works here.",
        ),
        click.option(
            "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
            help="Types that the backend computes in; models are cast when they are built for it, files keep theirs.",
        ),
    )(command)  # fmt: skip


def profile_option(command: F) -> F:
    """--profile."""
    return click.option(
        "--profile", "-p", type=click.Path(), metavar="FILE",
        help="Latency table to read and add to, .sqlite or .json.  [default: the user's cache]",
    )(command)  # fmt: skip


def require_builds_option(command: F) -> F:
    """--require-builds."""
    return click.option(
        "--require-builds", type=click.Path(), metavar="REPORT.json",
        help="Use only blocks that were built according to this report of `olm profile --build-only --json`.",
    )(command)  # fmt: skip


def seed_option(command: F) -> F:
    """--seed."""
    return click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
        help="Seed of every random choice; the same seed and profile give the same bytes.",
    )(command)  # fmt: skip


def output_options(command: F) -> F:
    """--json, --quiet."""
    return _all(
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else."),
        click.option("--quiet", "-q", is_flag=True, help="Show no progress; warnings and errors stay."),
    )(command)


def data_options(*, samples: int) -> Callable[[F], F]:
    """--calib, --samples and how images are read; the command gets ``calib``, ``samples`` and ``images``."""

    def apply(command: F) -> F:
        @functools.wraps(command)
        def call(**words: Any) -> Any:
            given = {name: words.pop(name) for name in _IMAGES}
            images = {name: value for name, value in given.items() if value is not None}
            if images and words["calib"] is None:
                raise click.UsageError(f"--{next(iter(images))} says how images are read; give them with --calib.")
            words["images"] = _image_options(images)
            return command(**words)

        return cast(F, _data_words(samples)(call))

    return apply


def _image_options(given: dict[str, Any]) -> Any:
    if not given:
        return None
    from onnx_layermerge import ImageOptions

    return ImageOptions(**given)


def _data_words(samples: int) -> Decorator[Any]:
    return _all(
        click.option(
            "--calib", metavar="SOURCE",
            help="Samples without labels: a .npz with an array per input, a folder of .npy or of images, or "
            "script.py:function.",
        ),
        click.option(
            "--samples", type=click.IntRange(2), default=samples, show_default=True, metavar="N",
            help="Use at most this many samples of a source.",
        ),
        click.option("--preset", type=click.Choice(PRESETS), help="Images: a usual way to normalize them."),
        click.option("--mean", type=Numbers(), help="Images: subtracted after scaling, one number or one per channel."),
        click.option("--std", type=Numbers(), help="Images: divided by after the mean, one number or one per channel."),
        click.option("--scale", type=Numbers(single=True), help="Images: factor on pixels 0…255, such as 1/255."),
        click.option("--layout", type=click.Choice(LAYOUTS), help="Images: where the input has its channels."),
        click.option("--color", type=click.Choice(COLORS), help="Images: order of the channels."),
        click.option("--resize", type=Size(), help="Images: short side, or HEIGHTxWIDTH."),
        click.option("--crop", type=Size(), help="Images: centre crop after the resize, SIZE or HEIGHTxWIDTH."),
    )  # fmt: skip
