"""Network + plan → compressed model with weights that fit what really arrives, block after block."""

from onnx_layermerge.recover._build import Built, assemble, build
from onnx_layermerge.recover._refit import refit
from onnx_layermerge.recover._tune import tuned

__all__ = ["Built", "assemble", "build", "refit", "tuned"]
