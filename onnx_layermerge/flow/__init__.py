"""The rooms in order: what each command of ``olm`` does, as a function."""

from onnx_layermerge.flow._compress import compress
from onnx_layermerge.flow._doctor import Check, doctor
from onnx_layermerge.flow._inspect import Inspection, inspect
from onnx_layermerge.flow._plan import FrontierPoint, PlanReport, plan
from onnx_layermerge.flow._prepare import Progress
from onnx_layermerge.flow._profile import ProfileReport, profile
from onnx_layermerge.flow._verify import verify

__all__ = [
    "Check",
    "FrontierPoint",
    "Inspection",
    "PlanReport",
    "ProfileReport",
    "Progress",
    "compress",
    "doctor",
    "inspect",
    "plan",
    "profile",
    "verify",
]
