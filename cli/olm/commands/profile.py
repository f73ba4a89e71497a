"""``olm profile``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from olm.options import (
    METHODS,
    MODEL,
    device_options,
    model_options,
    output_options,
    profile_option,
    seed_option,
)
from olm.progress import showing
from olm.screen import ms, print_json, say, shorten, table, warn

if TYPE_CHECKING:
    from onnx_layermerge import ProfileReport

__all__ = ["profile"]

MOST_FAILED = 10


@click.command(short_help="Time the candidate blocks of models on the device.")
@click.argument("models", metavar="IN.onnx...", type=MODEL, nargs=-1, required=True)
@device_options
@profile_option
@model_options
@click.option(
    "--method", type=click.Choice(METHODS), default="olm", show_default=True, help="Time the blocks of this method."
)
@seed_option
@click.option("--all", "everything", is_flag=True, help="Show long lists whole.")
@output_options
def profile(models: tuple[str, ...], everything: bool, as_json: bool, quiet: bool, **words: Any) -> None:
    """Time every candidate block of the models on the device, so that later commands need not.

    What the latency table holds is not timed again, and each result is in it the moment it is there.
    """
    import onnx_layermerge

    with showing(quiet) as progress:
        report = onnx_layermerge.profile(models, progress=progress, **words)
    warn(report.warnings)
    if as_json:
        print_json(report)
    else:
        _show(report, everything)


def _show(report: ProfileReport, everything: bool) -> None:
    say(f"{report.profile}: {report.timed} blocks timed, {report.reused} were there already", "bold")
    say(f"on {report.device}; {report.candidates} candidates")
    say()
    table(("model", ">whole model, ms"), [(path, ms(base)) for path, base in report.base_ms.items()])
    if report.failed:
        failed, more = shorten(sorted(report.failed.items()), MOST_FAILED, everything)
        say()
        table(("block", "reason"), failed, title=f"Could not be timed: {len(report.failed)}")
        if more:
            say(more, "dim")
