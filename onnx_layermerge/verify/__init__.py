"""Two models + data → measured speed-up, drift, and whether the gate holds."""

from onnx_layermerge.verify._gate import Gate, Verdict, judge
from onnx_layermerge.verify._quality import outputs_of, quality
from onnx_layermerge.verify._sizes import check_sizes
from onnx_layermerge.verify._speed import measured_speedup, structure_key

__all__ = ["Gate", "Verdict", "check_sizes", "judge", "measured_speedup", "outputs_of", "quality", "structure_key"]
