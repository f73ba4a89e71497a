"""What the numbers of a comparison are: the device, the kind of time, and how to measure them again without olm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_layermerge.graph import Network, trace_shapes
from onnx_layermerge.latency import DeviceKey, EngineOptions, Ratio
from onnx_layermerge.verify._trtexec import End, trtexec_command

__all__ = ["Timing", "kind_of_time", "timing"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Timing:
    """Medians of both models in ms, interleaved in one process.

    ``kind`` says what was read: CPU time, the GPU compute time of trtexec, or wall time around synchronized runs.
    ``commands`` measure the first and the second model with NVIDIA's own tool; none for other backends.  ``unwritten``
    is whether the files that they name are still to be written, by ``--save-onnx``.
    """

    device: str
    precision: str
    kind: str
    a_ms: float
    b_ms: float
    commands: tuple[str, ...] = ()
    unwritten: bool = False


def kind_of_time(key: DeviceKey) -> str:
    """In words, what the seconds of this backend are."""
    if "clock=wall-synchronized" in key.settings.split():
        return "wall time of synchronized runs on the GPU"
    return "CPU time" if key.threads else "GPU compute time"


def timing(
    ratio: Ratio,
    key: DeviceKey,
    network: Network,
    bound: Shapes,
    files: tuple[Path, Path],
    unwritten: bool,
    device: str,
    engines: EngineOptions | None = None,
) -> Timing:
    """Put the medians of ``ratio`` into words; ``files`` are what the commands read."""
    commands: tuple[str, ...] = ()
    if key.backend.startswith("tensorrt"):
        traced = trace_shapes(network, bound)
        ranges = {} if engines is None else engines.ranges
        inputs = [
            End(
                info.name,
                bound[info.name],
                not all(isinstance(n, int) for n in info.shape),
                info.dtype.kind == "f",
                ranges.get(info.name),
            )
            for info in network.inputs
        ]
        outputs = [End(name, traced.get(name, ()), floating=name in traced) for name in network.outputs]
        lines = (trtexec_command(file, key, inputs, outputs, device=device) for file in files)
        commands = tuple(line for line in lines if line is not None)
    return Timing(
        device=key.text(),
        precision=key.precision,
        kind=kind_of_time(key),
        a_ms=ratio.a_s * 1e3,
        b_ms=ratio.b_s * 1e3,
        commands=commands,
        unwritten=unwritten and bool(commands),
    )
