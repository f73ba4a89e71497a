"""What the classification of nodes asks of a network: the line, and who reads what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

__all__ = ["Line"]


class Line(Protocol):
    """The part of ``Network`` that exists before its activations are found."""

    @property
    def order(self) -> tuple[ir.Node, ...]:
        """All nodes of the main graph."""
        ...

    @property
    def convs(self) -> Mapping[int, object]:
        """Convolutions that could be read, by position."""
        ...

    @property
    def refused(self) -> Mapping[int, str]:
        """The others, with the reason."""
        ...

    @property
    def in_cells(self) -> Mapping[int, object]:
        """The activation that each of its nodes belongs to, by position."""
        ...

    @property
    def computed(self) -> Sequence[list[ir.Value]]:
        """What each node reads that is not constant, by position."""
        ...

    def users(self, value: ir.Value) -> list[int]:
        """Positions that read ``value``; len(order) for anyone outside."""
        ...
