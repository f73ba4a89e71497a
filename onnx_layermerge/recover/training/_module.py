"""An ONNX graph as a torch module, node by node, over the file's own initializers.

The graph is taken as the file has it, not folded: so every weight that is learned is an initializer of the file, under
its name, and goes back to where it came from.  What only reads constants is computed once, when the module is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass
from torch import nn

from onnx_layermerge.errors import ModelError

# The table is filled by importing these.
from onnx_layermerge.recover.training import (  # noqa: F401
    _convolutions,
    _norms,
    _pointwise,
    _pooling,
    _resizing,
    _shaping,
)
from onnx_layermerge.recover.training._call import OPERATORS, Call, Operator, Tensor
from onnx_layermerge.recover.training._learned import learned
from onnx_layermerge.recover.training._types import tensor_of

__all__ = ["OnnxModule", "parameter_name", "unsupported"]

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True, eq=False)
class _Step:
    """A node: what it is computed by, from which values, to which."""

    call: Call
    operator: Operator
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]


def parameter_name(initializer: str) -> str:
    """The name of an initializer as torch allows one: without dots, never empty, none of a module's own attributes.

    Different initializers have different names: dots are written as %2E, and percent signs as %25.
    """
    return "onnx:" + initializer.replace("%", "%25").replace(".", "%2E")


def unsupported(model: ir.Model) -> list[ir.Node]:
    """Nodes whose operator has no function here, in order."""
    return [node for node in _inlined(model).graph if not _known(node)]


class OnnxModule(nn.Module):
    """``model`` as a function from a dict of inputs to a dict of outputs.

    Its parameters are the initializers that a training may move (``_learned.py``), ``weights`` by their names in the
    file; other floats are buffers.  Whole numbers, and floats that are only read as single numbers (bounds, scales),
    stay on the CPU, wherever the module is, so that none has to be fetched from a GPU.

    Raises:
        ModelError: an operator is not known here; it is named with its node.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        model = _inlined(model)
        self.input_names = tuple(str(value.name) for value in model.graph.inputs if not value.is_initializer())
        self.output_names = tuple(str(value.name) for value in model.graph.outputs)
        self._learned: list[str] = []
        self._floats: set[str] = set()
        self._whole: dict[str, Tensor] = {}
        self._plans: dict[tuple[str, ...], tuple[tuple[_Step, tuple[str, ...]], ...]] = {}
        self._read_as_numbers = _read_as_numbers(model)
        opsets = dict(model.graph.opset_imports)
        taught = set(learned(model))
        for name, value in model.graph.initializers.items():
            if value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
                continue
            tensor = tensor_of(value.const_value)
            if name in taught:
                self._learned.append(str(name))
                self.register_parameter(parameter_name(str(name)), nn.Parameter(tensor))
            else:
                self._keep(str(name), tensor)
        self._steps = []
        for node in model.graph:
            step = _step(node, opsets.get(node.domain, opsets.get("", 0)))
            if all(name is None or name in self._whole or name in self._floats for name in step.inputs):
                self._precompute(step)
            else:
                self._steps.append(step)

    def _keep(self, name: str, tensor: Tensor) -> None:
        if tensor.is_floating_point() and name not in self._read_as_numbers:
            self._floats.add(name)
            self.register_buffer(parameter_name(name), tensor, persistent=False)
        else:
            self._whole[name] = tensor

    def _constant(self, name: str) -> Tensor:
        found = self._whole.get(name)
        return self.get_buffer(parameter_name(name)) if found is None else found

    def _precompute(self, step: _Step) -> None:
        values = {name: self._constant(name) for name in step.inputs if name is not None}
        with torch.no_grad():
            _run(step, values)
        for name in step.outputs:
            if name in values:
                self._keep(name, values[name].clone())

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What a training may move, by the names of the file's initializers."""
        return {name: self.get_parameter(parameter_name(name)) for name in self._learned}

    @property
    def value_names(self) -> tuple[str, ...]:
        """All values that are computed from the inputs, in order: what ``taps`` may name."""
        return tuple(name for step in self._steps for name in step.outputs)

    def forward(self, inputs: Mapping[str, Tensor], taps: Sequence[str] = ()) -> dict[str, Tensor]:
        """The outputs for ``inputs`` (others among them are ignored), and the values that ``taps`` name.

        Floats come out in float32, those of a model in double precision in float64.
        """
        wanted = tuple(dict.fromkeys((*self.output_names, *taps)))
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = self._plan(wanted)
        values: dict[str, Tensor] = {**self.weights, **self._whole}
        values.update({name: self.get_buffer(parameter_name(name)) for name in self._floats})
        for name in self.input_names:
            given = inputs[name]
            if given.dtype in (torch.float16, torch.bfloat16):
                given = given.to(torch.float32)
            # What follows keeps the order in memory; convolutions on a CPU are faster, and their gradients more so,
            # with the channels of a place side by side.
            last = given.ndim == 4 and given.device.type == "cpu" and given.is_floating_point()
            values[name] = given.contiguous(memory_format=torch.channels_last) if last else given
        for step, done in plan:
            _run(step, values)
            for unread in done:
                del values[unread]
        return {name: values[name] for name in wanted}

    def largest(self, inputs: Mapping[str, Tensor]) -> int:
        """Bytes of the largest value that is computed from ``inputs``."""
        with torch.no_grad():
            return max((value.nbytes for value in self(inputs, self.value_names).values()), default=0)

    def _plan(self, wanted: tuple[str, ...]) -> tuple[tuple[_Step, tuple[str, ...]], ...]:
        """The steps that ``wanted`` needs, each with the values that nothing behind it reads."""
        needed, kept = set(wanted), []
        made = {name for step in self._steps for name in step.outputs}
        for name in wanted:
            if name not in made and name not in self.input_names and not self._is_constant(name):
                raise KeyError(name)
        for step in reversed(self._steps):
            if not needed.isdisjoint(step.outputs):
                kept.append(step)
                needed.update(name for name in step.inputs if name is not None)
        kept.reverse()
        last: dict[str, int] = {}
        for number, step in enumerate(kept):
            last.update(dict.fromkeys(made.intersection((*step.outputs, *step.inputs)), number))
        ends: list[list[str]] = [[] for _ in kept]
        for unread, number in last.items():
            if unread not in wanted:
                ends[number].append(unread)
        return tuple((step, tuple(names)) for step, names in zip(kept, ends, strict=True))

    def _is_constant(self, name: str) -> bool:
        return name in self._whole or name in self._floats or name in self._learned


