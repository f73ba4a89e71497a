"""The table from ONNX operators to functions on torch tensors.

A function gets its node as a :class:`Call` and the node's inputs in order, None where one is left out, and computes
what the ONNX specification says at the model's opset, not what torch's function of like name does.  Numbers that are
sizes (shapes, axes, pads) come on the CPU whatever the device is; the positions of such inputs stand in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from onnx_layermerge.errors import ModelError

__all__ = ["OPERATORS", "Call", "Operator", "Tensor", "axis_of", "floats", "ints", "operator"]

Tensor: TypeAlias = torch.Tensor
Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One node: its operator, name, the opset of its domain, its attributes, and how many outputs are wanted of it."""

    op: str
    name: str
    opset: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute's value; lists are tuples."""
        return self.attributes.get(name, default)

    def refuse(self, what: str) -> ModelError:
        """The error that names the node and what of it is not known here."""
        return ModelError(
            f"node '{self.name}' ({self.op}) cannot be trained: {what}; export the model without it, or leave out "
            "fine-tuning."
        )

    def single(self) -> None:
        """Refuse a node of which more than the first output is used."""
        if self.outputs > 1:
            raise self.refuse("more than its first output is used")


@dataclass(frozen=True)
class Operator:
    """``apply(call, *inputs)``; ``sizes`` are the positions of inputs that are read as numbers, on the CPU."""

    apply: Function
    sizes: frozenset[int]


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, sizes: Sequence[int] = ()) -> Callable[[Function], Function]:
    """Enter a function into the table under the names of ONNX operators."""

    def enter(function: Function) -> Function:
        for name in names:
            OPERATORS[name] = Operator(function, frozenset(sizes))
        return function

    return enter


def ints(values: Tensor | Sequence[int] | int | None) -> list[int] | None:
    """Whole numbers out of an attribute or an input; None where there is none."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        return [int(value) for value in values.reshape(-1).tolist()]
    return [values] if isinstance(values, int) else [int(value) for value in values]


def floats(values: Tensor | Sequence[float] | None) -> list[float] | None:
    """Numbers out of an attribute or an input; None where there is none or it is empty."""
    if values is None:
        return None
    found = values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else list(values)
    return [float(value) for value in found] or None


def axis_of(axis: int, rank: int) -> int:
    """From 0."""
    return axis + rank if axis < 0 else axis
