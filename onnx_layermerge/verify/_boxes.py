"""Detections of two models held against each other, through a decoder that the user brings.

    def boxes(outputs):                                # script.py:boxes
        return [(xyxy[n, 4], scores[n], classes[n]), …]    # one for each image, after its own threshold and NMS

A box of the original counts as matched when the compressed model has one of the same class that overlaps it by
intersection over union ≥ 0.5, and each box is matched at most once: pairs are taken by falling overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_layermerge.errors import UsageError
from onnx_layermerge.verify._script import UserFunction, user_function

__all__ = ["Boxes", "Decoder", "decoder_of"]

LEAST_OVERLAP = 0.5
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Boxes:
    """Boxes of both models over all images, and how many of them are matched.

    ``found`` is the share of the original's that are matched, ``right`` that of the compressed model's, ``f1`` their
    harmonic mean; ``score_change`` is the mean |difference| of a matched pair's scores.  None where there is no box
    to take a share of.
    """

    original: int
    compressed: int
    matched: int
    found: float | None
    right: float | None
    f1: float | None
    score_change: float | None


@dataclass(frozen=True, eq=False)
class Decoder:
    """Outputs of a model → detections, by the user's function."""

    function: UserFunction

    def compare(self, original: Outputs, compressed: Outputs) -> Boxes:
        """Match the boxes of both models' outputs on the same samples.

        Raises:
            UsageError: the decoder fails, or returns no such detections.
        """
        first = self._decoded(original)
        second = self._decoded(compressed)
        if len(first) != len(second):
            raise UsageError(
                f"{self.function.option} {self.function.source} returned {len(first)} images of the original and"
                f" {len(second)} of the compressed model; return one entry for each image."
            )
        counts = sum(len(boxes) for boxes, _, _ in first), sum(len(boxes) for boxes, _, _ in second)
        changes = [change for one, other in zip(first, second, strict=True) for change in _matched(one, other)]
        found, right = (len(changes) / count if count else None for count in counts)
        return Boxes(
            *counts,
            len(changes),
            found,
            right,
            2 * len(changes) / sum(counts) if sum(counts) else None,
            float(np.mean(changes)) if changes else None,
        )

    def check(self, outputs: Outputs) -> None:
        """Decode some outputs of the original, to see a mistake before anything takes long; raises UsageError."""
        self._decoded(outputs)

    def _decoded(self, outputs: Outputs) -> list[Detections]:
        # Decoders often work in place, and these arrays are judged elsewhere, too.
        images = self.function({name: values.copy() for name, values in outputs.items()})
        if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
            raise UsageError(
                f"{self.function.option} {self.function.source} returned a {type(images).__name__}; return a list with"
                " (boxes, scores, classes) for each image."
            )
        return [self._checked(image, number) for number, image in enumerate(images)]

    def _checked(self, image: Any, number: int) -> Detections:
        try:
            boxes, scores, classes = (np.asarray(part) for part in image)
            boxes, scores, classes = boxes.astype(np.float64), scores.astype(np.float64).ravel(), classes.ravel()
        except (TypeError, ValueError):
            raise self._wrong(number) from None
        if boxes.size == 0:  # an empty list has no second axis
            boxes = boxes.reshape(0, 4)
        fits = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) == len(scores) == len(classes)
        if not fits or not np.isfinite(boxes).all() or not np.isfinite(scores).all():
            raise self._wrong(number)
        return boxes, scores, classes

    def _wrong(self, number: int) -> UsageError:
        return UsageError(
            f"{self.function.option} {self.function.source} returned no finite boxes [n, 4] with finite scores [n] and"
            f" classes [n] for image {number}; return these three arrays for each image."
        )


def decoder_of(source: str | Callable[[dict[str, np.ndarray]], Any]) -> Decoder:
    """Load ``source`` (``script.py:function`` or a callable); raises UsageError where there is none."""
    return Decoder(user_function(source, "--decoder"))


def _matched(one: Detections, other: Detections) -> list[float]:
    """|score difference| of each matched pair of one image."""
    overlaps = np.where(one[2][:, None] == other[2][None], _overlaps(one[0], other[0]), 0.0)
    changes: list[float] = []
    left, right = np.nonzero(overlaps >= LEAST_OVERLAP)
    free_left, free_right = np.ones(len(one[0]), bool), np.ones(len(other[0]), bool)
    for place in np.argsort(-overlaps[left, right], kind="stable"):
        i, j = left[place], right[place]
        if free_left[i] and free_right[j]:
            free_left[i] = free_right[j] = False
            changes.append(abs(float(one[1][i] - other[1][j])))
    return changes


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of [n, 4] and [m, 4], as x1, y1, x2, y2 → [n, m]; 0 for boxes without an area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other))
    total = np.add.outer(*areas) - shared
    result: np.ndarray = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return result
