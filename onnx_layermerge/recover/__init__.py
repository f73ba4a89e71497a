"""Network + plan → compressed model with weights that fit what really arrives, block after block."""

from onnx_layermerge.recover._build import Built, assemble, build
from onnx_layermerge.recover._refit import refit
from onnx_layermerge.recover._tune import tuned
from onnx_layermerge.recover._unmerged import (
    Unmerged,
    merged_weights,
    moved_merges,
    normed_weights,
    unmerged,
    with_norms,
)

__all__ = [
    "Built",
    "Unmerged",
    "assemble",
    "build",
    "merged_weights",
    "moved_merges",
    "normed_weights",
    "refit",
    "tuned",
    "unmerged",
    "with_norms",
]
