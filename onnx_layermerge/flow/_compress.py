"""The main job: file in, wanted speed-up → faster file out, and the report of how."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from onnx_layermerge.data import ImageOptions, with_mixtures
from onnx_layermerge.errors import UsageError
from onnx_layermerge.fit import on_one_thread
from onnx_layermerge.flow._choose import Run, choose
from onnx_layermerge.flow._data import choosable, open_samples, what_it_cost
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._judged import judge, judges, overfitted
from onnx_layermerge.flow._latencies import latencies
from onnx_layermerge.flow._loop import Loop
from onnx_layermerge.flow._prepare import Progress, check_speedup, prepare, quiet
from onnx_layermerge.flow._rank import joint_loss, loss_bases
from onnx_layermerge.flow._record import file_digest, frontier, sketches, versions
from onnx_layermerge.flow._recorded import MISMATCH, mismatch, recorded
from onnx_layermerge.flow._required import buildable, read_builds
from onnx_layermerge.flow._scores import scored
from onnx_layermerge.flow._timed import useful
from onnx_layermerge.graph import check_target, load_runnable, narrow, write
from onnx_layermerge.latency import Backend, EngineOptions, LatencyTable, open_backend
from onnx_layermerge.report import Keys, Report, block_of
from onnx_layermerge.verify import check_sizes

__all__ = ["compress"]

BFLOAT16 = (
    "The model computes in bfloat16, which has no convolution here: everything was fitted and timed in float32, and"
    " the output is bfloat16 again."
)


@on_one_thread
def compress(
    input: str | Path,
    output: str | Path,
    *,
    speedup: float,
    calib: object = None,
    val: object = None,
    images: ImageOptions | None = None,
    samples: int = 512,
    metric: str | Callable[..., float] | None = None,
    decoder: str | Callable[..., Any] | None = None,
    method: str = "olm",
    device: str = "cpu",
    backend: str | Backend = "onnxruntime",
    precision: str = "fp32",
    profile: str | Path | None = None,
    allow_mismatch: bool = False,
    require_builds: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int = 1,
    engines: EngineOptions | None = None,
    refit_mode: str = "auto",
    effort: str = "normal",
    rivals: int | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Report:
    """Write a model that is measured to be ``speedup`` times faster than ``input`` on ``device``.

    Args:
        calib: samples without labels (see ``load_calibration``); None takes cuts of built-in photographs where the
            model takes pictures and their range is known (by ``images`` or by the model), else plans drops only.
        val: samples that decide between plans; None takes a quarter of ``calib``.
        samples: at most this many of each source are used.
        metric: ``script.py:function`` or a callable, as of ``verify``; it ranks the best few plans instead of their
            divergence, and is reported of both models.
        decoder: ``script.py:function`` or a callable, as of ``verify``, for detections in the report.
        method: "olm", "drop", or "layermerge" (the paper's algebraic merges without its training).
        backend: a name, or a ``Backend`` of your own that is open; that has a device and a precision already.
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``, in which the backend computes.  Models are cast when they
            are built for the device; files keep their own types.
        engines: how the TensorRT backends build; ranges of shapes there need no ``shapes`` beside them.
        profile: latency table; None is the user's own.
        allow_mismatch: plan with the times of another device where ``profile`` knows only that one; the output's
            metadata say so, and the result is measured here all the same.
        require_builds: report of ``build_only`` as JSON; candidates that did not build, or are not in it, are not
            offered.
        refit_mode: "off", or "auto": kept convolutions are solved again, near their weights, and tuned along with the
            replaced ones, where validation gains by it; with ``method`` "olm" and the user's own samples only.  What
            the plan replaces is tuned either way.
        effort: "quick", "normal" or "thorough": samples that rank blocks and plans, how many plans are built, whether
            the insides of blocks are tuned (not by "quick"), whether the best plan is searched around (by "thorough").
        rivals: how many plans are built and compared, whatever ``effort`` has; 1 takes the program's own by the first
            measure of loss.

    Returns:
        The report; the file at ``output`` is complete.

    Raises:
        OlmError: with one sentence and an exit code; nothing is written then.
    """
    clock = Stopwatch()
    check_speedup(speedup)
    if refit_mode not in ("off", "auto"):
        raise UsageError(f"--refit {refit_mode} is unknown; choose off or auto.")
    trying = effort_of(effort)
    if rivals is not None:
        trying = dataclasses.replace(trying, rivals=rivals)
    if samples < 2 or trying.rivals < 1:
        raise UsageError("--samples needs at least 2 and --rivals at least 1.")
    if val is not None and calib is None:
        raise UsageError("--val decides between fitted plans and needs --calib beside it.")
    target = check_target(output, not_over=input)
    builds = None if require_builds is None else read_builds(require_builds)
    opened = _opened(backend, device, precision, engines)
    other = mismatch(profile, opened.describe(), allow=allow_mismatch)
    prepared = prepare(
        input,
        method=method,
        shapes=shapes,
        batch=batch,
        engines=engines,
        progress=progress,
    )
    network = prepared.network
    warnings: list[str] = []
    found = open_samples(prepared, calib, val, images, samples, seed)
    prepared = choosable(prepared, found, method)
    if builds is not None:
        prepared, left_out = buildable(prepared, builds, opened.describe().precision)
        warnings += left_out
    warnings += found.warnings
    fit_data, validation, mixing = found.fit, found.validation, found.mixing
    # Another source is what mixtures only stand in for.
    judged = with_mixtures(validation, seed) if mixing else validation
    by = judges(prepared, metric, decoder, None if fit_data is None else validation, progress)
    clock.mark("read")
    original = load_runnable(input)
    with LatencyTable.open(profile) as table:
        if other is None:
            timed = latencies(prepared, opened, table, seed=seed, progress=progress)
        else:
            timed = recorded(prepared, other, table).timed
            warnings.append(MISMATCH.format(other=other.text(), here=opened.describe().text()))
        warnings += timed.warnings
        clock.mark("time blocks")
        candidates = useful(prepared, timed)
        scores = scored(
            prepared, candidates, fit_data, validation, effort=trying, seed=seed, mixing=mixing, progress=progress
        )
        clock.mark("score blocks")
        loop = Loop(prepared, timed, opened, table, progress, joint_loss(scores))
        bases = loss_bases(candidates, scores, timed)
        points = frontier(bases["kl"], timed.base_s) if "kl" in bases else ()
        drop_only = frontier(bases["drop-only"], timed.base_s) if "drop-only" in bases else ()
        if method == "layermerge" or trying.rivals == 1:
            name = "kl" if "kl" in bases else next(iter(bases))
            bases, trying = {name: bases[name]}, dataclasses.replace(trying, rivals=1, nearby=0)
        losses = {candidate.key: scores.by_key[candidate.key].divergence.kl for candidate in candidates}
        run = Run(
            prepared, opened, table, loop, fit_data, judged, seed, progress, original, losses, by.metric,
            found.everything,
        )  # fmt: skip
        origin = {
            "version": _version(),
            "method": method,
            "speedup.asked": f"{speedup:g}",
            "device": opened.describe().text(),
            "seed": str(seed),
            "input.sha256": network.digest,
            "calibration.sha256": found.digest,
            **({} if other is None else {"profile.mismatch": other.text()}),
        }
        # Pictures of no relation to what the model sees teach kept layers nothing.
        learning = method == "olm" and not found.pictures
        chosen = choose(
            run,
            bases,
            speedup,
            effort=trying,
            refitting=learning and refit_mode == "auto",
            tuning=learning and trying.tuning,
            origin=origin,
        )
    clock.mark("build and verify")
    result = judge(run, chosen, None if fit_data is None else validation, by)
    if result.compared is not None:
        cost = what_it_cost(found, result.compared.divergence)
        warnings += [] if cost is None else [cost]
    if not found.pictures:
        there = 0 if fit_data is None else len(fit_data)
        warnings += overfitted(
            result.fits, held_out=len(validation), separate=val is not None, samples=samples, there=there
        )
    clock.mark("judge")
    check_sizes(original, chosen.model, network.inputs, prepared.bound)
    before, after, made = sketches(prepared, chosen.model, chosen.plan.keys)
    if network.widened is not None:
        narrow(chosen.model, network.widened)
        warnings.append(BFLOAT16)
    write(chosen.model, target)
    clock.mark("write")
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    return Report(
        input=str(input),
        output=str(output),
        method=method,
        device=opened.describe().text(),
        effort=effort,
        asked=speedup,
        predicted=chosen.plan.predicted,
        speedup=chosen.speedup,
        measured_now=chosen.measured_now,
        validation=None if result.compared is None else result.compared.divergence,
        outputs=() if result.compared is None else result.compared.outputs,
        boxes=None if result.compared is None else result.compared.boxes,
        metric=result.metric,
        fits=result.fits,
        basis=chosen.plan.basis,
        recovery=chosen.weights.steps,
        refitted=chosen.weights.written.refitted,
        fitted_on=chosen.weights.samples,
        judged_on=min(chosen.weights.samples, 0 if fit_data is None else len(fit_data)),
        blocks=tuple(
            block_of(
                network,
                by_key[key],
                timed.replaced_s[key],
                timed.savings_s[key],
                losses[key],
                chosen.weights.judged.fits.get(key),
                made[key],
            )
            for key in chosen.plan.keys
        ),
        rejected=chosen.rejected,
        convs_before=len(network.convs) + len(network.refused),
        convs_after=sum(node.op_type == "Conv" for node in chosen.model.graph),
        timed_blocks=timed.timed,
        reused_blocks=timed.reused,
        seed=seed,
        seconds=clock.marks,
        warnings=tuple(warnings),
        expected=sum(losses[key] for key in chosen.plan.keys),
        divergence=chosen.loss,
        points=points,
        drop_only=drop_only,
        before=before,
        after=after,
        keys=Keys(
            input=network.digest,
            output=file_digest(target),
            calibration=found.digest,
            device=opened.describe().digest(),
            profile="" if profile is None else str(profile),
            versions=versions(),
        ),
    )


def _version() -> str:
    try:
        return version("onnx-layermerge")
    except PackageNotFoundError:
        return "0.0.0"


def _opened(backend: str | Backend, device: str, precision: str, engines: EngineOptions | None) -> Backend:
    """The backend of that name, or the one that is open already."""
    if isinstance(backend, str):
        return open_backend(backend, device, precision, engines)
    if (device, precision) != ("cpu", "fp32"):
        raise UsageError("A backend that is open has a device and a precision: leave out those of the call.")
    return backend


@dataclasses.dataclass
class Stopwatch:
    """Wall seconds of each stage."""

    marks: dict[str, float] = dataclasses.field(default_factory=dict)
    last: float = dataclasses.field(default_factory=time.perf_counter)

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.marks[stage] = round(now - self.last, 3)
        self.last = now
