r"""What a step makes smaller.

For class scores the divergence of the original's from the student's, temperature 1 and no labels,

    KL(p‖q) = Σ_c p_c (log p_c − log q_c),    mean over samples;

for other floats the squared error relative to the spread that the original's values have over samples, as
``importance`` measures it.  Features are compared like other floats.  Which output is what, and how large its spread
is, comes from the original's answers to the held-out samples, once: a batch is too small to say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from onnx_layermerge.data import Layout
from onnx_layermerge.errors import DataError, UsageError
from onnx_layermerge.importance import (
    are_probabilities,
    has_classes_shape,
    is_class_scores,
    is_measured,
    spread_of,
)
from onnx_layermerge.recover.training._call import Tensor
from onnx_layermerge.recover.training._options import Options

__all__ = ["Objective", "check_labels"]

Outputs = Mapping[str, Tensor]
# Below it a probability is as good as none.
LEAST = 1e-12


class Objective:
    """The loss of a training, and of its held-out samples (the same without features).

    ``wanted`` are the original's outputs for the held-out samples, joined by ``layout``: [N, …] by name.

    Raises:
        DataError: there are labels and no output has class scores, or a label is none of its classes.
    """

    def __init__(self, options: Options, wanted: Mapping[str, np.ndarray], layout: Layout) -> None:
        self._options, self._axes = options, layout.axes
        self._features: dict[str, float] = {}
        self._kinds: dict[str, str] = {}
        self._spreads: dict[str, float] = {}
        for name, values in wanted.items():
            if not values.size or not is_measured(values):
                continue
            if is_class_scores(values):
                self._kinds[name] = "probabilities" if are_probabilities(values) else "scores"
            elif np.issubdtype(values.dtype, np.floating):
                self._kinds[name] = "amounts"
                self._spreads[name] = spread_of(values) / layout.samples
        if not self._kinds and options.loss is None:
            raise DataError(
                "No output of the model is a float of a size of its own, so there is nothing to train towards: cut the "
                "model in front of what decides, or give a --loss of your own."
            )
        # Who brings labels says that there are classes, also where values look like amounts.
        shaped = [name for name in self._kinds if has_classes_shape(wanted[name])]
        self.scores = next((name for name in shaped if self._kinds[name] != "amounts"), next(iter(shaped), None))
        self._classes = 0 if self.scores is None else int(wanted[self.scores].shape[1])

    def add_features(self, spreads: Mapping[str, float]) -> None:
        """Compare these values too; the spread of each is per sample."""
        self._features = dict(spreads)

    def classes(self) -> int:
        """How many classes the labels may name.

        Raises:
            DataError: no output has class scores.
        """
        if self.scores is None:
            raise DataError(
                "The data have labels, but no output of the model is one score for each class: leave --labels out, or "
                "give a --loss of your own."
            )
        return self._classes

    def judged(self, got: Outputs, wanted: Outputs, labels: Tensor | None, count: int) -> Tensor:
        """The loss, mean over the ``count`` samples of a batch, without features."""
        if self._options.loss is not None:
            return _one_number(self._options.loss(got, wanted, labels))
        total = torch.stack([self._of(name, got[name], wanted[name], count) for name in self._kinds]).sum()
        if labels is None or self.scores is None:
            return total
        q = self._log(self.scores, got[self.scores])
        entropy = -q.gather(1, labels.to(q.device).long()[:, None]).mean()
        share = self._options.label_weight
        return (1 - share) * total + share * entropy

    def training(
        self, got: Outputs, wanted: Outputs, labels: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor | None]:
        """The loss, and what the features add to it."""
        total = self.judged(got, wanted, labels, count)
        if not self._features or not self._options.feature_weight:
            return total, None
        errors = [
            (got[name].float() - wanted[name].float()).square().sum() / (count * spread)
            for name, spread in self._features.items()
        ]
        return total, self._options.feature_weight * torch.stack(errors).mean()

    def _of(self, name: str, got: Tensor, wanted: Tensor, count: int) -> Tensor:
        if self._kinds[name] == "amounts":
            # All values of the batch, whichever of their axes counts samples.
            return (got.float() - wanted.float()).square().sum() / (count * self._spreads[name])
        p, q = self._log(name, wanted), self._log(name, got)
        return (p.exp() * (p - q)).sum(1).mean()

    def _log(self, name: str, values: Tensor) -> Tensor:
        axis = self._axes.get(name)
        if axis:  # samples first, as where the kinds were found
            values = values.movedim(axis, 0)
        if self._kinds[name] == "probabilities":
            return values.float().clamp(min=LEAST).log()
        return torch.log_softmax(values.float(), 1)


def check_labels(labels: np.ndarray, classes: int, name: str, source: str) -> None:
    """
    Raises:
        DataError: one is none of 0 … classes − 1.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"The label {int(labels[wrong[0]])} in '{name}' of {source} is none of the model's {classes} classes, "
            f"0 to {classes - 1}: correct it ({wrong.size} such)."
        )


def _one_number(found: object) -> Tensor:
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise UsageError(f"--loss returned {what}; return a torch tensor of one number, computed from the outputs.")
    return found.reshape(())
