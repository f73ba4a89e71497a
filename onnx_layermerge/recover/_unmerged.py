"""A compressed model before its merges, to be trained, and what the training becomes behind them.

The merged convolution is replaced by the convolutions that it is made of (``candidates/_unmerged.py``); all else stays
what it is in the compressed model: drops are gone, fitted blocks are as they were fitted.  Behind the training the same
algebra that made the merge makes it again, of the new weights.

With norms, a BatchNormalization stands behind convolutions as it did before it was folded: with the mean μ and variance
σ² that the samples have there, scale √(σ² + ε) and shift μ, so that nothing changes but what a step of training moves.
It is folded into the convolution again before the merge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import Candidate, separate
from onnx_layermerge.fit import series_of
from onnx_layermerge.graph import Network, Session, extract, network_of, sweep
from onnx_layermerge.merge import AffineConv

__all__ = ["Norm", "Unmerged", "merged_weights", "moved_merges", "normed_weights", "unmerged", "with_norms"]

MERGE = "merge"
EPSILON = 2.0**-17  # every float type holds it exactly
# Of a kernel's largest weight: sums in double precision differ by less in another order, as another machine makes them.
ROUNDING = 1e-12
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm that was put behind a convolution; names are those of initializers, statistics float64 [C]."""

    weight: str
    bias: str
    scale: str
    shift: str
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class Unmerged:
    """``model`` computes what the merged one does where its merges are those of the network's weights.  ``blocks`` are
    the keys of what was taken apart, ``sources`` names for each initializer of these blocks the network's own."""

    model: ir.Model
    blocks: tuple[str, ...]
    sources: Mapping[str, str]
    norms: tuple[Norm, ...] = ()


def unmerged(network: Network, plan: Sequence[Candidate], merged: ir.Model) -> Unmerged:
    """A copy of ``merged``, where the blocks of ``plan`` stand for parts of ``network``, with its merges taken apart.

    The parts have the network's weights, whatever the merged convolutions have: see ``moved_merges``.

    Raises:
        ValueError: the end of a merge is no convolution of that merge's shape in ``merged``.
    """
    model = merged.clone()
    sources: dict[str, str] = {}
    blocks = [candidate for candidate in plan if candidate.recipe == MERGE]
    for number, candidate in enumerate(blocks):
        node = merged_node(model, candidate)
        target, source = node.outputs[0], node.inputs[0]
        assert source is not None  # a convolution reads something
        made = separate(network, candidate, model.graph, source, f"unmerged/{number}")
        sources.update(made.sources)
        _stand_in(model.graph, node, made.nodes, target, made.value)
    sweep(model)
    return Unmerged(model, tuple(candidate.key for candidate in blocks), sources)


