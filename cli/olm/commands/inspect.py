"""``olm inspect``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from olm.options import MODEL, all_option, output_options, shapes_option
from olm.progress import showing
from olm.screen import WIDTH, fitted, kernel, plain, print_json, say, shorten, table

if TYPE_CHECKING:
    from onnx_layermerge import Inspection
    from onnx_layermerge.graph import Layer, Refusal

__all__ = ["inspect"]

MOST_LAYERS, MOST_BLOCKS, MOST_REASONS, MOST_NAMES = 40, 15, 15, 20
_RECIPES = {
    "drop": "can be dropped",
    "fit": "can be fitted by one convolution",
    "low-rank": "can be split into two with fewer channels between",
    "merge": "can be merged by algebra without loss inside",
    "width": "can do with fewer channels inside",
}


@click.command(short_help="Show what could be replaced in a model, and why the rest is left alone.")
@click.argument("model", metavar="IN.onnx", type=MODEL)
@shapes_option
@all_option
@click.option("--svg", type=click.Path(), metavar="FILE.svg", help="Draw the network with its legal blocks there.")
@output_options
def inspect(
    model: str, shapes: dict[str, Any], everything: bool, svg: str | None, as_json: bool, quiet: bool
) -> None:  # fmt: skip
    """Show a model's chains of convolutions, its legal blocks, and why the rest is left alone.

    Nothing is timed, and nothing is written but the picture of --svg.
    """
    import onnx_layermerge

    with showing(quiet) as progress:
        found = onnx_layermerge.inspect(model, shapes=shapes, svg=svg, progress=progress)
    if as_json:
        print_json(found)
        return
    _head(found, everything)
    _layers(found, everything)
    _blocks(found, everything)
    _left_alone(found.refusals, everything)
    if svg is not None:
        say()
        say(f"drawn in {svg}")


def _head(found: Inspection, everything: bool) -> None:
    say(f"{found.path}: {found.nodes} nodes, {found.convs} convolutions, {found.covered} of them replaceable", "bold")
    for label, words in (("inputs", found.inputs), ("outputs", found.outputs), ("prepared", found.steps)):
        shown, more = shorten(words, MOST_NAMES, everything)
        text = "; ".join(map(plain, (*shown, more) if more else shown))
        for line in textwrap.wrap(text, WIDTH - 9, break_long_words=False, break_on_hyphens=False):
            say(f"{label:9s}{line}")
            label = ""


def _layers(found: Inspection, everything: bool) -> None:
    layers = sorted(
        ((number, layer) for number, chain in enumerate(found.chains, 1) for layer in chain.layers),
        key=lambda item: item[1].position,
    )
    held = Counter(name for chain in found.chains for block in chain.blocks for name in block.convs)
    shown, more = shorten(list(enumerate(layers, 1)), MOST_LAYERS, everything)
    say()
    fitted(
        (">#", ">chain", "layer", "kernel", ">stride", ">groups", ">channels", "then", ">blocks"),
        [(number, chain, *_layer(layer), held[layer.node]) for number, (chain, layer) in shown],
        "layer",
        everything,
        title=f"Layers in {len(found.chains)} {'chain' if len(found.chains) == 1 else 'chains'}, "
        "with the number of legal blocks that hold each",
    )
    _say_more(more)


def _layer(layer: Layer) -> tuple[object, ...]:
    return (
        layer.node,
        kernel(layer.kernel),
        kernel(layer.stride) if len(set(layer.stride)) > 1 else layer.stride[0],
        layer.groups,
        f"{layer.channels_in} -> {layer.channels_out}",
        " + ".join(word for word in ("skip" if layer.skip_add else "", layer.activation) if word),
    )


def _blocks(found: Inspection, everything: bool) -> None:
    """All blocks, or the first of those that lie in no other; layers are named by their numbers."""
    layers = sorted((layer for chain in found.chains for layer in chain.layers), key=lambda layer: layer.position)
    numbers = {layer.node: number for number, layer in enumerate(layers, 1)}
    blocks = [(number, block) for number, chain in enumerate(found.chains, 1) for block in chain.blocks]
    blocks.sort(key=lambda item: (item[1].start, -item[1].stop))
    say()
    table(
        ("recipe", ">blocks", ">candidates", ""),
        [
            (recipe, sum(block.variants[recipe] > 0 for _, block in blocks), found.blocks[recipe], meaning)
            for recipe, meaning in _RECIPES.items()
        ],
        title=f"Legal blocks: {found.legal_blocks}",
    )
    if not blocks:
        return
    largest, reach = [], 0
    for chain, block in blocks:
        if block.stop > reach:
            largest.append((chain, block))
            reach = block.stop
    listed = blocks if everything else largest
    shown = listed if everything else listed[:MOST_BLOCKS]
    say()
    fitted(
        (">chain", ">layers", ">convs", "from", "to", "drop", "merge", "fit", "rank", "width"),
        [
            (
                chain,
                "–".join(str(numbers[name]) for name in dict.fromkeys((block.first, block.last))),
                len(block.convs),
                block.begin_op,
                block.end_op,
                "yes" if block.variants["drop"] else "–",
                block.merge or "–",
                _range(block.variants["fit"], [name.split()[0].replace("x", "×") for name in block.fit]),
                _range(block.variants["low-rank"], list(map(str, reversed(block.low_rank)))),
                _range(block.variants["width"], list(map(str, reversed(block.width)))),
            )
            for chain, block in shown
        ],
        "to",
        everything,
        title="Every block" if everything else "Blocks that lie in no other",
    )
    unseen, inside = len(listed) - len(shown), len(blocks) - len(listed)
    words = [f"{unseen} more" if unseen else "", f"{inside} inside them" if inside else ""]
    if any(words):
        _say_more(f"... and {', and '.join(filter(None, words))} (--all shows them)")


def _range(count: int, words: Sequence[str]) -> str:
    """How many, from which to which."""
    if not words:
        return "–"
    return f"{count}: {words[0]}" if words[0] == words[-1] else f"{count}: {words[0]} to {words[-1]}"


def _left_alone(refusals: Sequence[Refusal], everything: bool) -> None:
    if not refusals:
        return
    say()
    title = f"Left alone: {len(refusals)}"
    if everything:
        rows = [(refusal.node, refusal.op_type, refusal.reason) for refusal in refusals]
        fitted(("node", "operator", "reason"), rows, "node", everything, title=title)
        return
    groups: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault(refusal.reason, []).append(refusal)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    shown, more = shorten(ordered, MOST_REASONS, everything)
    fitted(
        (">nodes", "operator", "reason", "first of them"),
        [
            (len(group), ", ".join(dict.fromkeys(each.op_type for each in group)), reason, group[0].node)
            for reason, group in shown
        ],
        "first of them",
        everything,
        title=title,
    )
    _say_more(more or ("(--all names every node)" if len(refusals) > len(ordered) else ""))


def _say_more(more: str) -> None:
    if more:
        say(more, "dim")
