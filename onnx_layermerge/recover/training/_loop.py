"""The training: steps, looks at held-out samples, checkpoints; the best weights by those looks are what comes out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import onnx_ir as ir
import torch

from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import DataError, ModelError, UsageError
from onnx_layermerge.importance import Divergence
from onnx_layermerge.recover.training._batches import Batches
from onnx_layermerge.recover.training._call import Tensor
from onnx_layermerge.recover.training._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from onnx_layermerge.recover.training._clock import Clock
from onnx_layermerge.recover.training._held_out import HeldOut, to_device
from onnx_layermerge.recover.training._interrupts import Interrupts
from onnx_layermerge.recover.training._looks import Looks
from onnx_layermerge.recover.training._module import OnnxModule
from onnx_layermerge.recover.training._options import Answers, Options, Progress, Trained
from onnx_layermerge.recover.training._parts import part_size
from onnx_layermerge.recover.training._processes import Processes, device_of, joined
from onnx_layermerge.recover.training._rate import RATES, fastest, rate_of_step
from onnx_layermerge.recover.training._steps import Stepper

__all__ = ["run"]

# Steps at least and at most, and share of the whole, that each rate is tried for; a loss so many times the first ends a
# try.
TRIED, TRIED_SHARE, SPOILT = (5, 40), 0.03, 4.0


def run(
    student: ir.Model,
    teacher: ir.Model,
    data: Calibration,
    held_out: Calibration,
    options: Options,
    progress: Progress = lambda done, total, what: None,
    answers: Answers | None = None,
) -> Trained:
    """Train ``student``'s weights towards what ``teacher`` answers; neither model is changed.

    Raises:
        ModelError: an operator of one of them is not known, or nothing of the student can be learned.
        DataError: the data do not fit, or the loss is not finite before the first step.
        UsageError, DeviceError: see ``device_of``; the loss of the user's own failed, or has no gradient.
        KeyboardInterrupt: asked to end; the checkpoint is written.
    """
    with joined(device_of(options.device)) as processes, Interrupts(options.checkpoint is not None) as interrupts:
        training = _Training(student, teacher, data, held_out, options, processes, interrupts, progress, answers)
        try:
            return training.whole()
        finally:
            training.batches.close()


class _Training:
    def __init__(
        self,
        student: ir.Model,
        teacher: ir.Model,
        data: Calibration,
        held_out: Calibration,
        options: Options,
        processes: Processes,
        interrupts: Interrupts,
        progress: Progress,
        answers: Answers | None,
    ) -> None:
        self.clock = Clock(options)
        self.options, self.processes, self.interrupts, self.progress = options, processes, interrupts, progress
        device = processes.device
        self.student = OnnxModule(student).to(device)
        self.teacher = OnnxModule(teacher).to(device).requires_grad_(False)
        if not self.student.weights:
            raise ModelError("The compressed model has no weights that could be trained; give one with convolutions.")
        self.batches = Batches(
            data,
            options.batch,
            options.seed,
            augment=options.augment,
            labels=options.labels,
            rank=processes.rank,
            count=processes.count,
        )
        outputs = [name for name in self.teacher.output_names if name in self.student.output_names]
        self.held_out = HeldOut(
            self.teacher, teacher, held_out, options, device, self.batches.lock, outputs, answers or Answers()
        )
        if self.held_out.labelled:
            self.held_out.check_labels(data, self.held_out.classes())
        self.objective = self.held_out.objective
        self.taps: tuple[str, ...] = ()
        if options.feature_weight and options.taps:
            self.taps = self.held_out.tap(self.teacher, self.student, options.taps)
        self.stepper = Stepper(self.student.weights, ema=options.ema, clip=options.clip)
        self.part = part_size(self.student, held_out, options, device)
        self.step, self.resumed_at = 0, 0
        self.learnable = options.loss is None  # one of the user's own may have no gradient

    def whole(self) -> Trained:
        start_value, start_divergence = self._judged(None)
        if not math.isfinite(start_value):
            raise DataError(
                "The loss on held-out samples is NaN or infinite before the first step: check the samples, the "
                "compressed model's outputs and --loss."
            )
        self.looks = looks = Looks(start_value, own_loss=self.options.loss is not None)
        saved = self._saved()
        if saved is not None:
            self._restore(saved)
        else:
            self.rate = fastest(start_value, self._tried) if self.options.rate is None else self.options.rate
        ended = self._steps()
        value, apart = (start_value, start_divergence) if not looks.best else looks.said or self._judged(looks.best)
        return Trained(
            weights=self.stepper.arrays(looks.best) if looks.best else {},
            steps=self.step,
            rate=self.rate,
            start_value=start_value,
            value=value,
            start_divergence=start_divergence,
            divergence=apart,
            checks=tuple(looks.checks),
            ended=ended,
            at=self.step,
            seconds=self.clock.elapsed_s,
            samples_per_s=self.clock.samples_per_s,
            taps=self.taps,
            resumed_at=self.resumed_at,
            judged=self.held_out.samples,
            process=self.processes.rank,
        )

    # --- steps ---------------------------------------------------------------------------------------------

    def _steps(self) -> str:
        """Until the end, one way or another; which it was."""
        saved_at = time.monotonic()
        while True:
            share, asked = self.processes.said([self.clock.share(self.step), float(self.interrupts.asked)])
            if asked:
                self._save()
                raise KeyboardInterrupt
            if share >= 1:
                break
            began = time.monotonic()
            loss = self._one(self.step, self.rate * rate_of_step(share, self.options.steps))
            self.step += 1
            if not math.isfinite(loss):
                return "nan"
            self.looks.losses.append(loss)
            self.clock.stepped(time.monotonic() - began)
            self.clock.tell(self.progress, self.step, loss)
            if self._check_due(share):
                self._check()
                if self.looks.hopeless():
                    return "early"
            if time.monotonic() - saved_at > 60 * self.options.checkpoint_minutes:
                self._save()
                saved_at = time.monotonic()
        if self.looks.losses:
            self._check()
        by_steps = self.options.steps is not None and self.step >= self.options.steps
        return "done" if by_steps or self.options.steps is None else "time"

    def _one(self, step: int, rate: float) -> float:
        """One step at ``rate``; its loss, mean over the samples of all processes.  NaN where that or a gradient is not
        finite: then none was made."""
        arrays = self.batches.at(step)
        count = len(next(iter(arrays.values())))
        size = self.part or count
        loss = torch.zeros((), device=self.processes.device)
        self.stepper.clear()
        for start in range(0, count, size):
            part = {name: values[start : start + size] for name, values in arrays.items()}
            loss += self._backward(part)
        # Of all processes: in the part of one there may be nothing to learn from.
        learnable = torch.tensor([float(self.learnable)], device=self.processes.device)
        (*gradients, learnable), mean = self.processes.summed([*self.stepper.gradients(), learnable], loss)
        if not learnable:
            raise UsageError(
                "--loss has no gradient, so nothing can be learned by it: compute it from the outputs in torch alone."
            )
        self.learnable = True
        return mean if math.isfinite(mean) and self.stepper.step(gradients, rate) else math.nan

    def _backward(self, part: Mapping[str, np.ndarray]) -> Tensor:
        """Gradients of a part of the batch, added; its part of the mean loss."""
        feeds = to_device(part, self.processes.device)
        with torch.no_grad():
            wanted = self.teacher(feeds, self.taps)
        with self._types():
            got = self.student(feeds, self.taps)
        labels, count = feeds.get(self.options.labels or ""), len(next(iter(part.values())))
        loss, features = self.objective.training(got, wanted, labels, count)
        self.learnable = self.learnable or loss.requires_grad
        loss = (loss if features is None else loss + features) * (count / self.options.batch)
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    def _types(self) -> AbstractContextManager[object]:
        if self.options.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.processes.device.type, dtype=torch.bfloat16)

    def _tried(self, rate: float) -> float:
        """The loss of held-out samples behind a short training from the start; then all is as before.

        It has a cycle of its own: at a high rate the steps' noise hides what they have reached.
        """
        self.progress(RATES.index(rate), len(RATES), f"trying rate {rate:g}")
        least, most = TRIED
        steps, minutes = self.options.steps, self.options.minutes
        steps = most if steps is None else max(least, min(most, round(TRIED_SHARE * steps)))
        began, first = time.monotonic(), 0.0
        for step in range(steps):
            spent = 0.0 if minutes is None else (time.monotonic() - began) / (TRIED_SHARE * 60 * minutes)
            # All processes have to leave the loop at the same step.
            share, asked = self.processes.said([max(step / steps, spent), float(self.interrupts.asked)])
            if asked:
                raise KeyboardInterrupt
            if share >= 1:
                break
            loss = self._one(step, rate * rate_of_step(share, steps))
            first = loss if step == 0 else first
            if not loss <= SPOILT * abs(first):
                break
        value = self._judged(self.stepper.moved)[0]
        self.stepper.reset()
        if self.processes.said([self.interrupts.asked])[0]:
            raise KeyboardInterrupt
        return value if math.isfinite(value) else math.inf

    # --- looks ---------------------------------------------------------------------------------------------

    def _judged(self, moved: list[Tensor] | None) -> tuple[float, Divergence]:
        """The weights at d = ``moved`` (None: the start) on held-out samples; the first process looks."""
        self.stepper.show(moved)
        told = [0.0] * 4
        if self.processes.rank == 0:
            value, apart = self.held_out.judge(self.student)
            told = [value, apart.kl, apart.relative, apart.agreement]
        value, *rest = self.processes.said(told)
        self.stepper.show(self.stepper.moved)
        return value, Divergence(*rest)

    def _check_due(self, before: float) -> bool:
        """Whether the step that is done led over one of the marks."""
        if self.options.steps is not None:
            share = self.step / self.options.steps
        else:
            (share,) = self.processes.said([self.clock.share(self.step)])
        looks = self.options.checks
        return math.floor(min(share, 1 - 1e-9) * looks) > math.floor(before * looks)

    def _check(self) -> None:
        judged = self.stepper.judged()
        self.looks.add(self.step, self._judged(judged), judged)

    # --- checkpoints ---------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.options.checkpoint is None or self.processes.rank:
            return
        save_checkpoint(
            self.options.checkpoint,
            Checkpoint(
                step=self.step,
                rate=self.rate,
                elapsed_s=self.clock.elapsed_s,
                best_value=self.looks.best_value,
                checks=tuple(self.looks.checks),
                losses=tuple(self.looks.losses),
                fingerprint=self.options.fingerprint or {},
                tensors={**self.stepper.state(), "best": self.looks.best},
            ),
        )

    def _saved(self) -> Checkpoint | None:
        path = self.options.checkpoint
        if not self.options.resume or path is None or not path.exists():
            return None
        return load_checkpoint(path, self.options.fingerprint or {})

    def _restore(self, saved: Checkpoint) -> None:
        held = {kind: saved.tensors.get(kind, []) for kind in ("moved", "first", "second", "ema", "best")}
        self.stepper.restore(held, saved.step)
        self.looks.restore(saved, [tensor.to(self.processes.device) for tensor in held["best"]])
        self.step, self.rate, self.resumed_at = saved.step, saved.rate, saved.step
        self.learnable = self.learnable or saved.step > 0
        self.clock.before_s = saved.elapsed_s