def merged_node(model: ir.Model, candidate: Candidate) -> ir.Node:
    """The convolution that stands for a merge in ``model``.

    Raises:
        ValueError: it is not there.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    value = values.get(candidate.region.exit)
    node = None if value is None else value.producer()
    weight = None if node is None or node.op_type != "Conv" else ir.convenience.get_const_tensor(node.inputs[1])  # type: ignore[arg-type]
    if node is None or weight is None or tuple(weight.shape) != candidate.stage.weight_shape:
        raise ValueError(f"{candidate.key} is not where it was")
    return node


def moved_merges(network: Network, plan: Sequence[Candidate], merged: ir.Model) -> tuple[str, ...]:
    """Keys of the merges whose convolution in ``merged`` has other weights than the network's make, by more than their
    rounding: a training moved them, and no parts are known that would give them.

    Raises:
        ValueError: as of ``merged_node``.
    """
    found = []
    for candidate in plan:
        if candidate.recipe != MERGE:
            continue
        node = merged_node(merged, candidate)
        ((conv, _),) = series_of(network, candidate, None)
        for given, made in zip(node.inputs[1:], (conv.weight, conv.bias), strict=False):
            held = None if given is None else ir.convenience.get_const_tensor(given)
            if held is not None and made is not None and not _rounded(held.numpy(), made):
                found.append(candidate.key)
                break
    return tuple(found)


def _rounded(held: np.ndarray, made: np.ndarray) -> bool:
    """Whether ``held`` is ``made`` in its own type, to the last place."""
    exact, kept = made.astype(np.float64).ravel(), held.astype(np.float64).ravel()
    if exact.shape != kept.shape:
        return False
    allowed = np.spacing(np.abs(held).ravel()).astype(np.float64) + ROUNDING * np.abs(exact).max(initial=0.0)
    return bool((np.abs(exact - kept) <= allowed).all())


def _stand_in(graph: ir.Graph, behind: ir.Node, nodes: Sequence[ir.Node], target: ir.Value, value: ir.Value) -> None:
    """Let ``value``, made by ``nodes``, take over uses and name of ``target``; ``nodes`` are placed ``behind`` one."""
    graph.insert_after(behind, nodes)
    value.shape, value.type = target.shape, target.type
    name = target.name
    for user, place in tuple(target.uses()):
        if user not in nodes:
            user.replace_input_with(place, value)
    if target.is_graph_output():
        for place, output in enumerate(graph.outputs):
            if output is target:
                graph.outputs[place] = value
    target.name, value.name = f"{name}.before", name


def merged_weights(
    network: Network, plan: Sequence[Candidate], merged: ir.Model, found: Unmerged, trained: Mapping[str, np.ndarray]
) -> Arrays:
    """New values for initializers of ``merged``, by name, from those that a training gave those of ``found.model``.

    Merges are made of the trained weights in float64, and rounded once where they are put into the model.
    """
    after = folded(found, trained)
    own = {found.sources[name]: array for name, array in after.items() if name in found.sources}
    weights = {name: array for name, array in after.items() if name in merged.graph.initializers}
    if not own:
        return weights
    model = network.model.clone()
    for name, array in own.items():
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(np.ascontiguousarray(array.astype(np.float64)), name=name)
    learned = replace(network_of(model), source=network.source, digest=network.digest)
    for candidate in plan:
        if candidate.recipe != MERGE or not _reads(network, candidate, own):
            continue
        ((conv, _),) = series_of(learned, candidate, None)
        node = merged_node(merged, candidate)
        for given, values in zip(node.inputs[1:], (conv.weight, conv.bias), strict=False):
            if given is not None and values is not None:
                weights[str(given.name)] = values
    return weights


def _reads(network: Network, candidate: Candidate, names: Collection[str]) -> bool:
    """Whether one of the constants in the block goes by one of the names."""
    nodes = network.order[candidate.region.start : candidate.region.stop]
    return any(value is not None and value.name in names for node in nodes for value in node.inputs)


# --- norms ------------------------------------------------------------------------------------------------------


def normed_weights(model: ir.Model) -> set[str]:
    """Names of the weights of convolutions that only a BatchNormalization reads, in a file as it is."""
    found = set()
    for node in model.graph:
        if node.op_type != "Conv" or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        readers = [use.node.op_type for use in node.outputs[0].uses()]
        if readers == ["BatchNormalization"] and not node.outputs[0].is_graph_output():
            found.add(str(node.inputs[1].name))
    return found


def with_norms(
    found: Unmerged, batches: Iterable[Mapping[str, np.ndarray]], wanted: Collection[str] | None = None
) -> Unmerged:
    """``found`` with a norm behind each convolution of the network whose weight's name there is ``wanted`` (None: all).

    Left out are convolutions without a bias, which a folded norm leaves behind, and those that share their weights.
    ``batches`` are inputs, of which mean and variance are taken.
    """
    model = found.model.clone()
    chosen = [node for node in model.graph if _takes_norm(node, found.sources, wanted)]
    if not chosen:
        return found
    sums = _moments(model, [str(node.outputs[0].name) for node in chosen], batches)
    norms = []
    for node in chosen:
        target = node.outputs[0]
        mean, variance = sums[str(target.name)]
        weight, bias = node.inputs[1], node.inputs[2]
        assert weight is not None and bias is not None and weight.const_value is not None
        dtype = weight.const_value.dtype.numpy()
        given = {"scale": np.sqrt(variance + EPSILON), "shift": mean, "mean": mean, "variance": variance}
        narrow = {part: array.astype(dtype) for part, array in given.items()}
        if not all(np.isfinite(array).all() for array in narrow.values()):
            continue  # a variance beyond float16
        values = {part: _constant(model.graph, f"{target.name}.norm.{part}", a) for part, a in narrow.items()}
        norm = ir.node("BatchNormalization", [target, *values.values()], attributes={"epsilon": EPSILON},
                       name=f"{node.name}.norm")  # fmt: skip
        _stand_in(model.graph, node, [norm], target, norm.outputs[0])
        names = [str(value.name) for value in (weight, bias, values["scale"], values["shift"])]
        rounded = [narrow[part].astype(np.float64) for part in ("mean", "variance")]
        norms.append(Norm(names[0], names[1], names[2], names[3], rounded[0], rounded[1]))
    return replace(found, model=model, norms=tuple(norms))


def _takes_norm(node: ir.Node, sources: Mapping[str, str], wanted: Collection[str] | None) -> bool:
    if node.op_type != "Conv" or len(node.inputs) < 3:
        return False
    weight, bias = node.inputs[1], node.inputs[2]
    if weight is None or bias is None or weight.const_value is None or bias.const_value is None:
        return False
    if len(weight.uses()) > 1 or len(bias.uses()) > 1:
        return False
    return wanted is None or sources.get(str(weight.name), str(weight.name)) in wanted


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    while name in graph.initializers:
        name += "'"
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def _moments(
    model: ir.Model, names: Sequence[str], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance by channel, float64 [C], of each value over all samples and places."""
    session = Session(extract(model, [str(value.name) for value in model.graph.inputs], list(names)))
    counts = dict.fromkeys(names, 0)
    first: Arrays = {}
    second: Arrays = {}
    for feeds in batches:
        for name, values in session.run(feeds).items():
            exact = values.astype(np.float64)
            axes = (0, *range(2, exact.ndim))
            counts[name] += exact.size // exact.shape[1]
            first[name] = first.get(name, 0.0) + exact.sum(axes)
            second[name] = second.get(name, 0.0) + np.square(exact).sum(axes)
    means = {name: first[name] / counts[name] for name in names}
    return {name: (means[name], np.maximum(second[name] / counts[name] - means[name] ** 2, 0.0)) for name in names}


def folded(found: Unmerged, trained: Mapping[str, np.ndarray]) -> Arrays:
    """The trained weights with the norms in the convolutions again, where one of the two moved; float64 there."""
    weights = dict(trained)
    for norm in found.norms:
        names = (norm.weight, norm.bias, norm.scale, norm.shift)
        if not any(name in trained for name in names):
            continue
        held = found.model.graph.initializers
        given = [
            (trained[name] if name in trained else held[name].const_value.numpy()).astype(np.float64)  # type: ignore[union-attr]
            for name in names
        ]
        conv = AffineConv.from_conv(given[0], given[1])
        whole = conv.fold_batchnorm(given[2], given[3], norm.mean, norm.variance, EPSILON)
        weights[norm.weight], weights[norm.bias] = whole.weight.copy(), whole.bias.copy()
        for name in names[2:]:
            weights.pop(name, None)
    return weights
