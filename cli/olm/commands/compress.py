"""``olm compress``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from olm.errors import given_words
from olm.frontier import draw_frontier
from olm.judged import show_boxes, show_metric, show_outputs
from olm.options import (
    MODEL,
    REFITS,
    data_options,
    device_options,
    effort_option,
    engine_options,
    method_option,
    metric_options,
    mismatch_option,
    model_options,
    norms_option,
    output_options,
    profile_option,
    require_builds_option,
    seed_option,
)
from olm.progress import showing
from olm.reports import report_option, report_targets, write_reports
from olm.screen import first_of, fitted, interval, ms, print_json, say, times, warn
from olm.values import Finite, Shard

if TYPE_CHECKING:
    from onnx_layermerge import Report

__all__ = ["compress"]

# What only says what is done with a plan.
_OF_PLANS = (
    *("speedup", "decoder", "refit_mode", "rivals", "require_builds", "plan", "lock"),
    *("finetune", "finetune_minutes", "finetune_steps"),
)
_STEPS = {"refit": ", refitted", "tune": ", tuned", "finetune": ", trained"}
# The plot ends this much beyond the fastest plan that was built.
BEYOND = 1.6


@click.command(short_help="Write a model that is measured to be X times faster.")
@click.argument("input", metavar="IN.onnx", type=MODEL)
@click.argument("output", metavar="OUT.onnx", type=MODEL)
@click.option("--speedup", type=float, required=True, metavar="X", help="Wanted speed-up, above 1; it is measured.")
@data_options(samples=1024, pictures=True)
@click.option(
    "--val", metavar="SOURCE",
    help="Samples of another source, which choose between plans.  [default: a quarter of --calib, and mixtures of it]",
)
@metric_options
@method_option
@click.option(
    "--refit", "refit_mode", type=click.Choice(REFITS), default="auto", show_default=True,
    help="auto: solve kept convolutions again, near their weights, and tune them, where validation gains by it.",
)
@effort_option
@click.option(
    "--rivals", type=click.IntRange(1), metavar="N", help="Plans to build and compare.  [default: by --effort]"
)
@device_options
@engine_options
@profile_option
@mismatch_option
@require_builds_option
@click.option(
    "--plan", type=click.Path(), metavar="FILE.json",
    help="Write the plan there; where it is already, follow it: nothing is searched, its blocks are fitted again.",
)
@click.option(
    "--lock", is_flag=True,
    help="Hold model, samples, options and the output's bytes to what --plan recorded; nothing is timed.",
)
@click.option(
    "--finetune", is_flag=True,
    help="With --method layermerge, depth or layeronly: train, too. Blocks are scored by a short training each, and "
    "the plan is trained before it is merged. Needs PyTorch.",
)
@click.option(
    "--importance", type=click.Path(), multiple=True, metavar="FILE.json",
    help="Keep the scores of --finetune there, block by block, and go on from it; repeatable, the first is added to.",
)
@click.option(
    "--importance-steps", type=click.IntRange(1), metavar="N", help="Steps of each short training.  [default: 20]"
)
@click.option(
    "--importance-lr", type=Finite(0), metavar="R",
    help="Largest step of each short training, as a share of a channel's weights.  [default: tried with one block]",
)
@click.option(
    "--shard", type=Shard(), metavar="I/N", help="Score part I of N of the blocks into --importance, and end there."
)
@click.option(
    "--finetune-minutes", type=Finite(0), metavar="M",
    help="Length of the last training.  [default: 10, unless --finetune-steps is given]",
)
@click.option("--finetune-steps", type=click.IntRange(1), metavar="N", help="Steps of the last training.")
@click.option(
    "--finetune-device", metavar="D", help="Where --finetune trains: cpu, cuda or cuda:N.  [default: cpu]"
)
@norms_option
@model_options
@seed_option
@report_option
@output_options
def compress(
    input: str,
    output: str,
    reports: tuple[str, ...],
    shard: tuple[int, int] | None,
    as_json: bool,
    quiet: bool,
    **words: Any,
) -> None:
    """Write a model that is measured to be X times faster on the device, with the least loss found.

    If that cannot be reached nothing is written, and the error names the best that was measured.
    """
    import onnx_layermerge

    if words["val"] is not None and words["calib"] is None:
        raise click.UsageError("--val chooses between what was fitted on --calib; give --calib too.")
    if shard is not None:
        if not words["finetune"]:
            raise click.UsageError("--shard is a part of the work of --finetune; give that too.")
        _check_part(click.get_current_context(), reports, words)
        _score_shard(input, shard, words, as_json, quiet)
        return
    targets = report_targets(reports, input, output, words.values())
    with showing(quiet) as progress:
        result = onnx_layermerge.compress(input, output, progress=progress, **words)
    result = dataclasses.replace(result, command=given_words())
    write_reports(targets, result)
    warn(result.warnings)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _check_part(context: click.Context, reports: tuple[str, ...], words: Mapping[str, Any]) -> None:
    """Raises UsageError for what asks for more than the scores of a part."""
    given = {
        "--report": bool(reports),
        "--plan": words["plan"] is not None,
        "--lock": words["lock"],
        "--decoder": words["decoder"] is not None,
        # It has a default, which is another thing than the same word given.
        "--refit": context.get_parameter_source("refit_mode") is click.core.ParameterSource.COMMANDLINE,
        "--rivals": words["rivals"] is not None,
        "--require-builds": words["require_builds"] is not None,
        "--finetune-minutes": words["finetune_minutes"] is not None,
        "--finetune-steps": words["finetune_steps"] is not None,
    }
    for option, there in given.items():
        if there:
            raise click.UsageError(f"--shard ends with its scores and leaves nothing for {option}; leave that out.")


def _score_shard(input: str, shard: tuple[int, int], words: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    from onnx_layermerge.flow import check_speedup, score_shard

    given = {name: value for name, value in words.items() if name not in _OF_PLANS}
    check_speedup(words["speedup"])
    with showing(quiet) as progress:
        result = score_shard(input, shard=shard, progress=progress, **given)
    warn(result.warnings)
    if as_json:
        print_json(result)
        return
    say(f"{result.file}: part {shard[0]} of {shard[1]}", "bold green")
    say(f"{result.blocks} blocks, {result.trained} of them trained now; give every part's file to --importance next")


def _show(result: Report) -> None:
    source = "" if result.measured_now else ", measured before"
    say(f"{result.output}: {interval(result.speedup)}{source}", "bold green")
    say(f"on {result.device}")
    changed = f"; {len(result.refitted)} kept convolutions moved along" if result.refitted else ""
    steps = "".join(_STEPS[step] for step in result.recovery)
    say(
        f"asked {times(result.asked)}, predicted {times(result.predicted)}; "
        f"{result.convs_before} -> {result.convs_after} convolutions; "
        f"method {result.method}, plan by {result.basis}{steps}{changed}"
    )
    say()
    fitted(
        (">#", "replaced", "is now", "recipe", ">saves, ms", ">KL alone", "certificate"),
        [
            (
                number,
                first_of(block.replaced),
                _sizes(block.now) or "–",
                block.recipe,
                ms(block.saving_ms),
                f"{block.loss_alone:.4g}",
                block.certificate,
            )
            for number, block in enumerate(result.blocks, 1)
        ],
        "replaced",
        title="Replaced",
    )
    reach = max(result.asked, result.speedup.ratio, *(plan.speedup for plan in result.rejected), 1.0)
    draw_frontier(
        [(point.speedup, point.loss) for point in result.points],
        [(point.speedup, point.loss) for point in result.drop_only],
        rejected=[(plan.speedup, plan.expected) for plan in result.rejected],
        chosen=[(result.speedup.ratio, result.expected)],
        most=1 + BEYOND * (reach - 1),
    )
    say()
    show_outputs(result.outputs)
    if result.validation is not None:
        agreement = result.validation.agreement
        agreed = "" if math.isnan(agreement) else f", the same top-1 for {agreement:.1%}"
        say(f"validation  KL {result.validation.kl:.4g}{agreed}, on the samples that chose between plans")
    if result.fits is not None:
        fits = result.fits
        say(f"fits        KL {fits.fit_loss:.4g} on samples that they saw, {fits.held_out_loss:.4g} on held-out ones")
    if result.fitted_on > result.judged_on:
        say(f"weights     fitted on all {result.fitted_on} samples; what is said here is of fits on {result.judged_on}")
    show_boxes(result.boxes)
    show_metric(result.metric)
    say(f"plans       {len(result.rejected)} others were measured and rejected")
    say(f"blocks      {result.timed_blocks} timed, {result.reused_blocks} read from the profile")
    say("time        " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items()))


def _sizes(labels: Sequence[str]) -> str:
    """Of several the first and the last one."""
    shown = [" ".join(label.split()) for label in labels]
    return ", ".join(shown) if len(shown) < 3 else f"{shown[0]} … {shown[-1]}"
