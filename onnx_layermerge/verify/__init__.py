"""Two models + data → measured speed-up, drift, and whether the gate holds."""

from onnx_layermerge.verify._gate import Gate, Verdict, judge
from onnx_layermerge.verify._quality import outputs_of, quality
from onnx_layermerge.verify._sizes import check_sizes
from onnx_layermerge.verify._speed import measured_speedup, structure_key
from onnx_layermerge.verify._timing import Timing, kind_of_time, timing
from onnx_layermerge.verify._trtexec import End, trtexec_command

__all__ = [
    "End",
    "Gate",
    "Timing",
    "Verdict",
    "check_sizes",
    "judge",
    "kind_of_time",
    "measured_speedup",
    "outputs_of",
    "quality",
    "structure_key",
    "timing",
    "trtexec_command",
]