def _inlined(model: ir.Model) -> ir.Model:
    """The model without local functions; a copy where it has some."""
    if not model.functions:
        return model
    copy = model.clone()
    InlinePass()(copy)
    return copy


def _read_as_numbers(model: ir.Model) -> set[str]:
    """Values that stand nowhere but where an operator reads sizes or bounds."""
    there: dict[str, bool] = {}
    for node in model.graph:
        sizes: Collection[int] = OPERATORS[node.op_type].sizes if _known(node) else ()
        for place, value in enumerate(node.inputs):
            if value is not None:
                there[str(value.name)] = there.get(str(value.name), True) and place in sizes
    return {name for name, only in there.items() if only} - {str(value.name) for value in model.graph.outputs}


def _known(node: ir.Node) -> bool:
    bodies = any(attribute.type in _GRAPHS for attribute in node.attributes.values())
    return node.domain in ("", "ai.onnx") and node.op_type in OPERATORS and not bodies


def _step(node: ir.Node, opset: int) -> _Step:
    if not _known(node):
        domain = "" if node.domain in ("", "ai.onnx") else f" of {node.domain}"
        raise ModelError(
            f"node '{node.name}' has the operator {node.op_type}{domain}, which fine-tuning does not know; export the "
            "model without it, or leave out fine-tuning."
        )
    outputs = [str(value.name or "") for value in node.outputs]
    while len(outputs) > 1 and (not outputs[-1] or not _used(node.outputs[len(outputs) - 1])):
        outputs.pop()
    attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
    call = Call(node.op_type, str(node.name or outputs[0]), opset, attributes, len(outputs))
    inputs: list[str | None] = [None if value is None else str(value.name) for value in node.inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    return _Step(call, OPERATORS[node.op_type], tuple(inputs), tuple(outputs))


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _plain(attribute: ir.Attr) -> object:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return None if value.dtype == ir.DataType.STRING else tensor_of(value)
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _run(step: _Step, values: dict[str, Tensor]) -> None:
    """Compute a step's outputs into ``values``."""
    given = [None if name is None else values[name] for name in step.inputs]
    device = next((x.device for x in given if x is not None and x.device.type != "cpu"), None)
    for place, x in enumerate(given):
        if x is None:
            continue
        if place in step.operator.sizes:
            given[place] = x.cpu() if x.device.type != "cpu" else x
        elif device is not None and x.device != device:
            given[place] = x.to(device)
    found = step.operator.apply(step.call, *given)
    outputs = found if isinstance(found, tuple) else (found,)
    for name, value in zip(step.outputs, outputs, strict=False):
        if name:
            values[name] = value
