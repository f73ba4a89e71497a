"""The main job: file in, wanted speed-up → faster file out, and the report of how."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_layermerge.candidates import PAPER
from onnx_layermerge.data import ImageOptions
from onnx_layermerge.errors import UsageError
from onnx_layermerge.fit import on_one_thread
from onnx_layermerge.flow._asked import Asked
from onnx_layermerge.flow._choose import Case, Chosen
from onnx_layermerge.flow._data import choosable, judged_by, open_samples, what_it_cost
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._importance import Importance
from onnx_layermerge.flow._judged import judge, judges, misjudged, overfitted, underdetermined
from onnx_layermerge.flow._paper import finetuned
from onnx_layermerge.flow._plan_file import PlanFile, open_plan, plan_file, write_plan
from onnx_layermerge.flow._prepare import Progress, check_speedup, prepare, quiet
from onnx_layermerge.flow._record import sketches
from onnx_layermerge.flow._recorded import mismatch
from onnx_layermerge.flow._replay import follow, hold, output_digest, place_of
from onnx_layermerge.flow._reported import report_of
from onnx_layermerge.flow._required import buildable, read_builds
from onnx_layermerge.flow._search import Place, search
from onnx_layermerge.flow._training_words import TrainingWords
from onnx_layermerge.graph import check_target, load_runnable, narrow, write
from onnx_layermerge.importance import Divergence
from onnx_layermerge.latency import Backend, EngineOptions, open_backend
from onnx_layermerge.report import Report
from onnx_layermerge.verify import check_sizes, outputs_of, quality

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
    samples: int = 1024,
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
    plan: str | Path | None = None,
    lock: bool = False,
    finetune: bool = False,
    importance: str | Path | Sequence[str | Path] | None = None,
    importance_steps: int | None = None,
    importance_lr: float | None = None,
    finetune_minutes: float | None = None,
    finetune_steps: int | None = None,
    finetune_device: str | None = None,
    norms: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> Report:
    """Write a model that is measured to be ``speedup`` times faster than ``input`` on ``device``.

    Args:
        calib: samples without labels (see ``load_calibration``); None takes cuts of built-in photographs where the
            model takes pictures and their range is known (by ``images`` or by the model), else plans drops only.
        val: samples that decide between plans; None takes a quarter of ``calib``.
        samples: at most this many of each source are used.
        metric: ``script.py:function``, ``NAME:FILE.npz`` or a callable, as of ``verify``; it ranks the best few plans
            instead of their divergence, and is reported of both models.
        decoder: ``script.py:function`` or a callable, as of ``verify``, for detections in the report.
        method: "olm", "drop", "layermerge" (the paper's algebraic merges), "depth" (those of them that keep every
            convolution) or "layeronly" (single convolutions left out, activations kept, nothing merged).
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
        plan: a file for the plan.  Where there is none it is written beside the output.  Where there is one it is
            followed: nothing is searched, its blocks are fitted again for the weights that the model has now, and the
            result is timed here; where the plan's device is not, what it measured of the same structure stands.
        lock: the plan has to be there, and model, samples, options and the bytes of the result have to be what it
            recorded; these bytes were measured then, so nothing is timed.
        finetune: with the last three methods: their training as well (extra ``[torch]``).  Blocks are scored by a short
            one of the network with only that block replaced, and the plan is trained whole before it is merged.
        importance: files of the blocks' scores; the first is added to after every block, and need not be there yet.
        importance_steps: steps of the short trainings (20).
        importance_lr: their largest step relative to the size of a channel's weights; None tries a few with one block.
        finetune_minutes: length of the last training (10, unless ``finetune_steps`` are given).
        finetune_steps: steps of the last training.
        finetune_device: where all of it is trained: "cpu" (also None), "cuda" or "cuda:N".
        norms: in these trainings a BatchNormalization stands behind every convolution that has one in ``input``, as
            with ``finetune(norms=True)``.

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
    asked = Asked(
        input=input, output=output, speedup=speedup, method=method, refit=refit_mode, effort=effort, samples=samples,
        seed=seed, metric=metric, backend=backend, device=device, precision=precision, engines=engines, profile=profile,
    )  # fmt: skip
    settings = asked.settings()
    training = TrainingWords(
        importance=importance,
        importance_steps=importance_steps,
        importance_lr=importance_lr,
        finetune_minutes=finetune_minutes,
        finetune_steps=finetune_steps,
        finetune_device=finetune_device,
        norms=norms or None,
    )
    if not finetune:
        training.check_none_given()
    wanted = training.wanted(method, calib) if finetune else None
    if wanted is not None and (plan is not None or lock):
        raise UsageError("--plan and --lock keep what is fitted, not what is trained; leave them or --finetune out.")
    others = [Path(each) for each in (input, target, profile, require_builds) if each is not None]
    held = open_plan(plan, lock, settings, others)
    builds = None if require_builds is None else read_builds(require_builds)
    here = partial(opened_backend, backend, device, precision, engines)
    if held is None:
        opened = here()
        key, single = opened.describe(), method in PAPER or trying.rivals == 1
        other = mismatch(profile, key, allow=allow_mismatch)
        place = Place(key.text(), key.digest(), None if other is None else other.text())
        way = partial(
            search, opened=opened, profile=profile, other=other, speedup=speedup, effort=trying, single=single,
            mark=clock.mark, importance=None if wanted is None else Importance(wanted, tuple(others)),
        )  # fmt: skip
    else:
        place, there = place_of(held, here, lock)
        way = partial(follow, path=str(plan), plan=held, opened=there, speedup=speedup, lock=lock)
    prepared = prepare(input, method=method, shapes=shapes, batch=batch, engines=engines, progress=progress)
    network = prepared.network
    data = open_samples(prepared, calib, val, images, samples, seed, progress)
    prepared = choosable(prepared, data, method)
    warnings: list[str] = []
    if builds is not None and held is None:
        prepared, left_out = buildable(prepared, builds, key.precision)
        warnings += left_out
    warnings += data.warnings
    by = judges(prepared, metric, decoder, None if data.fit is None else data.validation, progress)
    # Pictures of no relation to what the model sees teach kept layers nothing.
    learning = method == "olm" and not data.pictures
    case = Case(
        prepared=prepared,
        fit_data=data.fit,
        held_out=data.validation,
        # Another source is what mixtures only stand in for.
        validation=judged_by(prepared, data, seed),
        everything=data.everything,
        metric=by.metric,
        seed=seed,
        progress=progress,
        original=load_runnable(input),
        refitting=learning and refit_mode == "auto",
        tuning=learning and trying.tuning,
        origin=asked.origin(place, network.digest, data.digest),
    )
    clock.mark("read")
    found = way(case)
    clock.mark("build and verify")
    if wanted is not None:
        found = finetuned(case, found, wanted, opened, profile, speedup)
        clock.mark("train")
    chosen = found.chosen
    warnings += found.warnings
    result = judge(case, chosen, None if data.fit is None else data.validation, by)
    lost = _lost_on_noise(case, chosen) if result.compared is None else result.compared.divergence
    cost = what_it_cost(data, lost)
    warnings += [] if cost is None else [cost]
    warnings += misjudged(result)
    if not data.pictures:
        there_are = 0 if data.fit is None else data.fit.distinct
        warnings += overfitted(
            result.fits, held_out=data.validation.distinct, separate=val is not None, samples=samples, there=there_are
        )
        warnings += underdetermined(chosen.weights.judged.fits)
    clock.mark("judge")
    check_sizes(case.original, chosen.model, network.inputs, prepared.bound)
    pictures = sketches(prepared, chosen.model, chosen.plan.keys)
    planned = None if plan is None or held is not None else plan_file(case, found, place, settings)
    if network.widened is not None:
        narrow(chosen.model, network.widened)
        warnings.append(BFLOAT16)
    if held is not None and lock:
        hold(str(plan), held, chosen.model)
    _write(chosen.model, target, None if plan is None else Path(plan), planned)
    clock.mark("write")
    followed = None if held is None else str(plan)
    return report_of(asked, case, found, result, data, place, pictures, followed, clock.marks, warnings)


