"""Each option once; a command subscribes to groups of them.  The types of their values are in ``values``.

What a value means, and whether it makes sense for a model, is the package's to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import click

from olm.values import Dims, Finite, Numbers, Shapes, Size

__all__ = [
    "METHODS",
    "MODEL",
    "PRECISIONS",
    "REFITS",
    "all_option",
    "data_options",
    "device_options",
    "effort_option",
    "engine_options",
    "method_option",
    "metric_options",
    "mismatch_option",
    "model_options",
    "norms_option",
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

METHODS = ("olm", "drop", "layermerge", "depth", "layeronly")
REFITS = ("off", "auto")
EFFORTS = ("quick", "normal", "thorough")
PRESETS = ("imagenet", "inception", "lite", "unit", "raw", "caffe", "yolo")
LAYOUTS = ("auto", "nchw", "nhwc")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
COLORS = ("auto", "rgb", "bgr", "gray")
_IMAGES = ("preset", "mean", "std", "scale", "layout", "color", "resize", "crop")


def _merge_shapes(
    ctx: click.Context, option: click.Parameter, given: Sequence[list[tuple[str, Dims]]]
) -> dict[str, Dims]:
    merged: dict[str, Dims] = {}
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
        click.option(
            "--shapes", type=Shapes(ranges=True), multiple=True, callback=_merge_shapes,
            help="Shape of an input with dynamic dimensions, such as x:1x3x224x224; repeatable. With TensorRT a size "
            "may be a range, least..usual..largest, such as x:1..4..8x3x224x224; the usual one is timed.",
        ),
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


def engine_options(command: F) -> F:
    """--opt-level, --timing-cache, --save-engines, --build-limit; with the ranges of --shapes they are ``engines``."""

    @functools.wraps(command)
    def call(**words: Any) -> Any:
        given = {name: words.pop(name) for name in ("level", "timing_cache", "save_engines", "build_limit_s")}
        words["shapes"], ranges = _split(words["shapes"])
        words["engines"] = _engines({name: value for name, value in given.items() if value is not None}, ranges)
        return command(**words)

    return _all(
        click.option(
            "--opt-level", "level", type=click.IntRange(0, 5), metavar="0..5",
            help="TensorRT: builder optimization level.  [default: the library's]",
        ),
        click.option(
            "--timing-cache", type=click.Path(), metavar="FILE",
            help="TensorRT: keep what its builder timed there, so that later builds are shorter.",
        ),
        click.option(
            "--save-engines", type=click.Path(), metavar="FOLDER", help="TensorRT: keep every engine there."
        ),
        click.option(
            "--build-limit", "build_limit_s", type=Finite(1), metavar="SECONDS",
            help="TensorRT: a block or model whose engine takes longer is one that cannot be built.  [default: 600]",
        ),
    )(cast(F, call))  # fmt: skip


def _split(shapes: Mapping[str, Dims]) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """One size a dimension for all inputs, and least, usual and largest shape of those with a range."""
    spans = {name: tuple((d, d, d) if isinstance(d, int) else d for d in dims) for name, dims in shapes.items()}
    ranged = {name for name, dims in shapes.items() if any(isinstance(d, tuple) for d in dims)}
    usual = {name: tuple(middle for _, middle, _ in dims) for name, dims in spans.items()}
    return usual, {name: tuple(zip(*dims, strict=True)) for name, dims in spans.items() if name in ranged}


def _engines(given: dict[str, Any], ranges: dict[str, Any]) -> Any:
    if not given and not ranges:
        return None
    from onnx_layermerge import EngineOptions

    return EngineOptions(**given, ranges=ranges)


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


def method_option(command: F) -> F:
    """--method."""
    return click.option(
        "--method", type=click.Choice(METHODS), default="olm", show_default=True,
        help="olm: all replacements; drop: nothing is fitted; layermerge: the paper's merges by algebra; depth: those "
        "that keep every convolution; layeronly: single convolutions left out, nothing merged.",
    )(command)  # fmt: skip


def mismatch_option(command: F) -> F:
    """--allow-mismatch."""
    return click.option(
        "--allow-mismatch", is_flag=True,
        help="Where the file of --profile knows only another device, plan with its times; results of olm compress are "
        "measured here.",
    )(command)  # fmt: skip


def all_option(command: F) -> F:
    """--all, as ``everything``."""
    return click.option("--all", "everything", is_flag=True, help="Show long lists and long names whole.")(command)


def effort_option(command: F) -> F:
    """--effort."""
    return click.option(
        "--effort", type=click.Choice(EFFORTS), default="normal", show_default=True,
        help="How many samples rank blocks and plans, and how many plans are built; quick tunes no blocks, thorough "
        "searches around the best plan.",
    )(command)  # fmt: skip


def norms_option(command: F) -> F:
    """--norms."""
    return click.option(
        "--norms", is_flag=True,
        help="Put a BatchNormalization behind each convolution that had one, in what is trained before it is merged, "
        "and fold it in at the end.",
    )(command)  # fmt: skip


def seed_option(command: F) -> F:
    """--seed."""
    return click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
        help="Seed of every random choice; the same seed and profile give the same bytes.",
    )(command)  # fmt: skip


def metric_options(command: F) -> F:
    """--metric, --decoder."""
    return _all(
        click.option(
            "--metric", metavar="NAME:FILE.npz|SCRIPT.py:FUNCTION",
            help="A measure of both models, higher is better. NAME is top1, top5 (FILE.npz has the inputs and "
            "'labels'), agreement (the inputs alone), psnr or mse (a target named after each output that counts; mse "
            "is negative); '#output' behind it picks one. Or your own: the function gets a model (a function from a "
            "dict of inputs to a dict of outputs) and returns a number. It runs in this process.",
        ),
        click.option(
            "--decoder", metavar="SCRIPT.py:FUNCTION",
            help="Detections are compared on --calib: the function gets the dict of outputs and returns (boxes [n, 4] "
            "as x1 y1 x2 y2, scores [n], classes [n]) for each image.",
        ),
    )(command)  # fmt: skip


def output_options(command: F) -> F:
    """--json, --quiet."""
    return _all(
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout, and nothing else."),
        click.option("--quiet", "-q", is_flag=True, help="Show no progress; warnings and errors stay."),
    )(command)


def data_options(*, samples: int, pictures: bool = False, option: str = "--calib") -> Callable[[F], F]:
    """--calib, --samples and how images are read; the command gets ``calib``, ``samples`` and ``images``.

    With ``pictures`` the command makes do with built-in ones, of which the options say the range.  Another ``option``
    than --calib has to be given.
    """

    def apply(command: F) -> F:
        @functools.wraps(command)
        def call(**words: Any) -> Any:
            given = {name: words.pop(name) for name in _IMAGES}
            images = {name: value for name, value in given.items() if value is not None}
            if images and option == "--calib" and words["calib"] is None and not pictures:
                raise click.UsageError(f"--{next(iter(images))} says how images are read; give them with --calib.")
            words["images"] = _image_options(images)
            return command(**words)

        return cast(F, _data_words(samples, pictures, option)(call))

    return apply


def _image_options(given: dict[str, Any]) -> Any:
    if not given:
        return None
    from onnx_layermerge import ImageOptions

    return ImageOptions(**given)


def _data_words(samples: int, pictures: bool, option: str) -> Decorator[Any]:
    without = "  Without it, photographs from scikit-image where the model takes images." if pictures else ""
    return _all(
        click.option(
            option, metavar="SOURCE", required=option != "--calib",
            help="Samples without labels: a .npz with an array per input, a folder of .npy or of images, or "
            "script.py:function." + without,
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
