"""The gate: one model against another, measured now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from onnx_layermerge.data import Calibration, ImageOptions, constant_outputs, gather
from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.flow._data import left_out, open_data, says_nothing
from onnx_layermerge.flow._prepare import Prepared, Progress, bind_usual, data_batch, quiet
from onnx_layermerge.graph import (
    Network,
    Packed,
    Session,
    check_target,
    load_runnable,
    network_of,
    runnable_form,
    write,
    write_bytes,
)
from onnx_layermerge.importance import collect
from onnx_layermerge.latency import MAX_ROUNDS, EngineOptions, open_backend
from onnx_layermerge.latency.backends.tensorrt import cast
from onnx_layermerge.verify import (
    CAP_S,
    Decoder,
    Gate,
    Verdict,
    compared,
    decoder_of,
    judge,
    measured_speedup,
    metric_of,
    out_of_proportion,
    outputs_of,
    timing,
)

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
    metric: str | Callable[..., float] | None = None,
    decoder: str | Callable[..., Any] | None = None,
    device: str = "cpu",
    backend: str = "onnxruntime",
    precision: str = "fp32",
    save_onnx: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    time_cap_s: float = CAP_S,
    seed: int = 0,
    progress: Progress = quiet,
) -> Verdict:
    """Time both models interleaved in this run, compare their outputs on ``calib``, and hold both to ``gate``.

    Outputs are compared as the files compute them, on the CPU; ``precision`` is that of the timing.

    Args:
        metric: ``script.py:function`` or a callable; it gets a model as a function (dict of inputs [N, …] -> dict of
            outputs) and returns a number, higher is better.  A script runs in this process.  Or ``NAME:FILE.npz`` for
            a built-in one: top1, top5, agreement, psnr or mse (negative).
        decoder: ``script.py:function`` or a callable; it gets the dict of outputs and returns (boxes [n, 4] as
            x1 y1 x2 y2, scores [n], classes [n]) for each image.
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``, which both models are cast to when they are built.
        save_onnx: folder for both models in these types, as ``original.<precision>.onnx`` and
            ``compressed.<precision>.onnx``, written when all else is done.  Above 1.5 GiB of weights these lie in
            a file beside the model, and only ``fp32`` and ``tf32`` can be saved.
        engines: how the TensorRT backends build; with ranges of shapes the usual ones are timed.
        time_cap_s: wall seconds that the timed rounds may take; builds and warm-up come on top.

    Raises:
        UsageError: ``time_cap_s`` is not positive; the gate bounds what only ``calib`` or ``metric`` can show, and
            there is none; the metric or the decoder is not there, fails, or returns something else.
        ModelError: one of the files cannot be used, or their interfaces differ, or it is too large to be cast.
        DataError: ``calib``, or the file of a built-in metric, does not fit the models, or no output of theirs has a
            size of its own.
        OutputError: ``save_onnx`` cannot be written, or a file there is one of the inputs or holds its weights.
    """
    gate = gate or Gate()
    if not time_cap_s > 0:
        raise UsageError(f"--time-cap {time_cap_s:g} leaves no time to measure in; give seconds above 0.")
    if calib is None:
        bounds = (gate.min_agreement, "--min-agreement"), (gate.max_kl, "--max-kl"), (decoder, "--decoder")
        for wanted, option in bounds:
            if wanted is not None:
                raise UsageError(f"{option} compares the models' outputs on data; give --calib too.")
    if gate.max_drop is not None and metric is None:
        raise UsageError("--max-drop bounds what a metric of your own may lose; give --metric too.")
    decode = None if decoder is None else decoder_of(decoder)
    first, second = network_of(load_runnable(original)), network_of(load_runnable(compressed))
    if first.inputs != second.inputs or first.outputs != second.outputs:
        raise ModelError(
            f"{compressed} has other inputs or outputs than {original}; give a model and what was made of it."
        )
    given = Path(original), Path(compressed)
    saved = _targets(save_onnx, precision, given)
    if save_onnx is not None and precision in CAST:
        for network, path in zip((first, second), given, strict=True):
            _check_castable(network, path, precision)
    opened = open_backend(backend, device, precision, engines)
    bound = bind_usual(first.inputs, shapes, batch, engines)
    # Before the timing, so that nobody waits for it to read that the data do not fit.
    opened_data: tuple[Calibration, int] | None = None
    answered: dict[str, np.ndarray] = {}
    warnings: tuple[str, ...] = ()
    if calib is not None:
        opened_data = _opened(first, bound, calib, images or ImageOptions(), samples, seed, decode)
        progress("verify", 0, 2, "the outputs of the original")
        data, size = opened_data
        parts, layout = gather(Session(first.model).run, data.batches(size))
        answered = layout.join(parts)
        layout = layout.without(constant_outputs(first.model))
        warnings = left_out(first.outputs, answered) + says_nothing(answered, layout)
    if metric is not None:
        progress("verify", 0, 2, "the metric of the original")
    measured = None if metric is None else metric_of(metric, first, data_batch(first, bound))
    progress("verify", 0, 2, "timing both models in turn")
    ratio, _ = measured_speedup(
        opened,
        first.model,
        second.model,
        bound,
        sessions=3,
        cap_s=time_cap_s,
        # Of a small model the rounds are over before the time is: more time has to mean more of them.
        max_rounds=ceil(MAX_ROUNDS * max(1.0, time_cap_s / CAP_S)),
        target_half_width=0.005,
        seed=seed,
    )
    found = None
    if opened_data is not None:
        progress("verify", 1, 2, "comparing outputs")
        found = compared(answered, outputs_of(second.model, *opened_data), decode)
    values = None
    if measured is not None:
        progress("verify", 1, 2, "the metric of the compressed model")
        values = measured.values(measured.score(second.model))
    unwritten = precision in CAST and save_onnx is None
    files = saved if unwritten or save_onnx is not None else given
    timed = timing(ratio, opened.describe(), first, bound, files, unwritten, device, engines)
    if found is not None:
        warnings += out_of_proportion(found.outputs)
    verdict = replace(judge(gate, ratio, found, timed, values, time_cap_s), warnings=warnings)
    if save_onnx is not None:
        _save((first, second), saved, precision)
    progress("verify", 2, 2, f"{ratio.ratio:.3f}×")
    return verdict


def _opened(
    network: Network,
    bound: Mapping[str, tuple[int, ...]],
    calib: object,
    images: ImageOptions,
    samples: int,
    seed: int,
    decoder: Decoder | None,
) -> tuple[Calibration, int]:
    """The data and the samples to run at once.

    Raises:
        DataError: the data do not fill even one batch.
        UsageError: ``decoder`` fails on the outputs of that batch.
    """
    prepared = Prepared(network, bound, {}, data_batch(network, bound), (), ())
    data = open_data(prepared, calib, images, samples, seed)
    feeds = next(data.batches(prepared.batch), None)
    if decoder is not None and feeds is not None:
        # As it gets them in the end: with samples in front, and none whose size depends on the data.
        decoder.check(collect(Session(network.model).run, [feeds]))
    return data, prepared.batch


def _targets(folder: str | Path | None, precision: str, inputs: tuple[Path, Path]) -> tuple[Path, Path]:
    """Where the models go in their cast form, over neither input; without a folder only their names."""
    names = f"original.{precision}.onnx", f"compressed.{precision}.onnx"
    if folder is None:
        return Path(names[0]), Path(names[1])
    for name in names:
        for path in inputs:
            check_target(Path(folder) / name, not_over=path)
    return Path(folder) / names[0], Path(folder) / names[1]


def _check_castable(network: Network, path: Path, precision: str) -> None:
    held = runnable_form(network.model)
    if isinstance(held, Packed):
        raise ModelError(
            f"{path} has {held.total_bytes / 2**30:.1f} GiB of weights, too many to be cast to {precision}; "
            "save it with --precision fp32 or tf32."
        )


def _save(networks: tuple[Network, Network], targets: tuple[Path, Path], precision: str) -> None:
    """Write what was timed; a model that no single message can hold as model and weights."""
    forms = [runnable_form(network.model) for network in networks]
    # All are cast before one is written: a model that cannot be cast leaves no file of the other.
    datas = [None if isinstance(form, Packed) else cast(form, precision) for form in forms]
    for network, data, target in zip(networks, datas, targets, strict=True):
        if data is None:
            write(network.model, target)
        else:
            write_bytes(target, data)
