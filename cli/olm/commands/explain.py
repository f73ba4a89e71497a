"""``olm explain``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from olm.options import MODEL, all_option, output_options
from olm.screen import WIDTH, first_of, fitted, ms, plain, print_json, say, shorten, warn

if TYPE_CHECKING:
    from onnx_layermerge import Explanation
    from onnx_layermerge.flow import ExplainedConv

__all__ = ["explain"]

MOST = 60
_FATES = {
    "replacement": "stand for what was replaced",
    "refitted": "kept, with other weights",
    "kept": "kept as they were",
    "untouchable": "could not be touched",
    "unknown": "not on record",
    "gone": "replaced or dropped",
}
_STEPS = {"refit": "refitted", "tune": "tuned", "finetune": "trained"}


@click.command(short_help="Tell why each convolution of a compressed model is what it is.")
@click.argument("model", metavar="OUT.onnx", type=MODEL)
@click.argument("node", metavar="[NODE]", required=False)
@all_option
@output_options
def explain(model: str, node: str | None, everything: bool, as_json: bool, quiet: bool) -> None:
    """Tell why a convolution was merged, kept, refitted, or could not be touched: NODE alone, or all of them.

    Everything is read from the record that `olm compress` left in the file; nothing is timed or run.
    """
    import onnx_layermerge

    found = onnx_layermerge.explain(model, node)
    if as_json:
        print_json(found)
        return
    warn(found.notes)
    if node is not None:
        for conv in found.convs:
            _one(conv)
        return
    _head(found)
    _blocks(found, everything)
    for fate in ("refitted", "kept", "untouchable", "unknown"):
        _list(_FATES[fate].capitalize(), [conv for conv in found.convs if conv.fate == fate], everything)


def _one(conv: ExplainedConv) -> None:
    label = f"  {' '.join(conv.label.split())}" if conv.label else ""
    block = f" (block {conv.block})" if conv.block else ""
    say(f"{plain(conv.name)}{label}", "bold")
    say(f"{_FATES[conv.fate]}{block}: {plain(conv.reason)}")


def _head(found: Explanation) -> None:
    origin = found.origin
    say(f"{found.path}: compressed by olm {origin.get('version', '')}", "bold")
    counts = Counter(conv.fate for conv in found.convs)
    say("; ".join(f"{counts[fate]} {words}" for fate, words in _FATES.items() if counts[fate]))
    for label, key in (("asked", "speedup.asked"), ("on", "device"), ("method", "method"), ("seed", "seed")):
        if key in origin:
            say(f"{label:9s}{plain(origin[key])}{'×' if key == 'speedup.asked' else ''}")
    for label, key in (("input", "input.sha256"), ("samples", "calibration.sha256")):
        if key in origin:
            say(f"{label:9s}SHA-256 {plain(origin[key])}")
    if found.recovery:
        steps = (_STEPS.get(step, step) for step in found.recovery)
        say(f"{'weights':9s}{plain(', '.join(steps))}")


def _blocks(found: Explanation, everything: bool) -> None:
    say()
    shown, more = shorten(found.blocks, MOST, everything)
    fitted(
        (">block", "replaced", "by", "recipe", ">old, ms", ">saves, ms", ">KL alone"),
        [
            (
                block.number,
                first_of(block.was) or block.name,
                ", ".join(block.now) or "–",
                block.recipe,
                "–" if block.old_ms is None else ms(block.old_ms),
                "–" if block.saves_ms is None else ms(block.saves_ms),
                "–" if block.kl is None else f"{block.kl:.4g}",
            )
            for block in shown
        ],
        "replaced",
        everything,
        title=f"Replaced: {len(found.blocks)}",
    )
    if more:
        say(more, "dim")


def _list(title: str, convs: Sequence[ExplainedConv], everything: bool) -> None:
    """A reason is a sentence, too long for a column."""
    if not convs:
        return
    shown, more = shorten(convs, MOST, everything)
    say()
    say(f"{title}: {len(convs)}", "bold")
    for conv in shown:
        say(f"{plain(conv.name)}  {' '.join(conv.label.split())}".rstrip())
        for line in textwrap.wrap(plain(conv.reason), WIDTH - 4, break_long_words=False, break_on_hyphens=False):
            say(f"    {line}", "dim")
    if more:
        say(more, "dim")
