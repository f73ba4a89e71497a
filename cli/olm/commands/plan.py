"""``olm plan``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from olm.frontier import draw_frontier, spread
from olm.options import (
    MODEL,
    data_options,
    device_options,
    effort_option,
    engine_options,
    method_option,
    mismatch_option,
    model_options,
    output_options,
    profile_option,
    require_builds_option,
    seed_option,
)
from olm.progress import showing
from olm.screen import ms, print_json, say, table, times, warn

if TYPE_CHECKING:
    from onnx_layermerge import FrontierPoint, PlanReport

__all__ = ["plan"]

ROWS = 12


@click.command(short_help="Show what each speed-up is expected to cost.")
@click.argument("input", metavar="IN.onnx", type=MODEL)
@data_options(samples=256, pictures=True)
@method_option
@device_options
@engine_options
@profile_option
@click.option(
    "--from-table", is_flag=False, flag_value="", default=None, metavar="[DEVICE]",
    help="Time nothing: plan with what the table holds for this device (a part of its key; may be left out where the "
    "table holds only one).",
)
@mismatch_option
@require_builds_option
@effort_option
@model_options
@seed_option
@output_options
def plan(input: str, as_json: bool, quiet: bool, **words: Any) -> None:
    """Show the frontier: what each speed-up is expected to cost.  No model is written.

    Both are predicted, from blocks that were timed and judged one by one; `olm compress` measures.

    Where the device is not on this machine, a table that was filled there does: give it with `--profile`.
    """
    import onnx_layermerge

    with showing(quiet) as progress:
        report = onnx_layermerge.plan(input, progress=progress, **words)
    warn(report.warnings)
    if as_json:
        print_json(report)
    else:
        _show(report)


def _show(report: PlanReport) -> None:
    say(f"{report.input}: {ms(report.base_ms)} ms on {report.device}", "bold")
    blocks = f"{report.timed_blocks} blocks timed, {report.reused_blocks} read from the profile"
    if report.missing_blocks:
        blocks += f"; {report.missing_blocks} candidates left out, which it does not hold"
    say(f"{len(report.points)} plans on the frontier; {blocks}")
    say()
    table(
        (">speed-up", ">ms", ">loss", ">blocks", ">loss of drops alone"),
        [
            (
                times(point.speedup),
                ms(report.base_ms / point.speedup),
                f"{point.loss:.4g}",
                len(point.blocks),
                _drops(report.drop_only, point.speedup),
            )
            for point in spread(report.points, ROWS, lambda point: point.speedup)
        ],
        title="Frontier (predicted; loss is the sum over blocks of the divergence each causes alone)",
    )
    draw_frontier(
        [(point.speedup, point.loss) for point in report.points],
        [(point.speedup, point.loss) for point in report.drop_only],
    )


def _drops(points: Sequence[FrontierPoint], speedup: float) -> str:
    """The least loss at which drops alone are as fast."""
    losses = [point.loss for point in points if point.speedup >= speedup]
    return f"{min(losses):.4g}" if losses else "–"
