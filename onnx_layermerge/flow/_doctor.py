"""What is installed and usable on this machine, and the one-line reason where something is not."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from onnx_layermerge.errors import OlmError
from onnx_layermerge.latency import LatencyTable, available_backends, default_path, gpu_clocks

__all__ = ["Check", "doctor"]

_PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "scipy")
# Package → the extra that installs it, and what it is for.
_EXTRAS = {"pillow": ("images", "folders of images as --calib")}


@dataclass(frozen=True)
class Check:
    """One line of the report: what, whether it works, and the version, device or reason."""

    name: str
    usable: bool
    detail: str


def doctor() -> tuple[Check, ...]:
    """Python, packages, extras, backends, GPU clocks and the latency table; never raises for what is only missing."""
    checks = [Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for package in _PACKAGES:
        try:
            checks.append(Check(package, True, version(package)))
        except PackageNotFoundError:
            checks.append(Check(package, False, f"not installed: pip install {package}"))
    for package, (extra, purpose) in _EXTRAS.items():
        try:
            checks.append(Check(package, True, version(package)))
        except PackageNotFoundError:
            reason = f"not installed, needed for {purpose}: pip install 'onnx-layermerge[{extra}]'"
            checks.append(Check(package, False, reason))
    checks += [Check(f"backend {s.name}", s.usable, s.detail) for s in available_backends()]
    clocks = gpu_clocks()
    checks.append(Check(clocks.name, clocks.usable, clocks.detail))
    try:
        path = default_path()
        if path.exists():
            with LatencyTable.open() as table:
                held = ", ".join(f"{len(table.entries(d))} blocks for {d.device}" for d in table.devices())
            checks.append(Check("latency table", True, f"{path}: {held or 'empty'}"))
        else:
            checks.append(Check("latency table", True, f"{path}: none yet, made by the first profile"))
    except OlmError as error:
        checks.append(Check("latency table", False, str(error)))
    return tuple(checks)
