"""Activations before and after a region → the convolution that maps one to the other best.

The room answers one question: which W, b minimize  Σ_r ‖W p_r + b − t_r‖² + λ‖W‖²  over sampled output positions r,
where p_r is the patch of the entry that the convolution will read there when deployed (zero padding included) and
t_r what should come out.
"""

from onnx_layermerge.candidates import Job
from onnx_layermerge.fit._capture import fit_jobs, rows_for
from onnx_layermerge.fit._chain import Chain, chain_of
from onnx_layermerge.fit._eliminate import elimination_order
from onnx_layermerge.fit._job import FITTED, job_of, series_of
from onnx_layermerge.fit._patches import grid_of, patch_rows, sample_positions, value_rows
from onnx_layermerge.fit._ridge import ALPHAS, FEW_ROWS, Fit, Gram, Target, fit_conv, fit_ranks
from onnx_layermerge.fit._threads import blas_name, on_one_thread
from onnx_layermerge.fit._tune import Tuned, tune
from onnx_layermerge.fit._windows import Windows, cut_windows

__all__ = [
    "ALPHAS",
    "Chain",
    "FEW_ROWS",
    "FITTED",
    "Fit",
    "Gram",
    "Job",
    "Target",
    "Tuned",
    "Windows",
    "blas_name",
    "chain_of",
    "cut_windows",
    "elimination_order",
    "fit_conv",
    "fit_jobs",
    "fit_ranks",
    "grid_of",
    "job_of",
    "on_one_thread",
    "patch_rows",
    "rows_for",
    "sample_positions",
    "series_of",
    "tune",
    "value_rows",
]
