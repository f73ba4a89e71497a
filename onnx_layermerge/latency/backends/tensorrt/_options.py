"""How engines are built, as one value that also fits through a pipe to another process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from onnx_layermerge.errors import UsageError
from onnx_layermerge.latency.backends._engine_options import BUILD_LIMIT_S, EngineOptions, Range
from onnx_layermerge.latency.backends.tensorrt._cast import stored_type

__all__ = ["BuildOptions"]


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    Attributes:
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``; the model must have been cast to it.
        capabilities: compute capabilities to build for, as ``8.6``; none is the GPU of this machine.
        level: builder optimization level, 0 to 5; None is the library's own choice.
        timing_cache: what an earlier build gave back, to find tactics without timing them anew; b"" begins one, None
            uses none.  A library without tactics to time (TensorRT-RTX) has no use for it.
        layout: ``channels_last`` wherever it is legal at the ends of the network, or ``linear``.
        timing_cache_file: the same, kept in a file that every build reads and replaces whole; it need not exist.
        save_engines: folder into which every engine goes, with a JSON file beside it that says what it is.
        ranges: input name → (least, usual, largest shape); the engine of a model with such a dynamic input takes every
            shape between, and is tuned for the usual one.
        limit_s: wall seconds after which a build in a process of its own counts as hung.

    Raises:
        UsageError: one of them makes no sense.
    """

    precision: str = "fp32"
    capabilities: tuple[str, ...] = ()
    level: int | None = None
    timing_cache: bytes | None = None
    layout: Literal["channels_last", "linear"] = "channels_last"
    timing_cache_file: str = ""
    save_engines: str = ""
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    limit_s: float = BUILD_LIMIT_S

    def __post_init__(self) -> None:
        stored_type(self.precision)
        if self.layout not in ("channels_last", "linear"):
            raise UsageError(f"engine layout {self.layout!r} is unknown; choose from channels_last, linear.")
        self.engines()  # which checks the rest

    def engines(self) -> EngineOptions:
        """What of it a user says of engines, for any model and device."""
        return EngineOptions(self.level, self.timing_cache_file, self.save_engines, self.limit_s, self.ranges)

    def words(self) -> str:
        """All of it but a timing cache's bytes, as JSON."""
        values = dataclasses.asdict(self)
        del values["timing_cache"]
        return json.dumps(values)

    @classmethod
    def of_words(cls, text: str) -> BuildOptions:
        """Read back what `words` gave."""
        values: dict[str, Any] = json.loads(text)
        values["capabilities"] = tuple(values["capabilities"])
        values["ranges"] = {name: tuple(map(tuple, shapes)) for name, shapes in values["ranges"].items()}
        return cls(**values)
