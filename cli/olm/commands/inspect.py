"""``olm inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from olm.options import MODEL, output_options, shapes_option
from olm.progress import showing
from olm.screen import kernel, print_json, say, shorten, table

if TYPE_CHECKING:
    from onnx_layermerge import Inspection

__all__ = ["inspect"]

MOST_LAYERS, MOST_REFUSALS = 40, 15
_BLOCKS = {
    "drop": "can be dropped",
    "fit": "can be fitted by one convolution",
    "merge": "can be merged by algebra without loss inside",
    "width": "can do with fewer channels inside",
}


@click.command(short_help="Show what could be replaced in a model, and why the rest is left alone.")
@click.argument("model", metavar="IN.onnx", type=MODEL)
@shapes_option
@click.option("--all", "everything", is_flag=True, help="Show long lists whole.")
@output_options
def inspect(model: str, shapes: dict[str, Any], everything: bool, as_json: bool, quiet: bool) -> None:
    """Show a model's chains of convolutions, what could be replaced, and why the rest is left alone.

    Nothing is timed and nothing is written.
    """
    import onnx_layermerge

    with showing(quiet) as progress:
        found = onnx_layermerge.inspect(model, shapes=shapes, progress=progress)
    if as_json:
        print_json(found)
    else:
        _show(found, everything)


def _show(found: Inspection, everything: bool) -> None:
    say(f"{found.path}: {found.nodes} nodes, {found.convs} convolutions, {found.covered} of them replaceable", "bold")
    say(f"inputs   {'; '.join(found.inputs)}")
    say(f"outputs  {'; '.join(found.outputs)}")
    if found.steps:
        say(f"prepared by {', '.join(found.steps)}")
    layers = [(number, layer) for number, chain in enumerate(found.chains, 1) for layer in chain.layers]
    shown, more = shorten(layers, MOST_LAYERS, everything)
    say()
    table(
        (">chain", "layer", "kernel", ">stride", ">groups", ">channels", "then"),
        [
            (
                number,
                layer.node,
                kernel(layer.kernel),
                kernel(layer.stride) if len(set(layer.stride)) > 1 else layer.stride[0],
                layer.groups,
                f"{layer.channels_in} -> {layer.channels_out}",
                " + ".join(word for word in ("skip" if layer.skip_add else "", layer.activation) if word),
            )
            for number, layer in shown
        ],
        title=f"Layers, chain by chain ({len(found.chains)})",
    )
    _say_more(more)
    say()
    say("Blocks", "bold")
    for recipe, meaning in _BLOCKS.items():
        say(f"{found.blocks.get(recipe, 0):6d} {meaning}")
    if found.refusals:
        refusals, more = shorten(found.refusals, MOST_REFUSALS, everything)
        say()
        table(
            ("node", "operator", "reason"),
            [(refusal.node, refusal.op_type, refusal.reason) for refusal in refusals],
            title=f"Left alone: {len(found.refusals)}",
        )
        _say_more(more)


def _say_more(more: str) -> None:
    if more:
        say(more, "dim")
