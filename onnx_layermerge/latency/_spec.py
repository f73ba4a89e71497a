"""What is timed: a block that can build models of itself, R1 and R2 copies long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from onnx_layermerge.latency._statistics import Value

__all__ = ["R1", "R2", "BlockSpec", "Store"]

R1, R2 = 1, 3


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """One block to be timed."""

    key: str
    """Hash of structure, shapes and dtypes: equal keys mean equal cost on the same device."""
    label: str
    """Name for people."""
    build: Callable[[int], bytes]
    """ONNX bytes of a model with the given number of copies, in series, with distinct weights."""
    shapes: Callable[[int], Mapping[str, tuple[int, ...]]]
    """Input name -> shape, for that number of copies."""
    ceiling_s: float = math.inf
    """A cost above this need not be known: a `Bound` is enough."""


Store = Callable[[BlockSpec, Value], None]
