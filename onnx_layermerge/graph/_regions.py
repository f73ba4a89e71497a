"""Which stretches of the line have one way in and one way out.

A region [start, stop) reads one computed value, its *entry*, and leaves one, its *exit*:

1. every other computed value that its nodes read is produced inside;
2. nothing it produces, but the exit, is read outside or is an output of the graph.

So whatever maps entry to exit can stand in for the region, and nothing else notices.  A skip connection is held
whole or not at all: cutting one would break 1 (its source lies outside) or 2 (its source is read outside).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_layermerge.graph._cells import Cell
from onnx_layermerge.graph._network import Chain, Layer, Network, Refusal
from onnx_layermerge.graph._operators import alone_reason, closed_reason, computed_inputs, is_vector

__all__ = ["Region", "activation_after", "barriers", "cell_after", "chains", "regions", "repeats_activation"]

# Convolutions and what is one in other words.
_LINEAR = frozenset({"Conv", "AveragePool"})

# f(f(x)) = f(x): after one of these the same one again changes nothing.
_IDEMPOTENT = frozenset({"Relu", "Clip", "Abs"})
# Keeps the search linear in the nodes of a network with few convolutions.
_MOST_NODES = 400


@dataclass(frozen=True)
class Region:
    """``order[start:stop]`` maps the value ``entry`` to the value ``exit`` and touches nothing else.

    ``convs`` are the positions of its convolutions; ``sides`` the values without a grid that it reads from elsewhere
    (a time embedding, sizes): what stands in for the region does without them.
    """

    start: int
    stop: int
    entry: str
    exit: str
    convs: tuple[int, ...]
    sides: tuple[str, ...] = ()


def barriers(network: Network) -> list[Refusal]:
    """Every node that separates chains, with the reason why it lies in no block unless a block holds it whole."""
    found = []
    for position, node in enumerate(network.order):
        reason = alone_reason(network, position)
        if reason is not None:
            found.append(Refusal(str(node.name), node.op_type, reason))
    return found


def regions(network: Network, *, max_convs: int = 12) -> Sequence[Region]:
    """All regions with 1…``max_convs`` convolutions that end in a convolution, a pooling average, or a join.

    They start at a convolution, at a pooling average, or at any node that stands at the mouth of a branch
    (pre-activation blocks, squeeze-excite).  No activation of several nodes is cut.
    """
    key = (regions, max_convs)
    if key not in network.remembered:
        network.remembered[key] = tuple(_regions(network, max_convs))
    found: tuple[Region, ...] = network.remembered[key]
    return found


def _regions(network: Network, max_convs: int) -> Iterator[Region]:
    closed = [closed_reason(network, position) is not None for position in range(len(network.order))]
    for start, node in enumerate(network.order):
        if closed[start] or _inside_cell(network, start):
            continue
        computed = network.computed[start]
        if len(computed) != 1:
            continue
        forks = len(network.users(computed[0])) > 1 or len(node.outputs) > 1
        if forks or node.op_type in _LINEAR:
            yield from _grow(network, start, computed[0], closed, max_convs)


def _inside_cell(network: Network, position: int) -> bool:
    cell = network.in_cells.get(position)
    return cell is not None and cell.start < position


def _grow(network: Network, start: int, entry: ir.Value, closed: list[bool], max_convs: int) -> Iterator[Region]:
    """Take node after node into the region; it is one whenever a single produced value is still wanted outside."""
    inside: set[ir.Value] = {entry}
    sides: list[str] = []
    last_use: dict[ir.Value, int] = {}
    convs: list[int] = []
    for position in range(start, min(start + _MOST_NODES, len(network.order))):
        node = network.order[position]
        if closed[position]:
            return
        computed = network.computed[position]
        for value in computed:
            if value not in inside:
                if not is_vector(value) or is_vector(entry):
                    return
                inside.add(value)
                sides.append(str(value.name))
        if position in network.convs:
            if len(convs) == max_convs:
                return
            convs.append(position)
        for value in node.outputs:
            users = network.users(value)
            inside.add(value)
            if users:
                last_use[value] = users[-1]
        value = node.outputs[0]
        if not network.users(value):
            last_use[value] = len(network.order)
        last_use = {value: last for value, last in last_use.items() if last > position}
        ends = node.op_type in _LINEAR or (len(computed) > 1 and position not in network.in_cells)
        if convs and ends and list(last_use) == [value]:
            yield Region(start, position + 1, str(entry.name), str(value.name), tuple(convs), tuple(sides))


def activation_after(network: Network, region: Region) -> Cell | None:
    """The activation that alone reads the region's exit, if there is one."""
    return cell_after(network, network.values[region.exit])


def cell_after(network: Network, value: ir.Value) -> Cell | None:
    """The activation that alone reads ``value``, if there is one."""
    users = network.users(value)
    cell = network.cells.get(users[0]) if users else None
    return cell if cell is not None and users[-1] < cell.stop and cell.entry == value.name else None


def repeats_activation(network: Network, region: Region) -> bool:
    """Whether the entry already comes from an idempotent activation equal to the one after the exit."""
    cell = activation_after(network, region)
    before = network.values[region.entry].producer()
    if cell is None or before is None or cell.stop - cell.start > 1:
        return False
    after = network.order[cell.start]
    if after.op_type != before.op_type or after.op_type not in _IDEMPOTENT or len(computed_inputs(before)) != 1:
        return False  # bounds computed at run time are not known to agree
    return _parameters(network, after) == _parameters(network, before)


def _parameters(network: Network, node: ir.Node) -> list[object]:
    """Constants and attributes; asked of one node for every region that begins or ends at it."""
    key = (_parameters, node)
    if key not in network.remembered:
        network.remembered[key] = _read_parameters(node)
    found: list[object] = network.remembered[key]
    return found


def _read_parameters(node: ir.Node) -> list[object]:
    constants: list[object] = [
        value.const_value.numpy().tolist() if value is not None and value.const_value is not None else None
        for value in (*node.inputs[1:], None, None)[:2]
    ]
    return constants + sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())


def chains(network: Network) -> tuple[Chain, ...]:
    """Layers grouped by connection: two convolutions share a chain when no barrier lies between them."""
    parent = list(range(len(network.order)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    alone = [alone_reason(network, position) is not None for position in range(len(network.order))]
    for position, node_alone in enumerate(alone):
        if node_alone:
            continue
        for value in network.computed[position]:
            producer = value.producer()
            if producer is not None and not alone[network.position[producer]]:
                parent[root(position)] = root(network.position[producer])
    groups: dict[int, list[Layer]] = {}
    for position in sorted(network.convs):
        groups.setdefault(root(position), []).append(_layer(network, position, alone))
    return tuple(Chain(tuple(layers)) for _, layers in sorted(groups.items(), key=lambda item: item[1][0].position))


def _layer(network: Network, position: int, alone: Sequence[bool]) -> Layer:
    node, conv = network.order[position], network.convs[position]
    activation, skip_add = "", False
    value = node.outputs[0]
    while len(users := network.users(value)) and users[0] < len(network.order):
        cell = cell_after(network, value)
        if cell is not None:
            activation = cell.label
            break
        after = network.order[users[0]]
        if len(users) > 1 or after.op_type != "Add" or skip_add or alone[users[0]]:
            break
        skip_add, value = True, after.outputs[0]
    return Layer(
        node=str(node.name),
        position=position,
        kernel=conv.kernel,
        stride=conv.stride,
        groups=conv.groups,
        channels_in=conv.channels_in,
        channels_out=conv.channels_out,
        activation=activation,
        skip_add=skip_add,
    )
