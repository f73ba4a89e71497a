"""What a model offers: its chains, the blocks that are legal, and why the rest is left alone.

As JSON an ``Inspection`` is its fields by name, sorted; docs/inspect.md describes them for readers of the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_layermerge.candidates import METHODS, Candidate, Stage, enumerate_candidates
from onnx_layermerge.errors import OutputError
from onnx_layermerge.flow._prepare import Progress, quiet
from onnx_layermerge.graph import (
    Chain,
    Layer,
    Network,
    Refusal,
    Region,
    barriers,
    chains,
    check_target,
    read,
    regions,
    without_collector,
    write_bytes,
)
from onnx_layermerge.merge import AffineConv, merge_chain
from onnx_layermerge.report import Bracket, draw

__all__ = ["InspectedChain", "Inspection", "LegalBlock", "inspect"]

RECIPES = ("drop", "fit", "low-rank", "merge", "width")


@dataclass(frozen=True)
class LegalBlock:
    """A stretch with one way in and one way out, and what could stand for it.

    It is the nodes [``start``, ``stop``) of the line, ``begin`` to ``end`` (an addition, where it holds a skip);
    ``convs`` names its convolutions, ``first`` to ``last``; they may go on into the next chain where the block holds
    the barrier between.  ``variants`` counts the candidates of each recipe.  ``fit`` lists kernels such as "3x3" and
    "3x3 depthwise", ``low_rank`` the channels between a pair of convolutions, ``width`` the channels that may be left
    inside.  ``merge`` says how the algebraic merge compares:
    "exact"; "border", equal but for a border; "inside", equal inside and perhaps at the border as well; None where
    there is none that loses nothing.
    """

    first: str
    last: str
    begin: str
    begin_op: str
    end: str
    end_op: str
    start: int
    stop: int
    convs: tuple[str, ...]
    variants: Mapping[str, int]
    fit: tuple[str, ...]
    low_rank: tuple[int, ...]
    width: tuple[int, ...]
    merge: str | None


@dataclass(frozen=True)
class InspectedChain:
    """Layers without a barrier between them, and the blocks whose first convolution is one of them."""

    layers: tuple[Layer, ...]
    blocks: tuple[LegalBlock, ...]


@dataclass(frozen=True)
class Inspection:
    """What could be replaced in a model.

    ``convs`` counts all convolutions, ``covered`` those inside at least one legal block, ``blocks`` the candidates by
    recipe, over all ``legal_blocks``.  ``refusals`` names every other convolution, and every barrier that no legal
    block holds, once each, with the reason.
    """

    path: str
    nodes: int
    convs: int
    covered: int
    steps: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    chains: tuple[InspectedChain, ...]
    legal_blocks: int
    blocks: Mapping[str, int]
    refusals: tuple[Refusal, ...]


@without_collector()
def inspect(
    path: str | Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    svg: str | Path | None = None,
    progress: Progress = quiet,
) -> Inspection:
    """Read a model and list what could be replaced in it; nothing is timed.

    With ``svg`` the network is drawn into that file, which appears whole or not at all.

    Raises:
        ModelError: the model cannot be read or holds no Conv.
        OutputError: ``svg`` cannot be written, is not a .svg file, or is the model itself.
    """
    target = None if svg is None else _picture_target(svg, path)
    progress("read", 0, 2, str(path))
    network = read(path, shapes=shapes)
    progress("read", 1, 2, "listing legal blocks")
    found, refused = enumerate_candidates(network, kinds=METHODS["olm"])
    parts = chains(network)
    blocks = _blocks(network, found)
    listed, nested = [block for _, block in blocks], _nested(network)
    named = _refusals(network, listed, refused)
    inspection = Inspection(
        path=str(path),
        nodes=len(network.order),
        convs=len(network.convs) + len(network.refused) + len(nested),
        covered=len({name for block in listed for name in block.convs}),
        steps=network.steps,
        inputs=tuple(f"{info.name} {list(info.shape)} {info.dtype}" for info in network.inputs),
        outputs=network.outputs,
        chains=_by_chain(parts, blocks),
        legal_blocks=len(blocks),
        blocks={recipe: sum(block.variants[recipe] for block in listed) for recipe in RECIPES},
        refusals=(*named, *nested),
    )
    if target is not None:
        numbers = {position: number for number, position in enumerate(sorted(network.convs), 1)}
        brackets = [Bracket(b.start, b.stop, _in_words(b, [numbers[p] for p in r.convs])) for r, b in blocks]
        write_bytes(target, draw(network, title=Path(path).name, chains=parts, blocks=brackets, refusals=named))
    progress("read", 2, 2, "listed")
    return inspection


def _picture_target(svg: str | Path, path: str | Path) -> Path:
    """Every check that needs no reading."""
    if Path(svg).suffix.lower() != ".svg":
        raise OutputError(f"{svg} is not a .svg file; give the picture a name that ends in .svg.")
    return check_target(svg, not_over=path)


def _blocks(network: Network, found: Iterable[Candidate]) -> list[tuple[Region, LegalBlock]]:
    """The regions with at least one candidate, in order, each with what stands to choose."""
    home = {(region.start, region.stop): region for region in regions(network)}
    known: dict[tuple[int, tuple[int, ...]], list[Region]] = {}
    for region in home.values():
        known.setdefault((region.start, region.convs), []).append(region)
    offers: dict[tuple[int, int], list[Candidate]] = {}
    for candidate in found:
        key = candidate.region.start, candidate.region.stop
        if key not in home:
            # It takes along what follows its region, as a drop does with an activation that repeats.
            same = known.get((candidate.region.start, candidate.region.convs), [])
            shorter = [region for region in same if region.stop <= candidate.region.stop]
            longest = max(shorter, key=lambda region: region.stop, default=candidate.region)
            key = longest.start, longest.stop
            home.setdefault(key, longest)
        offers.setdefault(key, []).append(candidate)
    certificates: dict[tuple[object, ...], str] = {}
    kernels: dict[int, str] = {}
    return [(home[key], _block(network, home[key], offers[key], certificates, kernels)) for key in sorted(offers)]


def _block(
    network: Network,
    region: Region,
    offered: Sequence[Candidate],
    certificates: dict[tuple[object, ...], str],
    kernels: dict[int, str],
) -> LegalBlock:
    convs = tuple(str(network.order[position].name) for position in region.convs)
    begin, end = network.order[region.start], network.order[region.stop - 1]
    by_recipe: dict[str, list[Candidate]] = {recipe: [] for recipe in RECIPES}
    for candidate in offered:
        by_recipe[candidate.recipe].append(candidate)
    return LegalBlock(
        first=convs[0],
        last=convs[-1],
        begin=str(begin.name),
        begin_op=begin.op_type,
        end=str(end.name),
        end_op=end.op_type,
        start=region.start,
        stop=region.stop,
        convs=convs,
        variants={recipe: len(candidates) for recipe, candidates in by_recipe.items()},
        fit=tuple([_kernel(candidate.stage, kernels) for candidate in by_recipe["fit"]]),
        low_rank=tuple(c.stages[0].channels_out for c in by_recipe["low-rank"]),
        width=tuple(c.stages[0].channels_out for c in by_recipe["width"]),
        merge=_certificate(network, region, certificates) if by_recipe["merge"] else None,
    )


def _kernel(stage: Stage, known: dict[int, str]) -> str:
    """In words; a network repeats the same few stages, and ``known`` goes by which it is, as all of them are held."""
    words = known.get(id(stage))
    if words is None:
        words = "x".join(map(str, stage.geometry.kernel)) + (" depthwise" if stage.groups > 1 else "")
        known[id(stage)] = words
    return words


def _certificate(network: Network, region: Region, known: dict[tuple[object, ...], str]) -> str:
    """How a merge that removes nothing compares, where that needs no composing of the real weights.

    Along a plain series it depends on sizes, pads and whether there are biases only, not on the channels: one channel
    of ones serves as well.
    """
    if region.stop - region.start != len(region.convs):
        return "inside"
    convs = [network.convs[position] for position in region.convs]
    key = tuple((c.kernel, c.stride, c.dilation, c.pads, c.bias is not None and bool(c.bias.any())) for c in convs)
    if key not in known:
        thin = [
            AffineConv.from_conv(np.ones((1, 1, *kernel)), np.array([float(bias)]), stride, dilation, pads)
            for kernel, stride, dilation, pads, bias in key
        ]
        known[key] = merge_chain(thin).certificate.kind
    return known[key]


def _by_chain(parts: Sequence[Chain], blocks: Sequence[tuple[Region, LegalBlock]]) -> tuple[InspectedChain, ...]:
    chain_of = {layer.position: number for number, chain in enumerate(parts) for layer in chain.layers}
    lists: list[list[LegalBlock]] = [[] for _ in parts]
    for region, block in blocks:
        lists[chain_of[region.convs[0]]].append(block)
    return tuple(InspectedChain(chain.layers, tuple(own)) for chain, own in zip(parts, lists, strict=True))


def _refusals(network: Network, blocks: Sequence[LegalBlock], refused: Sequence[Refusal]) -> list[Refusal]:
    """Every barrier outside of all blocks and every convolution in none, each once, in the order of the line."""
    held: set[int] = set()
    until = 0
    for block in blocks:  # sorted by start
        held.update(range(max(block.start, until), block.stop))
        until = max(until, block.stop)
    position = {str(node.name): number for number, node in enumerate(network.order)}
    found = {refusal.node: refusal for refusal in (*barriers(network), *refused)}
    left = [refusal for name, refusal in found.items() if position[name] not in held]
    return sorted(left, key=lambda refusal: position[refusal.node])


def _nested(network: Network) -> list[Refusal]:
    """Convolutions that are not nodes of the main graph."""
    found = []
    for node in network.model.graph.all_nodes():
        if node.op_type == "Conv" and node.domain in ("", "ai.onnx") and node not in network.position:
            found.append(Refusal(str(node.name), "Conv", "lies in the body of a control-flow node"))
    for function in network.model.functions.values():
        for node in function.all_nodes():
            if node.op_type == "Conv" and node.domain in ("", "ai.onnx"):
                found.append(Refusal(str(node.name), "Conv", f"lies in the body of function {function.name}"))
    return found


def _in_words(block: LegalBlock, numbers: Sequence[int]) -> str:
    """A tooltip; it has numbers instead of names, which are long."""
    one = len(numbers) == 1
    lines = [f"convolution {numbers[0]}" if one else f"convolutions {numbers[0]} to {numbers[-1]}"]
    lines[0] += "" if block.begin == block.first else f", from {block.begin_op}"
    lines[0] += "" if block.end == block.last else f", to {block.end_op}"
    lines += ["drop"] if block.variants["drop"] else []
    lines += [f"merge: {block.merge}"] if block.merge else []
    lines += [f"fit: {', '.join(block.fit)}"] if block.fit else []
    lines += [f"low rank: {', '.join(map(str, block.low_rank))}"] if block.low_rank else []
    lines += [f"width: {', '.join(map(str, block.width))}"] if block.width else []
    return "\n".join(lines)
