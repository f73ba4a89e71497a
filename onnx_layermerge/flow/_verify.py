"""The gate: one model against another, measured now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_layermerge.data import ImageOptions
from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.flow._data import open_data
from onnx_layermerge.flow._prepare import Prepared, Progress, data_batch, quiet
from onnx_layermerge.graph import bind_shapes, load_runnable, network_of
from onnx_layermerge.latency import open_backend
from onnx_layermerge.verify import Gate, Verdict, judge, measured_speedup, outputs_of, quality

__all__ = ["verify"]


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
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    seed: int = 0,
    progress: Progress = quiet,
) -> Verdict:
    """Time both models interleaved in this run, compare their outputs on ``calib``, and hold both to ``gate``.

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
    opened = open_backend(backend, device)
    bound = bind_shapes(first.inputs, shapes or {}, batch=batch)
    progress("verify", 0, 2, "timing both models in turn")
    ratio, _ = measured_speedup(
        opened, first.model, second.model, bound, sessions=3, cap_s=30.0, target_half_width=0.005, seed=seed
    )
    found = None
    if calib is not None:
        progress("verify", 1, 2, "comparing outputs")
        prepared = Prepared(first, bound, {}, data_batch(first), (), ())
        data = open_data(prepared, calib, images or ImageOptions(), samples, seed)
        found = quality(outputs_of(first.model, data, prepared.batch), second.model, data, prepared.batch)
    progress("verify", 2, 2, f"{ratio.ratio:.3f}×")
    return judge(gate, ratio, found)
