"""Compress ONNX CNNs to a measured speed-up: profile, plan, merge, rewrite.

>>> import onnx_layermerge as olm
>>> report = olm.compress("in.onnx", "out.onnx", speedup=1.5, calib="images/")  # doctest: +SKIP
"""

from onnx_layermerge.data import ImageOptions
from onnx_layermerge.errors import (
    DataError,
    DeviceError,
    GateError,
    ModelError,
    OlmError,
    OutputError,
    PlanError,
    ProfileError,
    TargetError,
    UsageError,
)
from onnx_layermerge.flow import (
    Check,
    Difference,
    Explanation,
    FinetuneReport,
    FrontierPoint,
    Inspection,
    PlanReport,
    ProfileReport,
    compress,
    diff,
    doctor,
    explain,
    finetune,
    inspect,
    plan,
    profile,
    verify,
)
from onnx_layermerge.latency import EngineOptions
from onnx_layermerge.report import Report
from onnx_layermerge.verify import Gate, Verdict

__all__ = [
    "Check",
    "DataError",
    "DeviceError",
    "Difference",
    "EngineOptions",
    "Explanation",
    "FinetuneReport",
    "FrontierPoint",
    "Gate",
    "GateError",
    "ImageOptions",
    "Inspection",
    "ModelError",
    "OlmError",
    "OutputError",
    "PlanError",
    "PlanReport",
    "ProfileError",
    "ProfileReport",
    "Report",
    "TargetError",
    "UsageError",
    "Verdict",
    "compress",
    "diff",
    "doctor",
    "explain",
    "finetune",
    "inspect",
    "plan",
    "profile",
    "verify",
]
