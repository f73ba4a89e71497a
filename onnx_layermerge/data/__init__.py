"""Calibration data: samples for a model's inputs from arrays, image folders, scripts or Python objects.

``load_calibration`` opens any of the sources and returns a ``Calibration``, which gives batches, disjoint
parts for fitting and validating, and a digest for provenance. Which shapes and dtypes fit is written in
``_specs``, how images become samples in ``_options`` and ``_images``, how the files are laid out in
``_files``, what a program may yield in ``_streams``, what stands in for samples of another source in ``_mixed``, and
for samples at all in ``_pictures``.  What a model says about the range of its images is in ``_ranges``,
what it answers in ``_answers``, and which axis of an answer counts samples in ``_joined``.
"""

from __future__ import annotations

from onnx_layermerge.data._answers import (
    answers,
    answers_finite,
    check_finite,
    constant_outputs,
    not_finite,
    same_answer,
    same_values,
)
from onnx_layermerge.data._calibration import CACHE_BYTES, Calibration, load_calibration
from onnx_layermerge.data._files import open_array
from onnx_layermerge.data._joined import Layout, gather, nothing_left
from onnx_layermerge.data._memory import check_fits, how_many_fit
from onnx_layermerge.data._mirrored import with_mirrored
from onnx_layermerge.data._mixed import with_mixtures
from onnx_layermerge.data._options import PRESETS, ImageOptions
from onnx_layermerge.data._pictures import SMALLEST_SIDE, Pictures, built_in_pictures
from onnx_layermerge.data._ranges import Range, infer_range, suspicious_range
from onnx_layermerge.data._specs import InputSpec

__all__ = [
    "CACHE_BYTES",
    "PRESETS",
    "SMALLEST_SIDE",
    "Calibration",
    "ImageOptions",
    "InputSpec",
    "Layout",
    "Pictures",
    "Range",
    "answers",
    "answers_finite",
    "built_in_pictures",
    "check_finite",
    "check_fits",
    "constant_outputs",
    "gather",
    "how_many_fit",
    "infer_range",
    "load_calibration",
    "not_finite",
    "nothing_left",
    "open_array",
    "same_answer",
    "same_values",
    "suspicious_range",
    "with_mirrored",
    "with_mixtures",
]
