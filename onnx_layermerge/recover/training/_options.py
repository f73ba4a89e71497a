"""What a training is asked for, and what it gives back; known without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_layermerge.data import Layout
from onnx_layermerge.importance import Divergence

__all__ = ["Answers", "Check", "Options", "Progress", "Trained"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Options:
    """
    loss: None is divergence from the original's outputs; a function of (outputs, the original's outputs, labels or
        None), dicts of tensors by output, returns a tensor of one number that is to become small.
    feature_weight: of the features' relative squared error beside the loss; ``taps`` name the features, values that
        both models have.
    labels: name under which class numbers (int64 [N]) stand beside the samples' inputs; None: there are none.
    label_weight: share of the labels' cross-entropy in the loss, 0 to 1.
    steps, minutes: where both are given the schedule goes by ``steps`` and ``minutes`` ends it in any case; one is.
    rate: largest step, relative to the size of a channel's weights; None tries a few.
    batch: samples of a step, over all processes; ``own_batch`` is the model's where it is fixed: then ``batch`` is a
        multiple of it.
    device: "cpu", "cuda" or "cuda:N".  precision: "fp32" or "bf16" (autocast; weights stay float32).
    ema: share of the mean of earlier steps' weights that each step keeps; 0 judges each step's own.
    clip: largest norm of the gradient.
    checks: looks at held-out samples on the way, spread evenly; the last is at the end.
    checkpoint: a file that is written every ``checkpoint_minutes`` and when the process is asked to end; with
        ``resume`` the training goes on from it where it is there.
    fingerprint: what a checkpoint has to agree with to be gone on from, by name.
    """

    loss: Callable[[Mapping[str, Any], Mapping[str, Any], Any], Any] | None = None
    feature_weight: float = 0.0
    taps: tuple[str, ...] = ()
    labels: str | None = None
    label_weight: float = 0.5
    steps: int | None = None
    minutes: float | None = None
    rate: float | None = None
    batch: int = 32
    own_batch: int | None = None
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    ema: float = 0.99
    augment: bool = True
    clip: float = 1.0
    checks: int = 20
    checkpoint: Path | None = None
    checkpoint_minutes: float = 5.0
    resume: bool = False
    fingerprint: Mapping[str, str] | None = None


@dataclass(eq=False)
class Answers:
    """The original's to the held-out samples, batch by batch, and how they are laid out: what the first training leaves
    to others of the same original, held-out samples, outputs and ``own_batch``; None before it."""

    parts: list[dict[str, np.ndarray]] | None = None
    layout: Layout | None = None


@dataclass(frozen=True)
class Check:
    """A look at the held-out samples: behind ``step`` steps, with the mean ``loss`` of the steps since the last one and
    the held-out ``value`` of the same loss without its features; nats or relative error for the default loss."""

    step: int
    loss: float
    value: float


@dataclass(frozen=True, eq=False)
class Trained:
    """``weights`` by initializer, those that moved alone; none where no step was better than the start.

    ``value`` and ``divergence`` are of held-out samples, at the start and with the weights that are given back.
    ``judged`` counts the held-out samples that were looked at.
    ``ended``: "done", "time", "early" (far worse than the start for long), or "nan" (then ``at`` is the step).
    ``seconds`` and ``samples_per_s`` are of the training, rates that were tried included in the former.
    """

    weights: Mapping[str, np.ndarray]
    steps: int
    rate: float
    start_value: float
    value: float
    start_divergence: Divergence
    divergence: Divergence
    checks: tuple[Check, ...]
    ended: str
    at: int
    seconds: float
    samples_per_s: float
    taps: tuple[str, ...]
    resumed_at: int
    judged: int
    process: int = 0

    @property
    def improved(self) -> bool:
        """Whether held-out samples came out better than at the start."""
        return bool(self.weights)
