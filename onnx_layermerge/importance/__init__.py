"""Candidates × data → how much each replacement alone would change the model's outputs."""

from onnx_layermerge.importance._class_scores import (
    are_probabilities,
    has_classes_shape,
    is_class_scores,
    is_normalised,
)
from onnx_layermerge.importance._direction import direction
from onnx_layermerge.importance._divergence import Divergence, class_scores, divergence, is_measured, spread_of
from onnx_layermerge.importance._score import Score, Scores, collect, part_runner, score

__all__ = [
    "Divergence",
    "Score",
    "Scores",
    "are_probabilities",
    "class_scores",
    "collect",
    "direction",
    "divergence",
    "has_classes_shape",
    "is_class_scores",
    "is_measured",
    "is_normalised",
    "part_runner",
    "score",
    "spread_of",
]
