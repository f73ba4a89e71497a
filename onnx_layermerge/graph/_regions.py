"""Which stretches of the line have one way in and one way out.

A region [start, stop) reads one computed value, its *entry*, and leaves one, its *exit*:

1. every other computed value that its nodes read is produced inside;
2. nothing it produces, but the exit, is read outside or is an output of the graph.

So whatever maps entry to exit can stand in for the region, and nothing else notices.  A skip connection is held
whole or not at all: cutting one would break 1 (its source lies outside) or 2 (its source is read outside).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_layermerge.graph._network import Chain, Layer, Network, Refusal

__all__ = ["ACTIVATIONS", "Region", "activation_after", "barriers", "chains", "regions"]

# Elementwise functions of one computed value: they keep shape and grid, so a block may swallow them.
ACTIVATIONS = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
        *("Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu", "Abs", "Neg", "Exp", "Erf", "Sqrt", "Swish"),
    )
)
# f(f(x)) = f(x): after one of these the same one again changes nothing.
_IDEMPOTENT = frozenset({"Relu", "Clip", "Abs"})

_REASONS = {
    "GlobalAveragePool": "pools over the whole image",
    "ReduceMean": "averages over the image",
    "AveragePool": "pooling is not a convolution of ours yet",
    "MaxPool": "a maximum is not linear",
    "Concat": "joins channels of several branches",
    "Mul": "multiplies two computed values",
    "Gemm": "fully connected",
    "MatMul": "matrix product",
    "Flatten": "leaves the image grid",
    "Reshape": "leaves the image grid",
    "Transpose": "changes the layout",
    "ConvTranspose": "transposed convolution",
    "Resize": "resamples the image",
    "BatchNormalization": "does not follow a convolution it could fold into",
    "Softmax": "mixes channels",
    "Add": "adds a constant or values of different shapes",
}


@dataclass(frozen=True)
class Region:
    """``order[start:stop]`` maps the value ``entry`` to the value ``exit`` and touches nothing else.

    ``convs`` are the positions of its convolutions.
    """

    start: int
    stop: int
    entry: str
    exit: str
    convs: tuple[int, ...]


def _computed(node: ir.Node) -> list[ir.Value]:
    """Inputs that are not constants (graph inputs included)."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def barrier_reason(network: Network, position: int) -> str | None:
    """Why no block may contain this node; None when one may."""
    node = network.order[position]
    if node.domain not in ("", "ai.onnx"):
        return f"custom domain {node.domain}"
    if position in network.refused:
        return network.refused[position]
    computed = _computed(node)
    if node.op_type == "Conv" or (node.op_type in ACTIVATIONS and len(computed) == 1):
        return None
    if node.op_type == "Add" and len(computed) == 2 and len(node.inputs) == 2:
        shapes = [value.shape for value in computed]
        if shapes[0] is None or shapes[1] is None or len(shapes[0]) == len(shapes[1]) >= 3:
            return None
    return _REASONS.get(node.op_type, f"no rule for {node.op_type}")


def barriers(network: Network) -> list[Refusal]:
    """Every node that no block may contain, with its reason."""
    found = []
    for position, node in enumerate(network.order):
        reason = barrier_reason(network, position)
        if reason is not None:
            found.append(Refusal(str(node.name), node.op_type, reason))
    return found


def regions(network: Network, *, max_convs: int = 12) -> Iterator[Region]:
    """All regions with 1…``max_convs`` convolutions that end in a convolution or a skip-add.

    They start at a convolution, or at an activation that stands at the mouth of a branch (pre-activation blocks).
    """
    blocked = [barrier_reason(network, position) is not None for position in range(len(network.order))]
    for start, node in enumerate(network.order):
        if blocked[start]:
            continue
        computed = _computed(node)
        if len(computed) != 1:
            continue
        forks = len(network.users(computed[0])) > 1
        if node.op_type == "Conv" or (forks and node.op_type in ACTIVATIONS):
            yield from _grow(network, start, computed[0], blocked, max_convs)


def _grow(network: Network, start: int, entry: ir.Value, blocked: list[bool], max_convs: int) -> Iterator[Region]:
    """Take node after node into the region; it is one whenever a single produced value is still wanted outside."""
    inside: set[ir.Value] = {entry}
    last_use: dict[ir.Value, int] = {}
    convs: list[int] = []
    for position in range(start, len(network.order)):
        node = network.order[position]
        if blocked[position] or any(value not in inside for value in _computed(node)):
            return
        if position in network.convs:
            if len(convs) == max_convs:
                return
            convs.append(position)
        value = node.outputs[0]
        inside.add(value)
        users = network.users(value)
        last_use[value] = users[-1] if users else position
        last_use = {value: last for value, last in last_use.items() if last > position}
        if convs and list(last_use) == [value] and node.op_type in ("Conv", "Add"):
            yield Region(start, position + 1, str(entry.name), str(value.name), tuple(convs))


def activation_after(network: Network, region: Region) -> ir.Node | None:
    """The activation that alone reads the region's exit, if there is one."""
    value = network.values[region.exit]
    users = network.users(value)
    if len(users) != 1 or users[0] >= len(network.order):
        return None
    node = network.order[users[0]]
    return node if node.op_type in ACTIVATIONS else None


def repeats_activation(network: Network, region: Region) -> bool:
    """Whether the entry already comes from an idempotent activation equal to the one after the exit."""
    after = activation_after(network, region)
    before = network.values[region.entry].producer()
    if after is None or before is None or after.op_type != before.op_type or after.op_type not in _IDEMPOTENT:
        return False
    if len(_computed(after)) != 1 or len(_computed(before)) != 1:
        return False  # bounds computed at run time are not known to agree
    return _parameters(after) == _parameters(before)


def _parameters(node: ir.Node) -> list[object]:
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

    for position, node in enumerate(network.order):
        if barrier_reason(network, position) is not None:
            continue
        for value in _computed(node):
            producer = value.producer()
            if producer is not None and barrier_reason(network, network.position[producer]) is None:
                parent[root(position)] = root(network.position[producer])
    groups: dict[int, list[Layer]] = {}
    for position in sorted(network.convs):
        groups.setdefault(root(position), []).append(_layer(network, position))
    return tuple(Chain(tuple(layers)) for _, layers in sorted(groups.items(), key=lambda item: item[1][0].position))


def _layer(network: Network, position: int) -> Layer:
    node, conv = network.order[position], network.convs[position]
    activation, skip_add = "", False
    value = node.outputs[0]
    while len(users := network.users(value)) == 1 and users[0] < len(network.order):
        after = network.order[users[0]]
        if after.op_type == "Add" and not skip_add and barrier_reason(network, users[0]) is None:
            skip_add = True
        elif after.op_type in ACTIVATIONS:
            activation = after.op_type
            break
        else:
            break
        value = after.outputs[0]
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
