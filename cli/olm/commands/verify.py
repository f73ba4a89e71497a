"""``olm verify``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from olm.judged import show_boxes, show_metric, show_outputs
from olm.options import (
    MODEL,
    data_options,
    device_options,
    engine_options,
    metric_options,
    model_options,
    output_options,
    seed_option,
)
from olm.progress import showing
from olm.screen import interval, ms, print_json, say, warn
from olm.values import Finite

if TYPE_CHECKING:
    from onnx_layermerge import Verdict

__all__ = ["SCHEMA", "verify"]

# Of the JSON on stdout; docs/schemas/verify.v1.json describes it.  Fields may be added under one number, not changed.
SCHEMA = "olm.verify/1"


@click.command(short_help="Hold one model against another: the gate for CI.")
@click.argument("original", metavar="A.onnx", type=MODEL)
@click.argument("compressed", metavar="B.onnx", type=MODEL)
@click.option("--min-speedup", type=Finite(0), metavar="X", help="Fail unless B is X times as fast as A.")
@click.option(
    "--min-saving", type=Finite(0), metavar="MS", help="Fail unless B takes MS milliseconds less than A, too."
)
@click.option(
    "--min-agreement", type=Finite(0, 1), metavar="SHARE",
    help="Fail unless the top-1 class is the same on this share of --calib, 0 to 1.",
)
@click.option("--max-kl", type=Finite(0), metavar="NATS", help="Fail if the outputs on --calib lie further apart.")
@click.option(
    "--max-drop", type=Finite(0), metavar="NUMBER",
    help="Fail if --metric falls by more than this, in its own units.",
)
@click.option(
    "--time-cap", "time_cap_s", type=Finite(0), default=30.0, show_default=True, metavar="SECONDS",
    help="Time at most this long; what noise leaves undecided by then fails, with that reason.",
)
@data_options(samples=512)
@metric_options
@device_options
@engine_options
@click.option(
    "--save-onnx", type=click.Path(), metavar="DIR",
    help="Write both models there in the types that were timed, for trtexec to read.",
)
@model_options
@seed_option
@output_options
def verify(
    original: str,
    compressed: str,
    min_speedup: float | None,
    min_saving: float | None,
    min_agreement: float | None,
    max_kl: float | None,
    max_drop: float | None,
    as_json: bool,
    quiet: bool,
    **words: Any,
) -> None:  # fmt: skip
    """Time B against A in this run, compare their outputs, and fail (exit code 3) where a bound is missed.

    Times count with the lower end of their interval.
    """
    import onnx_layermerge

    gate = onnx_layermerge.Gate(min_speedup, min_agreement, max_kl, max_drop, min_saving)
    with showing(quiet) as progress:
        verdict = onnx_layermerge.verify(original, compressed, gate=gate, progress=progress, **words)
    warn(verdict.warnings)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                **asdict(verdict),
                "gate": asdict(gate),
                "passed": verdict.passed,
                "saving_ms": dict(zip(("median", "low", "high"), verdict.saving_ms, strict=True)),
            }
        )
    else:
        _show(compressed, verdict)
    if not verdict.passed:
        raise onnx_layermerge.GateError(*verdict.failures)


def _show(compressed: str, verdict: Verdict) -> None:
    say(f"{compressed}: {interval(verdict.speedup)}", "bold")
    show_outputs(verdict.outputs)
    if verdict.quality is not None:
        agreement = verdict.quality.agreement
        say(f"divergence  {verdict.quality.kl:.4g}, relative error {verdict.quality.relative:.4g}")
        if not math.isnan(agreement):
            say(f"agreement   {agreement:.1%} of the samples have the same top-1")
    show_boxes(verdict.boxes)
    show_metric(verdict.metric)
    if verdict.timing is not None:
        timing = verdict.timing
        say(f"times       medians of {timing.kind}, {ms(timing.a_ms)} ms -> {ms(timing.b_ms)} ms, on {timing.device}")
        for command in timing.commands:
            say(f"the same by {command}")
        if timing.unwritten:
            say(f"            (--save-onnx DIR writes the files in {timing.precision} that these commands read)")
    say("gate        " + ("held" if verdict.passed else f"{len(verdict.failures)} missed"))
