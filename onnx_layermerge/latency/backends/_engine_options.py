"""What a user may say of the engines that a backend builds; only the TensorRT backends build any."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from onnx_layermerge.errors import UsageError

__all__ = ["BUILD_LIMIT_S", "EngineOptions", "Range"]

BUILD_LIMIT_S = 600.0
Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Least, usual and largest shape of a dynamic input."""


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """How the backends ``tensorrt`` and ``tensorrt-rtx`` build engines.

    ``level`` and ``ranges`` change what is built, and are part of a time's key; the others are not.

    Attributes:
        level: builder optimization level, 0 to 5; None is the library's own choice.
        timing_cache: file that every build reads and replaces whole, and that need not exist; TensorRT-RTX has none.
        save_engines: folder for every engine that is built.
        build_limit_s: wall seconds after which a build in a process of its own counts as hung.
        ranges: input name → (least, usual, largest shape).  The engine of a model with such a dynamic input takes every
            shape between, is tuned for the usual one and timed with it.

    Raises:
        UsageError: one of them makes no sense.
    """

    level: int | None = None
    timing_cache: str | Path = ""
    save_engines: str | Path = ""
    build_limit_s: float = BUILD_LIMIT_S
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= 5:
            raise UsageError(f"builder optimization level {self.level} is unknown; choose from 0 to 5.")
        if not 0 < self.build_limit_s < math.inf:
            raise UsageError(f"a build limit of {self.build_limit_s:g} s makes no sense; give seconds above 0.")
        for name, shapes in self.ranges.items():
            _check_range(name, shapes)

    def usual(self) -> dict[str, tuple[int, ...]]:
        """The shape that each input with a range is timed with."""
        return {name: tuple(shapes[1]) for name, shapes in self.ranges.items()}

    def settings(self) -> dict[str, str]:
        """What of this is part of a time's key, by name."""
        found = {"level": "default" if self.level is None else str(self.level)}
        if self.ranges:  # an engine for a range of shapes is not tuned for one alone
            ranges = sorted(self.ranges.items())
            each = (f"{name}:{'..'.join('x'.join(map(str, shape)) for shape in shapes)}" for name, shapes in ranges)
            found["shapes"] = ",".join(each)
        return found

    def fits(self, settings: str) -> bool:
        """Whether a key with these settings can be of engines that are built so."""
        held = dict(part.split("=", 1) for part in settings.split() if "=" in part)
        wanted = self.settings()
        return held.get("level", "default") == wanted["level"] and held.get("shapes") == wanted.get("shapes")

    def refuse_for(self, backend: str) -> None:
        """Raises UsageError if anything was asked for that a backend without a builder has not."""
        asked = {
            "--opt-level": self.level is not None,
            "--timing-cache": bool(str(self.timing_cache)),
            "--save-engines": bool(str(self.save_engines)),
            "--build-limit": self.build_limit_s != BUILD_LIMIT_S,
            "a range in --shapes": bool(self.ranges),
        }
        for words, given in asked.items():
            if given:
                raise UsageError(
                    f"Backend {backend!r} builds no engines that {words} could say anything of; leave that out, or say "
                    "--backend tensorrt."
                )


def _check_range(name: str, shapes: Range) -> None:
    fits = len(shapes) == 3 and len({len(shape) for shape in shapes}) == 1
    if not fits or any(not 0 < low <= usual <= high for low, usual, high in zip(*shapes, strict=True)):
        words = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(f"the shapes {words} of {name!r} are no range; give the least, the usual and the largest one.")
