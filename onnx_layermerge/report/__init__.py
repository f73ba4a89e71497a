"""A run as data: frozen dataclasses, and the same as JSON."""

from onnx_layermerge.report._report import Block, Rejected, Report, as_json, block_of

__all__ = ["Block", "Rejected", "Report", "as_json", "block_of"]
