"""Values of options: what is taken, and what is turned down with exit code 2 on one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from olm.app import olm
from olm.options import data_options, shapes_option
from olm.values import Finite, Numbers, Shapes, Size


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Finite(0), "1.5", 1.5),
        (Finite(0, 1), "1", 1.0),
        (Numbers(), "0.5", (0.5,)),
        (Numbers(), "0.485, 0.456,0.406", (0.485, 0.456, 0.406)),
        (Numbers(single=True), "1/255", 1 / 255),
        (Size(), "256", 256),
        (Size(), "240x320", (240, 320)),
        (Shapes(), "x:1x3x224x224", [("x", (1, 3, 224, 224))]),
        (Shapes(), "in:0:1x3,y:7", [("in:0", (1, 3)), ("y", (7,))]),
        (Shapes(ranges=True), "in:0:1..4..8x3,y:7", [("in:0", ((1, 4, 8), 3)), ("y", (7,))]),
        (Shapes(ranges=True), "x:1..8x3", [("x", ((1, 8, 8), 3))]),
    ],
)
def test_taken(kind: click.ParamType, text: str, value: Any) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Finite(0), "nan"),
        (Finite(0), "inf"),
        (Finite(0), "-1"),
        (Finite(0, 1), "82"),
        (Finite(0), "fast"),
        (Numbers(), ""),
        (Numbers(), "1,,2"),
        (Numbers(), "1/0"),
        (Numbers(), "nan"),
        (Numbers(), "1e999999"),
        (Numbers(single=True), "1,2"),
        (Size(), "0.5"),
        (Size(), "-3"),
        (Size(), "1x2x3"),
        (Size(), "²"),
        (Shapes(), "1x3x224x224"),
        (Shapes(), "x:"),
        (Shapes(), "x:1x0"),
        (Shapes(), "x:1x-3"),
        (Shapes(), ":1x3"),
        (Shapes(), "x:1..8x3"),
        (Shapes(ranges=True), "x:8..1x3"),
        (Shapes(ranges=True), "x:1..9..8x3"),
        (Shapes(ranges=True), "x:0..8x3"),
        (Shapes(ranges=True), "x:1...8x3"),
        (Shapes(ranges=True), "x:1..2..4..8x3"),
        (Shapes(ranges=True), "x:..8x3"),
    ],
)
def test_turned_down(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def _invoke(command: click.Command, *words: str) -> Any:
    return command.main(list(words), standalone_mode=False)


@pytest.fixture
def echo() -> click.Command:
    @click.command()
    @data_options(samples=7)
    @shapes_option
    def command(**words: Any) -> dict[str, Any]:
        return words

    return command


def test_shapes_are_joined(echo: click.Command) -> None:
    assert _invoke(echo, "--shapes", "x:1x3", "--shapes", "y:2")["shapes"] == {"x": (1, 3), "y": (2,)}
    assert _invoke(echo)["shapes"] == {}
    with pytest.raises(click.BadParameter, match="twice"):
        _invoke(echo, "--shapes", "x:1x3", "--shapes", "x:2")


def test_image_options_reach_the_package(echo: click.Command) -> None:
    words = _invoke(
        echo, "--calib", "d", "--scale", "1/2", "--mean", "1,2,3", "--std", "4", "--layout", "nhwc", "--color", "bgr",
        "--resize", "40x50", "--crop", "32",
    )  # fmt: skip
    assert (words["calib"], words["samples"]) == ("d", 7)
    images = words["images"]
    assert (images.scale, images.mean, images.std) == (0.5, (1.0, 2.0, 3.0), (4.0,))
    assert (images.layout, images.color, images.resize, images.crop) == ("nhwc", "bgr", (40, 50), 32)
    assert set(words) == {"calib", "samples", "images", "shapes"}
    assert _invoke(echo, "--calib", "d")["images"] is None
    assert _invoke(echo, "--calib", "d", "--preset", "lite")["images"].preset == "lite"


def test_image_options_without_images_are_a_mistake(echo: click.Command) -> None:
    with pytest.raises(click.UsageError, match="--preset"):
        _invoke(echo, "--preset", "lite")


def test_they_say_the_range_of_built_in_pictures_where_a_command_takes_those() -> None:
    @click.command()
    @data_options(samples=7, pictures=True)
    def command(**words: Any) -> dict[str, Any]:
        return words

    words = _invoke(command, "--preset", "lite")
    assert words["calib"] is None and words["images"].preset == "lite"
    assert "scikit-image" in next(option.help or "" for option in command.params if option.name == "calib")


# One word for several things, each of them right where it stands.
OTHERWISE = {
    "--batch": {"finetune"},  # samples of a step of training, not the size of an open dimension
    "--device": {"finetune", "diff", "export", "prune"},  # where to train; which entries of a table
    "--failed": {"prune"},  # what to remove, not what to show
    "--precision": {"finetune"},  # of training
    "--replace": {"import"},  # unconditional, where merge decides by intervals
    "--shapes": {"inspect", "finetune"},  # one shape, since nothing is built for a range
    "--val": {"finetune"},  # chooses weights, not plans
    "--samples": {"plan", "finetune", "verify"},  # the same option with another default
    "--calib": {"verify"},  # there is no default there
    "--json": {"olm"},  # beside --version alone
}


def _options(command: click.Command, name: str) -> Iterator[tuple[str, str, click.Option]]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield from ((word, name, parameter) for word in parameter.opts if word.startswith("--"))
    if isinstance(command, click.Group):
        for each, inner in command.commands.items():
            yield from _options(inner, each)


def test_an_option_is_defined_once() -> None:
    """The same word means the same in every command: value, default and help, but for the exceptions above."""
    found: dict[str, dict[str, set[str]]] = {}
    for word, command, option in _options(olm, "olm"):
        kind = f"{option.type.to_info_dict()} {option.metavar} {option.is_flag} {option.default} {option.help}"
        if word not in ("--help", "--version") and command not in OTHERWISE.get(word, ()):
            found.setdefault(word, {}).setdefault(kind, set()).add(command)
    assert {word: kinds for word, kinds in found.items() if len(kinds) > 1} == {}
    assert len(found) > 40
