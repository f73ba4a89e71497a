"""Tune the insides of blocks: thinned ones, and kept ones behind the first that was replaced (``fit/_tune.py``).

A block here is a straight path of two or three convolutions with activations between them, what is read by one and
written for the next.  First to last, each sees what the model so far hands it and aims at what the original had there;
it keeps its new weights where samples that no step has seen come out better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_layermerge.candidates import Candidate, Site, site_of
from onnx_layermerge.data import Calibration, with_mirrored, with_mixtures
from onnx_layermerge.errors import DataError
from onnx_layermerge.fit import Chain, Windows, chain_of, cut_windows, tune
from onnx_layermerge.graph import Activation, Conv, Network, Region, activation_of, conv_of, extract, regions, sweep
from onnx_layermerge.recover._build import Built
from onnx_layermerge.recover._prefix import Prefix
from onnx_layermerge.recover._store import put_weights

__all__ = ["tuned"]

MOST_CONVS = 3
# Share of the samples that only judge.
HELD_OUT = 1 / 8
# Bytes of inputs that are held at once, and samples at most, with what is made of them.
BYTES, MOST_SAMPLES = 384 << 20, 1024
# Held-out errors have to fall below this share of what they were.
GAIN = 0.999

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class _Block:
    """``region`` of the original, the activations behind all but the last of its convolutions, and whether the plan
    replaced it (else its convolutions are the original's)."""

    region: Region
    site: Site
    activations: tuple[Activation, ...]
    replaced: bool


def tuned(
    network: Network,
    plan: Sequence[Candidate],
    built: Built,
    data: Calibration,
    *,
    kept: bool,
    batch: int,
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> Built:
    """A copy of ``built`` with tuned blocks; with ``kept`` also those that the plan leaves alone."""
    model = extract(built.model, [info.name for info in network.inputs], list(network.outputs))
    blocks = [*_thinned(network, plan), *(_left(network, plan) if kept else ())]
    blocks.sort(key=lambda block: block.region.start)
    samples = _samples(network, data, batch, seed)
    if samples is None or not blocks:
        return replace(built, model=model)
    prefixes = [Prefix(network, each, batch, len(each)) for each in samples]
    names = list(built.refitted)
    for number, block in enumerate(blocks):
        progress(number, len(blocks), block.region.exit)
        for prefix in prefixes:
            prefix.advance(model, block.region.start, built.aliases)
        nodes = _convolutions(model, built.aliases.get(block.region.entry, block.region.entry), block.region.exit)
        chain = _chain(network, nodes, block)
        if chain is None:
            continue
        seen, held_out = (
            _windows(chain, model, block, built, prefix, len(part))
            for prefix, part in zip(prefixes, samples, strict=True)
        )
        if seen is None or held_out is None:
            continue
        found = tune(chain, seen, held_out, seed=seed)
        if not found.after < GAIN * found.before:
            continue
        for node, (weight, bias) in zip(nodes, found.chain.weights, strict=True):
            put_weights(model.graph, node, weight, bias, "tuned")
        if not block.replaced:
            names += [str(network.order[position].name) for position in block.region.convs]
    sweep(model)
    progress(len(blocks), len(blocks), "tuned")
    return Built(model, built.fits, built.aliases, tuple(dict.fromkeys(names)))


def _samples(network: Network, data: Calibration, batch: int, seed: int) -> tuple[Calibration, Calibration] | None:
    """To step on and to judge by, with mirror images and mixtures of each; None where there are too few."""
    if len(data) < 2 / HELD_OUT:
        return None
    try:
        split = data.split(HELD_OUT, seed)
    except DataError:  # one sample, again and again
        return None
    one = sum(values[:1].nbytes for values in next(iter(data.take(batch).batches(batch))).values())
    room = min(MOST_SAMPLES, BYTES // max(one, 1))
    parts = []
    for part, share in zip(split, (1 - HELD_OUT, HELD_OUT), strict=True):
        more = with_mixtures(with_mirrored(part), seed)
        parts.append(more.take(max(2, min(len(more), round(share * room))), seed))
    fixed = any(info.shape and isinstance(info.shape[0], int) for info in network.inputs)
    if fixed and min(map(len, parts)) < batch:
        return None
    return parts[0], parts[1]


def _thinned(network: Network, plan: Sequence[Candidate]) -> list[_Block]:
    """The plan's blocks that hold an activation: what lies in front of one is out of least squares' reach."""
    found = []
    for candidate in plan:
        positions = [stage.activation for stage in candidate.stages[:-1]]
        activations = [None if position is None else activation_of(network, position) for position in positions]
        known = tuple(activation for activation in activations if activation is not None)
        if known and len(known) == len(activations):
            found.append(_Block(candidate.region, site_of(network, candidate), known, replaced=True))
    return found


def _left(network: Network, plan: Sequence[Candidate]) -> list[_Block]:
    """Paths behind the first replaced block and outside of all, which do not overlap: from each start the longest."""
    taken = {p for candidate in plan for p in range(candidate.region.start, candidate.region.stop)}
    first = min((candidate.region.start for candidate in plan), default=len(network.order))
    longest: dict[int, _Block] = {}
    for region in regions(network):
        span = range(region.start, region.stop)
        if region.start <= first or not 2 <= len(region.convs) <= MOST_CONVS or taken.intersection(span):
            continue
        activations = _path(network, region)
        if activations is not None:
            held = longest.get(region.start)
            if held is None or held.region.stop < region.stop:
                site = site_of(network, Candidate(f"tune {region.exit}", region, "fit"))
                longest[region.start] = _Block(region, site, activations, replaced=False)
    blocks: list[_Block] = []
    for _, block in sorted(longest.items()):
        if not blocks or block.region.start >= blocks[-1].region.stop:
            blocks.append(block)
    return blocks


def _path(network: Network, region: Region) -> tuple[Activation, ...] | None:
    """Activations between the convolutions of a region that is convolution, activation, …, convolution."""
    found: list[Activation] = []
    value, position = region.entry, region.start
    while position < region.stop:
        cell = network.cells.get(position)
        if position in network.convs and str(network.order[position].inputs[0].name) == value:  # type: ignore[union-attr]
            if position != region.convs[len(found)]:
                return None
            position += 1
        elif cell is not None and cell.entry == value and position - 1 in network.convs:
            activation = activation_of(network, position)
            if activation is None:
                return None
            found.append(activation)
            position = cell.stop
        else:
            return None
        value = str(network.order[position - 1].outputs[0].name)
    return tuple(found) if len(found) == len(region.convs) - 1 else None


def _convolutions(model: ir.Model, entry: str, exit: str) -> list[ir.Node]:
    """Those between the two values, in order."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    waiting, inside = [values[exit].producer()], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in inside:
            continue
        inside.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None and value.name != entry]
    return [node for node in model.graph if node in inside and node.op_type == "Conv"]


def _chain(network: Network, nodes: Sequence[ir.Node], block: _Block) -> Chain | None:
    convs = [conv for conv in map(conv_of, nodes) if isinstance(conv, Conv)]
    if len(convs) != len(nodes) or len(convs) != len(block.activations) + 1:
        return None
    return chain_of(network, list(zip(convs, (*block.activations, None), strict=True)))


def _windows(
    chain: Chain, model: ir.Model, block: _Block, built: Built, prefix: Prefix, samples: int
) -> Windows | None:
    entry, skip = block.region.entry, block.site.skip
    entry = built.aliases.get(entry, entry)
    skip = None if skip is None else built.aliases.get(skip, skip)
    met = sorted({entry, *(() if skip is None else (skip,))})
    runs = prefix.runs(model, [block.site.value], met)
    return cut_windows(chain, block.site, runs, entry=entry, skip=skip, samples=samples)
