"""The trtexec command that measures a model as ``olm verify`` did; for TensorRT-RTX its own ``tensorrt_rtx``.

The two tools differ between versions: from TensorRT 11 on, strong types, CUDA graphs and no transfers are the default
and their flags only warn, and layouts are named without a type.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.latency import DeviceKey, Range

__all__ = ["End", "trtexec_command"]

# At least 100 inferences and 3 s, as trtexec's own default is today, after 200 ms that do not count.
_LENGTH = ("--warmUp=200", "--iterations=100", "--duration=3")
_TOOLS = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
_QUIET = ("--noDataTransfers", "--useSpinWait")
_STORED = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "bf16": "bf16"}
_BLOCKED = {("fp32", 4): "hwc", ("fp32", 5): "dhwc", ("16", 4): "hwc8", ("16", 5): "dhwc8"}


@dataclass(frozen=True)
class End:
    """An input or output of the model with the shape it was timed at; ``dynamic`` if the file leaves a size open.

    ``floating`` is whether ``--precision`` says its type; others keep their own.  ``span`` is the range that
    the engine takes, least, usual and largest shape; None is ``shape`` alone.
    """

    name: str
    shape: tuple[int, ...]
    dynamic: bool = False
    floating: bool = True
    span: Range | None = None


def trtexec_command(
    path: str | Path, key: DeviceKey, inputs: Sequence[End], outputs: Sequence[End], *, device: str = "cuda:0"
) -> str | None:
    """One line for a shell; None for a backend that is no TensorRT.

    Args:
        path: ONNX file in the types that were timed.
        key: of the backend that timed it; its version and settings choose the flags.
    """
    tool = _TOOLS.get(key.backend)
    if tool is None:
        return None
    major = int(key.backend_version.partition(".")[0]) if key.backend_version[:1].isdigit() else 0
    settings = dict(part.split("=", 1) for part in key.settings.split() if "=" in part)
    words = [tool, f"--onnx={path}"]
    if tool == "trtexec" and major < 11:
        words.append("--stronglyTyped")
    if key.precision != "tf32":
        words.append("--noTF32")
    words += _formats(inputs, outputs, key.precision, settings.get("io", ""), typed=tool == "trtexec" and major < 11)
    open_ends = [end for end in inputs if end.dynamic]
    if open_ends:  # a file without open sizes takes none
        words.append("--shapes=" + _shapes({end.name: end.shape for end in open_ends}))
        if any(end.span for end in open_ends):  # these three are for all open inputs or for none
            for which, flag in enumerate(("--minShapes=", "--optShapes=", "--maxShapes=")):
                words.append(flag + _shapes({e.name: e.span[which] if e.span else e.shape for e in open_ends}))
    words.append(f"--maxAuxStreams={settings.get('aux_streams', '0')}")
    if settings.get("level", "default") != "default":
        words.append(f"--builderOptimizationLevel={settings['level']}")
    if tool == "tensorrt_rtx":
        words += [*_QUIET, "--rtxCudaGraphStrategy=wholeGraph"]
    elif major < 11:
        words += [*_QUIET, "--useCudaGraph"]
    words += [*_LENGTH, f"--device={device.partition(':')[2] or '0'}"]
    return shlex.join(words)


def _formats(inputs: Sequence[End], outputs: Sequence[End], precision: str, layout: str, *, typed: bool) -> list[str]:
    """Channels last at the ends where the engine has it; nothing where all are linear, which is the default."""
    stored = _STORED[precision]

    def of(end: End) -> str | None:
        if not end.floating or len(end.shape) < 2 or end.shape[1] % 8 or layout != "channels_last":
            return None
        return _BLOCKED.get((stored if stored == "fp32" else "16", len(end.shape)))

    words = []
    for flag, ends in (("--inputIOFormats", inputs), ("--outputIOFormats", outputs)):
        formats: Mapping[str, str | None] = {end.name: of(end) for end in ends}
        # A type has to be said with a layout, and of what is no floating-point number it is not known here.
        if any(formats.values()) and all(end.floating for end in ends):
            prefix = f"{stored}:" if typed else ""
            words.append(f"{flag}={','.join(prefix + (formats[end.name] or 'chw') for end in ends)}")
    return words


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{_name(name)}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _name(name: str) -> str:
    """Quoted where it holds what the flag splits at."""
    return f"'{name}'" if set(name) & set(":,") else name
