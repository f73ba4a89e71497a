"""Compressed graph → the file's model: the input's names, types and opset, and where it came from."""

from onnx_layermerge.rewrite._finish import NOTES, finish

__all__ = ["NOTES", "finish"]
