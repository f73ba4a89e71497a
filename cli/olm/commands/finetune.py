"""``olm finetune``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from olm.options import MODEL, data_options, norms_option, output_options, seed_option, shapes_option
from olm.progress import showing
from olm.screen import print_json, say, warn
from olm.values import Finite

if TYPE_CHECKING:
    from onnx_layermerge import FinetuneReport
    from onnx_layermerge.importance import Divergence

__all__ = ["finetune"]

_ENDS = {
    "done": "to the end",
    "time": "until the time was up",
    "early": "until it was hopeless",
    "nan": "until the loss or its gradient was NaN",
}


@click.command(short_help="Train a compressed model's weights towards the original's answers.")
@click.argument("input", metavar="IN.onnx", type=MODEL)
@click.argument("compressed", metavar="COMPRESSED.onnx", type=MODEL)
@click.argument("output", metavar="OUT.onnx", type=MODEL)
@data_options(samples=4096, option="--data")
@click.option("--val", metavar="SOURCE", help="Samples that choose the best weights.  [default: a quarter of --data]")
@click.option("--minutes", type=Finite(0), metavar="M", help="End by then.  [default: 10, unless --steps is given]")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Steps of the schedule.")
@click.option(
    "--lr", type=Finite(0), metavar="RATE",
    help="Largest step, relative to the size of a channel's weights.  [default: the best of a few, tried shortly]",
)
@click.option(
    "--batch", type=click.IntRange(1), default=32, show_default=True, metavar="N",
    help="Samples of a step, over all processes.",
)
@click.option(
    "--loss", default="kl", show_default=True, metavar="kl|SCRIPT.py:FUNCTION",
    help="kl: divergence from the original's outputs (squared error for what is no class score); or a function of "
    "(outputs, the original's outputs, labels) that returns a torch tensor of one number.",
)
@click.option(
    "--feature-weight", type=Finite(0), default=0.0, show_default=True, metavar="W",
    help="Weight of the squared error of values at the ends of blocks.",
)
@click.option(
    "--labels", metavar="NAME", help="Array in --data that holds class numbers; their cross-entropy is mixed in."
)
@click.option(
    "--label-weight", type=Finite(0, 1), default=0.5, show_default=True, metavar="SHARE",
    help="Share of the labels in the loss, 0 to 1.",
)
@click.option(
    "--ema", type=Finite(0, 1), default=0.99, show_default=True, metavar="SHARE",
    help="Judge a moving mean of the weights that keeps this share at each step; 0: the weights themselves.",
)
@click.option(
    "--augment/--no-augment", default=True, show_default=True, help="Vary pictures: mirror images, small shifts."
)
@click.option(
    "--unmerged", is_flag=True,
    help="Train merged convolutions as the ones that they are made of, and merge them again at the end.",
)
@norms_option
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda or cuda:N.")
@click.option(
    "--precision", type=click.Choice(("fp32", "bf16")), default="fp32", show_default=True,
    help="Types of products and convolutions while training; the file keeps its own.",
)
@click.option(
    "--checkpoint", type=click.Path(), metavar="FILE.npz",
    help="Keep the state there, every few minutes and when asked to end (Ctrl-C, SIGTERM).",
)
@click.option(
    "--checkpoint-minutes", type=Finite(0), default=5.0, show_default=True, metavar="M", help="How often that is."
)
@click.option("--resume", is_flag=True, help="Go on from --checkpoint, where it is there.")
@shapes_option
@seed_option
@output_options
def finetune(input: str, compressed: str, output: str, as_json: bool, quiet: bool, **words: Any) -> None:  # fmt: skip
    """Train the weights of a compressed model towards what the original answers, without labels.

    The graph stays as it is, and so does its speed.  Needs PyTorch: pip install "onnx-layermerge[torch]".  Several
    processes: torchrun --nproc-per-node N -m olm finetune …
    """
    import onnx_layermerge

    with showing(quiet) as progress:
        result = onnx_layermerge.finetune(input, compressed, output, progress=progress, **words)
    if result.process:
        return
    warn(result.warnings)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: FinetuneReport) -> None:
    gained = "closer to" if result.improved else "as far as before from"
    say(f"{result.output}: {gained} {result.input}, on {result.held_out} held-out samples", "bold green")
    say(f"loss        {result.start_loss:.4g} -> {result.end_loss:.4g}, by {result.loss}")
    say(f"validation  {_apart(result.start)} -> {_apart(result.end)}")
    ended = _ENDS[result.ended]
    again = f", on from step {result.resumed_at}" if result.resumed_at else ""
    say(
        f"training    {result.steps} steps of {result.batch} {ended}{again}, rate {result.rate:.3g}, on "
        f"{result.device}, {result.samples} samples at {result.samples_per_s:.3g} a second, {result.seconds:.1f} s"
    )
    if result.unmerged or result.norms:
        norms = f", with {result.norms} norms" if result.norms else ""
        say(f"unmerged    {len(result.unmerged)} blocks, merged again at the end{norms}")
    if result.taps:
        say(f"features    {len(result.taps)} values at the ends of blocks")
    say(f"weights     {len(result.changed)} changed")


def _apart(found: Divergence) -> str:
    agreement = "" if math.isnan(found.agreement) else f", the same top-1 for {found.agreement:.1%}"
    return f"KL {found.kl:.4g}{agreement}"
