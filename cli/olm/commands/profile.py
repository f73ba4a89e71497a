"""``olm profile``."""

# ParamType became generic in Click 8.4 and cannot be subscripted before.
# mypy: disable-error-code=type-arg

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from olm.options import (
    MODEL,
    all_option,
    device_options,
    engine_options,
    method_option,
    model_options,
    output_options,
    profile_option,
    seed_option,
)
from olm.progress import showing
from olm.screen import ms, print_json, say, shorten, table, warn

if TYPE_CHECKING:
    from onnx_layermerge import ProfileReport
    from onnx_layermerge.flow import Overview

__all__ = ["profile"]

MOST_FAILED = 10
MOST_LEFT = 10
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType):
    """``30s``, ``10m``, ``1.5h``: a time, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Seconds, or a usage error."""
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh])", str(value).strip().lower(), re.ASCII)
        seconds = float(found[1]) * _UNITS[found[2]] if found is not None else 0.0
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is no time; give a number and s, m or h, such as 30s, 10m or 1h.", param, ctx)
        return seconds


@click.command(short_help="Time the candidate blocks of models on the device.")
@click.argument("models", metavar="[IN.onnx...]", type=MODEL, nargs=-1)
@device_options
@engine_options
@profile_option
@model_options
@click.option(
    "--budget", "budget_s", type=Duration(), metavar="TIME",
    help="Stop after this time, such as 30s, 10m or 1h; the most useful blocks come first.",
)
@method_option
@click.option(
    "--build-only", is_flag=True,
    help="Time nothing: build every block with TensorRT-RTX for --compute-capability, on any machine.",
)
@click.option(
    "--compute-capability", "capabilities", multiple=True, metavar="X.Y",
    help="Build for these GPUs, such as 8.6 or 12.0 (with --build-only; may be repeated).",
)
@seed_option
@all_option
@output_options
def profile(
    models: tuple[str, ...], everything: bool, as_json: bool, quiet: bool,
    build_only: bool, capabilities: tuple[str, ...], **words: Any,
) -> None:
    """Time every candidate block of the models on the device, so that later commands need not.

    What the latency table holds is not timed again, and each result is in it the moment it is there.  Without a model,
    list the backends and devices of this machine and what the table holds for each.
    """  # fmt: skip
    import onnx_layermerge
    from onnx_layermerge.flow import overview

    if build_only:
        _build(models, capabilities, everything, as_json, quiet, words)
        return
    if capabilities:
        raise click.UsageError("--compute-capability says what --build-only builds for; give that too.")
    if not models:
        found = overview(**{name: words[name] for name in ("profile", "device", "backend", "precision", "engines")})
        if as_json:
            print_json(found)
        else:
            _list(found)
        return
    with showing(quiet) as progress:
        report = onnx_layermerge.profile(models, progress=progress, **words)
    warn(report.warnings)
    if as_json:
        print_json(report)
    else:
        _show(report, everything)


def _build(
    models: tuple[str, ...], capabilities: tuple[str, ...], everything: bool, as_json: bool, quiet: bool,
    words: dict[str, Any],
) -> None:  # fmt: skip
    """Ahead of time: which blocks the builder takes, and what it fuses."""
    from onnx_layermerge.flow import build_only

    with showing(quiet) as progress:
        report = build_only(
            models, capabilities=capabilities, precision=words["precision"], method=words["method"],
            shapes=words["shapes"], batch=words["batch"], engines=words["engines"], progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(report)
        return
    built = len(report.blocks) - len(report.failed)
    say(f"{built} of {len(report.blocks)} blocks built by {report.backend} in {report.precision}", "bold")
    say(f"for compute capabilities {', '.join(report.capabilities)}; {1e3 * report.median_s:.0f} ms a block (median)")
    failed, more = shorten(report.failed, MOST_FAILED, everything)
    if failed:
        say()
        table(("block", "reason"), [(block.label, block.reason or "") for block in failed], title="Not built")
    if more:
        say(more, "dim")


def _show(report: ProfileReport, everything: bool) -> None:
    say(f"{report.profile}: {report.timed} blocks timed, {report.reused} were there already", "bold")
    if report.bounded or report.skipped:
        say(f"{report.bounded} given up after a look, {report.skipped} without one: too slow to be of use")
    say(f"on {report.device}; {report.candidates} candidates")
    say()
    table(("model", ">whole model, ms"), [(path, ms(base)) for path, base in report.base_ms.items()])
    if report.failed:
        failed, more = shorten(sorted(report.failed.items()), MOST_FAILED, everything)
        say()
        table(("block", "reason"), failed, title=f"Could not be timed: {len(report.failed)}")
        if more:
            say(more, "dim")
    if report.left or report.models_left:
        left, more = shorten([(label,) for label in (*report.models_left, *report.left)], MOST_LEFT, everything)
        say()
        table(("the most useful first",), left, title=f"Left out for lack of time: {len(report.left)} blocks")
        if more:
            say(more, "dim")


def _list(found: Overview) -> None:
    table(
        ("backend", "", "device"),
        [(b.name, Text("ok", "green") if b.usable else Text("no", "yellow"), b.detail) for b in found.backends],
    )
    say()
    if not found.held:
        say(f"{found.profile} holds nothing yet; name a model to profile.")
        return
    table(
        ("device", ">blocks", ">failed", ">too slow", ">models", "newest"),
        [(h.device, h.blocks, h.failures, h.bounds, h.models, h.newest or "not known") for h in found.held],
        title=f"Held by {found.profile}",
    )