def opened_backend(backend: str | Backend, device: str, precision: str, engines: EngineOptions | None) -> Backend:
    """The backend of that name, or the one that is open already."""
    if isinstance(backend, str):
        return open_backend(backend, device, precision, engines)
    if (device, precision) != ("cpu", "fp32"):
        raise UsageError("A backend that is open has a device and a precision: leave out those of the call.")
    return backend


def _lost_on_noise(case: Case, chosen: Chosen) -> Divergence:
    network, batch = case.prepared.network, case.prepared.batch
    wanted = outputs_of(network.model, case.held_out, batch)
    return quality(wanted, chosen.weights.judged.model, case.held_out, batch)


def _write(model: ir.Model, target: Path, path: Path | None, plan: PlanFile | None) -> None:
    """The output, and the plan that it is the first of: both or neither."""
    if path is not None and plan is not None:
        write_plan(path, dataclasses.replace(plan, output=output_digest(model)))
    try:
        write(model, target)
    except BaseException:
        if path is not None and plan is not None:
            path.unlink(missing_ok=True)
        raise


@dataclasses.dataclass
class Stopwatch:
    """Wall seconds of each stage."""

    marks: dict[str, float] = dataclasses.field(default_factory=dict)
    last: float = dataclasses.field(default_factory=time.perf_counter)

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.marks[stage] = round(now - self.last, 3)
        self.last = now
