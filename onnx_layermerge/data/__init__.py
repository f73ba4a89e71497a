"""Calibration data: samples for a model's inputs from arrays, image folders, scripts or Python objects.

``load_calibration`` opens any of the sources and returns a ``Calibration``, which gives batches, disjoint
parts for fitting and validating, and a digest for provenance. Which shapes and dtypes fit is written in
``_specs``, how images become samples in ``_options`` and ``_images``, how the files are laid out in
``_files``, what a program may yield in ``_streams``, what stands in for samples of another source in ``_mixed``.
"""

from __future__ import annotations

from onnx_layermerge.data._calibration import CACHE_BYTES, Calibration, load_calibration
from onnx_layermerge.data._mixed import with_mixtures
from onnx_layermerge.data._options import PRESETS, ImageOptions
from onnx_layermerge.data._specs import InputSpec

__all__ = [
    "CACHE_BYTES",
    "PRESETS",
    "Calibration",
    "ImageOptions",
    "InputSpec",
    "load_calibration",
    "with_mixtures",
]
