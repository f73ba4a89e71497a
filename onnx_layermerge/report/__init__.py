"""A run as data: frozen dataclasses, the same as JSON, as an HTML page and as Markdown; a network as a picture."""

from onnx_layermerge.report._drawing import Bracket, draw
from onnx_layermerge.report._json import decoded, from_json
from onnx_layermerge.report._markdown import render_markdown
from onnx_layermerge.report._page import render_html
from onnx_layermerge.report._report import Block, Keys, Point, Rejected, Report, as_json, block_of
from onnx_layermerge.report._rows import conv_label, sizes_label
from onnx_layermerge.report._schema import schema_of
from onnx_layermerge.report._sketch import Line, Sketch, sketch_of_input, sketch_of_output
from onnx_layermerge.report._words import RECIPES, metric_name

__all__ = [
    "RECIPES",
    "Block",
    "Bracket",
    "Keys",
    "Line",
    "Point",
    "Rejected",
    "Report",
    "Sketch",
    "as_json",
    "block_of",
    "conv_label",
    "decoded",
    "draw",
    "from_json",
    "metric_name",
    "render_html",
    "render_markdown",
    "schema_of",
    "sizes_label",
    "sketch_of_input",
    "sketch_of_output",
]
