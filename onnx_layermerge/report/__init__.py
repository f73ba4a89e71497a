"""A run as data: frozen dataclasses, and the same as JSON; a network as a picture."""

from onnx_layermerge.report._drawing import Bracket, draw
from onnx_layermerge.report._report import Block, Rejected, Report, as_json, block_of

__all__ = ["Block", "Bracket", "Rejected", "Report", "as_json", "block_of", "draw"]
