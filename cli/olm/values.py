"""What the words of options are: numbers, sizes and shapes; a usage error where they are none."""

# ParamType became generic in Click 8.4 and cannot be subscripted before.
# mypy: disable-error-code=type-arg

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import click

__all__ = ["Dims", "Finite", "Numbers", "Shapes", "Shard", "Size"]

Dims = tuple[int | tuple[int, int, int], ...]
"""Sizes along the axes of an input; three are the least, the usual and the largest one."""


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
            self.fail(f"{value!r} is not a number; give one such as 0.5.", param, ctx)
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


class Shard(click.ParamType):
    """``2/8``: the second of eight parts."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The part's number and how many there are, or a usage error."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", str(value))
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            self.fail(f"{value!r} is no part; give its number and how many there are, 1/4 to 4/4.", param, ctx)
        return number, count


class Shapes(click.ParamType):
    """``x:1x3x224x224``, several joined by commas: pairs of an input's name (which may hold colons) and its shape.

    With ``ranges`` a size may be ``1..8`` or ``1..4..8``: the least, the usual (else the largest) and the largest one.
    """

    name = "NAME:DIMS"

    def __init__(self, *, ranges: bool = False) -> None:
        self.ranges = ranges

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[tuple[str, Dims]]:
        """Pairs in the order given, or a usage error."""
        pairs = []
        for part in str(value).split(","):
            name, _, dims = part.strip().rpartition(":")
            sizes = [_size(word) for word in dims.lower().split("x")]
            found = tuple(size for size in sizes if size is not None)
            if not name or len(found) < len(sizes):
                self.fail(f"{part!r} is no shape; give an input's name and sizes, such as x:1x3x224x224.", param, ctx)
            if not self.ranges and any(isinstance(size, tuple) for size in found):
                self.fail(f"{part!r} holds a range, but nothing is built here; give one size a dimension.", param, ctx)
            pairs.append((name, found))
        return pairs


def _size(word: str) -> int | tuple[int, int, int] | None:
    """One size or a range of them; None is neither."""
    if re.fullmatch(r"[0-9]{1,18}(\.\.[0-9]{1,18}){0,2}", word) is None:
        return None
    sizes = [int(each) for each in word.split("..")]
    if sizes[0] < 1 or sizes != sorted(sizes):
        return None
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[-2] if len(sizes) == 3 else sizes[-1], sizes[-1])
