"""Candidates × data → how much each replacement alone would change the model's outputs."""

from onnx_layermerge.importance._direction import direction
from onnx_layermerge.importance._divergence import Divergence, divergence, is_class_scores, is_measured, spread_of
from onnx_layermerge.importance._score import Score, Scores, collect, part_runner, score

__all__ = [
    "Divergence",
    "Score",
    "Scores",
    "collect",
    "direction",
    "divergence",
    "is_class_scores",
    "is_measured",
    "part_runner",
    "score",
    "spread_of",
]
