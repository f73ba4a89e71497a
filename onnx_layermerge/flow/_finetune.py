"""A compressed model's weights, trained on towards what the original answers; the graph stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_layermerge.data import Calibration, ImageOptions
from onnx_layermerge.errors import DataError, ModelError, UsageError
from onnx_layermerge.flow._prepare import Prepared, Progress, data_batch, quiet
from onnx_layermerge.flow._subject import Subject, lost_by_merging, subject_of
from onnx_layermerge.flow._training_batch import own_batch, whole_batch
from onnx_layermerge.flow._training_files import training_files
from onnx_layermerge.flow._training_notes import NO_GAIN, NOTE, fingerprint, fitted_before, note, said
from onnx_layermerge.flow._training_samples import training_samples
from onnx_layermerge.flow._training_taps import block_ends
from onnx_layermerge.graph import bind_shapes, load, network_of, read, write
from onnx_layermerge.importance import Divergence
from onnx_layermerge.recover.training import Check, Options, Trained, require_torch, train
from onnx_layermerge.verify import user_function

__all__ = ["FinetuneReport", "finetune"]

DEFAULT_MINUTES = 10.0


@dataclass(frozen=True)
class FinetuneReport:
    """What a fine-tuning did; all but ``seconds`` and ``samples_per_s`` of samples that no step has seen.

    ``start`` and ``end`` say how far the outputs lie from the original's with the weights of ``compressed`` and with
    those in ``output``; ``start_loss`` and ``end_loss`` are the loss of the training there, without features.
    ``held_out`` counts the samples that were judged by, less what fills no batch where the model's is fixed.
    ``ended`` is "done", "time" (before the steps were done), "early" or "nan".  ``rate`` is the largest step, relative
    to a channel's weights.  ``taps`` are the values that were compared as features.  ``unmerged`` names the blocks that
    were trained before they were merged, ``norms`` counts the norms that stood behind convolutions meanwhile; then
    ``end`` is of the model behind the merge.  ``process`` is 0 in the process that wrote the file.
    """

    input: str
    compressed: str
    output: str
    loss: str
    device: str
    precision: str
    steps: int
    resumed_at: int
    rate: float
    batch: int
    samples: int
    held_out: int
    start: Divergence
    end: Divergence
    start_loss: float
    end_loss: float
    improved: bool
    changed: tuple[str, ...]
    taps: tuple[str, ...]
    checks: tuple[Check, ...]
    ended: str
    seconds: float
    samples_per_s: float
    seed: int
    warnings: tuple[str, ...]
    unmerged: tuple[str, ...] = ()
    norms: int = 0
    process: int = 0


def finetune(
    input: str | Path,
    compressed: str | Path,
    output: str | Path,
    *,
    data: object,
    val: object = None,
    images: ImageOptions | None = None,
    samples: int = 4096,
    labels: str | None = None,
    label_weight: float = 0.5,
    loss: str | Callable[..., Any] = "kl",
    feature_weight: float = 0.0,
    minutes: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    batch: int = 32,
    ema: float = 0.99,
    augment: bool = True,
    unmerged: bool = False,
    norms: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> FinetuneReport:
    """Write ``compressed`` with weights that bring its outputs closer to those of ``input``.

    The graph is that of ``compressed``, so ``output`` is as fast.  Nothing needs labels: what is right is what
    ``input`` answers.  Started by ``torchrun``, all processes share the batch, and the first one writes.

    Args:
        data: samples as for ``compress``.
        val: samples that decide which weights are best; None holds back a quarter of ``data``.
        samples: at most this many of each source are used.
        labels: the array in ``data`` (and ``val``) that holds class numbers, whose cross-entropy is mixed in with
            ``label_weight`` (0 to 1).
        loss: "kl": KL divergence for class scores, squared error relative to the spread for other floats; else
            ``script.py:function`` or a callable, which gets (outputs, the original's outputs, labels or None), dicts of
            torch tensors, and returns a tensor of one number that is to become small.
        feature_weight: of the relative squared error of values inside that both models have at the ends of blocks.
        minutes: the training ends by then; where ``steps`` are not given the schedule goes by it (10).
        steps: the schedule's.
        lr: the largest step relative to the size of a channel's weights; None tries a few for a few steps.
        batch: samples of a step, over all processes; for a model of a fixed batch the next lower multiple of that.
        ema: share of the earlier steps' mean that each step keeps in the weights that are judged; 0 turns it off.
        augment: vary pictures (mirror images, small shifts).
        unmerged: train the plan's merges as the convolutions that they are made of, with the original's weights, and
            merge them behind the training; ``compressed`` has to be a file of ``compress``, of this ``input``.
        norms: with ``unmerged``: a BatchNormalization behind every convolution that has one in ``input`` (behind all
            with a bias where none has), with the mean and variance of ``data`` there, folded in again at the end.
        device: "cpu", "cuda" (in several processes: each its own) or "cuda:N".
        precision: "fp32", or "bf16" for products and convolutions while training; the file keeps its types.
        checkpoint: a new file that the state is written to every ``checkpoint_minutes`` and when the process is asked
            to end (SIGTERM, Ctrl-C); with ``resume`` it is gone on from, where it is there.

    Raises:
        OlmError: with one sentence and an exit code; nothing is written then.
        KeyboardInterrupt: asked to end; only the checkpoint is written.
    """
    require_torch("olm finetune")
    _check_words(label_weight, feature_weight, minutes, steps, lr, batch, ema, precision, checkpoint_minutes, samples)
    sources = {"--data": data, "--val": val, "--loss": None if loss == "kl" else loss}
    target, kept = training_files(output, checkpoint, resume, (input, compressed), sources)
    user = None if loss == "kl" else user_function(loss, "--loss")
    if norms and not unmerged:
        raise UsageError("--norms are put back into what is trained unmerged; give --unmerged too.")

    progress("read", 0, 1, str(input))
    student = load(compressed)
    _check_interface(load(input), student, input, compressed)
    network = read(input, shapes=shapes)
    progress("read", 1, 1, str(input))
    bound = bind_shapes(network.inputs, shapes or {})
    prepared = Prepared(network, bound, {}, data_batch(network, bound), (), ())
    options_of_images = images or ImageOptions()
    fit, held_out, digest, warnings = training_samples(prepared, data, val, options_of_images, samples, labels, seed)
    warnings += fitted_before(student, digest, str(compressed))
    own = own_batch(prepared, student)
    batch = whole_batch(batch, own)
    if len(fit) < batch:
        raise DataError(
            f"{fit.source} leaves {len(fit)} samples to learn from, fewer than a batch of {batch}: add more, or lower "
            "--batch."
        )
    name = "kl" if user is None else user.source
    subject = subject_of(prepared, student, fit, (input, compressed), apart=unmerged, norms=norms)
    options = Options(
        loss=user,
        labels=labels,
        feature_weight=feature_weight,
        taps=block_ends(network, subject.model) if feature_weight else (),
        label_weight=label_weight,
        steps=steps,
        minutes=DEFAULT_MINUTES if minutes is None and steps is None else minutes,
        rate=lr,
        batch=batch,
        own_batch=own,
        seed=seed,
        device=device,
        precision=precision,
        ema=ema,
        augment=augment,
        checkpoint=kept,
        checkpoint_minutes=checkpoint_minutes,
        resume=resume,
    )
    options = replace(options, fingerprint=fingerprint(options, name, network, subject.model, digest))
    found = train(subject.model, network.model, fit, held_out, options, lambda *told: progress("train", *told))
    changed = subject.put_back(found.weights)
    student.metadata_props[NOTE] = note(found, name, digest, seed, subject)
    if found.process == 0:
        write(student, target)
    end = _apart(subject, held_out, own or prepared.batch, found)
    return FinetuneReport(
        input=str(input),
        compressed=str(compressed),
        output=str(output),
        loss=name,
        device=device,
        precision=precision,
        steps=found.steps,
        resumed_at=found.resumed_at,
        rate=found.rate,
        batch=batch,
        samples=len(fit),
        held_out=found.judged,
        start=found.start_divergence,
        end=end,
        start_loss=found.start_value,
        end_loss=found.value,
        improved=found.improved,
        changed=changed,
        taps=found.taps,
        checks=found.checks,
        ended=found.ended,
        seconds=round(found.seconds, 3),
        samples_per_s=found.samples_per_s,
        seed=seed,
        warnings=(
            *warnings,
            *subject.warnings,
            *said(found, NO_GAIN.format(compressed=compressed, output=output)),
            *lost_by_merging(found.divergence, end),
        ),
        unmerged=subject.blocks,
        norms=subject.norms,
        process=found.process,
    )


def _check_words(
    label_weight: float,
    feature_weight: float,
    minutes: float | None,
    steps: int | None,
    lr: float | None,
    batch: int,
    ema: float,
    precision: str,
    checkpoint_minutes: float,
    samples: int,
) -> None:
    """UsageError for the first value that makes no sense, whatever the models."""
    above = (
        ("--minutes", minutes), ("--steps", steps), ("--lr", lr), ("--batch", batch),
        ("--checkpoint-minutes", checkpoint_minutes), ("--samples", samples - 1),
    )  # fmt: skip
    for option, value in above:
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} is too small or no number; give a larger one.")
    if not 0 <= label_weight <= 1 or not 0 <= ema < 1:
        raise UsageError("--label-weight or --ema is out of range; give 0 to 1, and at least 0 and below 1.")
    if not 0 <= feature_weight < math.inf:
        raise UsageError("--feature-weight is negative or no number; give one of at least 0.")
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision {precision} is none to train in; choose fp32 or bf16.")


def _check_interface(first: ir.Model, second: ir.Model, input: str | Path, compressed: str | Path) -> None:
    one, other = network_of(first), network_of(second)
    if one.inputs != other.inputs or one.outputs != other.outputs:
        raise ModelError(
            f"{compressed} has other inputs or outputs than {input}; give the original and what was made of it."
        )


def _apart(subject: Subject, held_out: Calibration, batch: int, found: Trained) -> Divergence:
    """How far what is written lies from the original: what was merged behind the training is looked at once more."""
    if subject.apart is None or found.process:
        return found.divergence
    return subject.after(held_out, batch)
