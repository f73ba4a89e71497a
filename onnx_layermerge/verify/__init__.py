"""Two models + data → measured speed-up, drift, and whether the gate holds."""

from onnx_layermerge.verify._boxes import Boxes, Decoder, decoder_of
from onnx_layermerge.verify._drift import OutputDrift, drift, out_of_proportion
from onnx_layermerge.verify._gate import CAP_S, Gate, Verdict, judge
from onnx_layermerge.verify._metric import Metric, MetricValues, metric_of
from onnx_layermerge.verify._overfit import WORST, FitCheck, fit_check, sample_losses
from onnx_layermerge.verify._quality import Compared, compared, outputs_of, quality
from onnx_layermerge.verify._script import UserFunction, user_function
from onnx_layermerge.verify._sizes import check_sizes
from onnx_layermerge.verify._speed import measured_speedup, structure_key
from onnx_layermerge.verify._timing import Timing, kind_of_time, timing
from onnx_layermerge.verify._trtexec import End, trtexec_command

__all__ = [
    "CAP_S",
    "WORST",
    "Boxes",
    "Compared",
    "Decoder",
    "End",
    "FitCheck",
    "Gate",
    "Metric",
    "MetricValues",
    "OutputDrift",
    "Timing",
    "UserFunction",
    "Verdict",
    "check_sizes",
    "compared",
    "decoder_of",
    "drift",
    "fit_check",
    "judge",
    "kind_of_time",
    "measured_speedup",
    "metric_of",
    "out_of_proportion",
    "outputs_of",
    "quality",
    "sample_losses",
    "structure_key",
    "timing",
    "trtexec_command",
    "user_function",
]
