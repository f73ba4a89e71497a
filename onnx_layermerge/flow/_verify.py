"""The gate: one model against another, measured now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_layermerge.data import ImageOptions
from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.flow._data import open_data
from onnx_layermerge.flow._prepare import Prepared, Progress, bind_usual, data_batch, quiet
from onnx_layermerge.graph import (
    Network,
    check_target,
    load_runnable,
    network_of,
    to_bytes,
    write_bytes,
)
from onnx_layermerge.latency import EngineOptions, open_backend
from onnx_layermerge.latency.backends.tensorrt import cast
from onnx_layermerge.verify import Gate, Verdict, judge, measured_speedup, outputs_of, quality, timing

__all__ = ["verify"]

# Precisions in which the given files are not what is built.
CAST = ("fp16", "bf16")


def verify(
    original: str | Path,
    compressed: str | Path,
    *,
    gate: Gate | None = None,
    calib: object = None,
    images: ImageOptions | None = None,
    samples: int = 512,
    device: str = "cpu",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    save_onnx: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Verdict:
    """Time both models interleaved in this run, compare their outputs on ``calib``, and hold both to ``gate``.

    Outputs are compared as the files compute them, on the CPU; ``precision`` is that of the timing.

    Args:
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``, which both models are cast to when they are built.
        save_onnx: folder for both models in these types, as ``original.<precision>.onnx`` and
            ``compressed.<precision>.onnx``.
        engines: how the TensorRT backends build; with ranges of shapes the usual ones are timed.

    Raises:
        UsageError: the gate bounds what only ``calib`` can show, and there is none.
        ModelError: one of the files cannot be used, or their interfaces differ.
    """
    gate = gate or Gate()
    if calib is None:
        for wanted, option in ((gate.min_agreement, "--min-agreement"), (gate.max_kl, "--max-kl")):
            if wanted is not None:
                raise UsageError(f"{option} compares the models' outputs on data; give --calib too.")
    first, second = network_of(load_runnable(original)), network_of(load_runnable(compressed))
    if first.inputs != second.inputs or first.outputs != second.outputs:
        raise ModelError(f"{compressed} has other inputs or outputs than {original}; these two cannot be compared.")
    saved = _targets(save_onnx, precision)
    opened = open_backend(backend, device, precision, engines)
    bound = bind_usual(first.inputs, shapes, batch, engines)
    progress("verify", 0, 2, "timing both models in turn")
    ratio, _ = measured_speedup(
        opened, first.model, second.model, bound, sessions=3, cap_s=30.0, target_half_width=0.005, seed=seed
    )
    if save_onnx is not None:
        _save((first, second), saved, precision)
    found = None
    if calib is not None:
        progress("verify", 1, 2, "comparing outputs")
        prepared = Prepared(first, bound, {}, data_batch(first), (), ())
        data = open_data(prepared, calib, images or ImageOptions(), samples, seed)
        found = quality(outputs_of(first.model, data, prepared.batch), second.model, data, prepared.batch)
    progress("verify", 2, 2, f"{ratio.ratio:.3f}×")
    unwritten = precision in CAST and save_onnx is None
    files = saved if unwritten or save_onnx is not None else (Path(original), Path(compressed))
    return judge(gate, ratio, found, timing(ratio, opened.describe(), first, bound, files, unwritten, device, engines))


def _targets(folder: str | Path | None, precision: str) -> tuple[Path, Path]:
    """Where the models go in their cast form; without a folder only their names."""
    names = f"original.{precision}.onnx", f"compressed.{precision}.onnx"
    if folder is None:
        return Path(names[0]), Path(names[1])
    return check_target(Path(folder) / names[0]), check_target(Path(folder) / names[1])


def _save(networks: tuple[Network, Network], targets: tuple[Path, Path], precision: str) -> None:
    for network, target in zip(networks, targets, strict=True):
        write_bytes(target, cast(to_bytes(network.model), precision))
