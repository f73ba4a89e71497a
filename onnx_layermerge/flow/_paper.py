"""The paper's method with its training: what a call asks for, and the whole plan trained before it is merged; what
single blocks cost is in ``_importance.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnx_layermerge.candidates import PAPER
from onnx_layermerge.errors import TargetError, UsageError
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._importance import BATCH, Wanted
from onnx_layermerge.flow._last_timing import as_written
from onnx_layermerge.flow._search import Found
from onnx_layermerge.flow._subject import Subject, lost_by_merging, taken_apart
from onnx_layermerge.flow._training_batch import own_batch, whole_batch
from onnx_layermerge.flow._weights import Weights
from onnx_layermerge.latency import Backend, LatencyTable, Ratio
from onnx_layermerge.recover.training import Options, check_device, require_torch, train
from onnx_layermerge.rewrite import NOTES

__all__ = ["IMPORTANCE_STEPS", "finetuned", "wanted_of", "without_training"]

# A look at what a block does that a network recovers from at once, not a training.
IMPORTANCE_STEPS = 20
DEFAULT_MINUTES = 10.0

NO_GAIN = (
    "no weights that were tried in the training of the whole plan are closer to the original on held-out samples than "
    "the merged ones, so those were written: give more samples, or more time"
)


def without_training(asked: Mapping[str, object]) -> None:
    """
    Raises:
        UsageError: one of the words was given that say how ``--finetune`` trains.
    """
    for word, value in asked.items():
        if value is not None and value != ():
            raise UsageError(f"--{word.replace('_', '-')} is about the training of --finetune; give that too.")


def wanted_of(
    method: str,
    calib: object,
    device: str | None,
    *,
    importance: str | Path | Sequence[str | Path] | None,
    importance_steps: int | None,
    importance_lr: float | None = None,
    finetune_minutes: float | None = None,
    finetune_steps: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Wanted:
    """What a call asks of the training; ``device`` None is the CPU.

    Raises:
        UsageError: its words make no sense together.
        DeviceError: torch is not installed, or the device is not there.
    """
    if method not in PAPER:
        raise UsageError(
            f"--finetune is part of --method {', '.join(PAPER)}; with --method {method} run olm finetune on the output."
        )
    if calib is None:
        raise UsageError("--finetune trains on samples of what the model sees; give --calib.")
    lengths = {
        "--importance-steps": importance_steps,
        "--importance-lr": importance_lr,
        "--finetune-minutes": finetune_minutes,
        "--finetune-steps": finetune_steps,
    }
    for option, value in lengths.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} is too small or no number; give a larger one.")
    files = [importance] if isinstance(importance, (str, Path)) else list(importance or ())
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise UsageError(f"--shard {shard[0]}/{shard[1]} is no part; count from 1, as in 1/4 to 4/4.")
    if shard is not None and not files:
        raise UsageError("--shard scores a part of the blocks into the file of --importance; name it.")
    require_torch()
    device = "cpu" if device is None else device
    check_device(device, "--finetune-device")
    some = IMPORTANCE_STEPS if importance_steps is None else importance_steps
    return Wanted(some, tuple(map(Path, files)), finetune_minutes, finetune_steps, device, shard, importance_lr)


def finetuned(
    case: Case, found: Found, wanted: Wanted, backend: Backend, profile: str | Path | None, speedup: float
) -> Found:
    """The chosen plan, trained before its merges, merged, and timed by the very bytes that this makes.

    Raises:
        TargetError: timed again it misses ``speedup``.
    """
    prepared, chosen = case.prepared, found.chosen
    if case.fit_data is None:
        raise ValueError("a training needs data")
    by_key = {candidate.key: candidate for candidate in prepared.candidates}
    plan = [by_key[key] for key in chosen.plan.keys]
    model = chosen.model.clone()
    apart = taken_apart(prepared, plan, model, None)
    own = own_batch(prepared, model)
    options = Options(
        steps=wanted.steps,
        minutes=DEFAULT_MINUTES if wanted.minutes is None and wanted.steps is None else wanted.minutes,
        batch=whole_batch(min(BATCH, len(case.fit_data)), own),
        own_batch=own,
        seed=case.seed,
        device=wanted.device,
    )
    trained = train(
        apart.model, prepared.network.model, case.fit_data, case.held_out, options,
        lambda *told: case.progress("train", *told),
    )  # fmt: skip
    subject = Subject(prepared.network, model, plan, apart)
    subject.put_back(trained.weights)
    said: tuple[str, ...] = () if trained.improved else (NO_GAIN,)
    said += lost_by_merging(trained.divergence, subject.after(case.held_out, own or prepared.batch))
    steps = ("finetune",) if trained.improved else ()
    if steps:
        model.metadata_props[f"{NOTES}recovery"] = json.dumps(steps)
    model.metadata_props[f"{NOTES}finetune"] = json.dumps(
        {
            "steps": trained.steps,
            "samples": len(case.fit_data),
            "rate": trained.rate,
            "improved": trained.improved,
            "unmerged": len(apart.blocks),
            "importance.steps": wanted.importance_steps,
            "importance.lr": wanted.importance_lr,
            "held_out.before": trained.start_value,
            "held_out.after": trained.value,
        },
        sort_keys=True,
    )
    ratio, now = _timed(case, model, backend, profile, speedup, kept=bool(wanted.files))
    built = replace(chosen.weights.judged, model=model)
    # Nothing was fitted, and what is judged is what is written: no sample that decided anything was learned from.
    weights = Weights(built, built, chosen.weights.samples, steps)
    done = replace(chosen, model=model, weights=weights, speedup=ratio, measured_now=now)
    return replace(found, chosen=done, warnings=(*found.warnings, *said))


def _timed(
    case: Case, model: ir.Model, backend: Backend, profile: str | Path | None, speedup: float, *, kept: bool
) -> tuple[Ratio, bool]:
    """Speed-up of the trained bytes, and whether it was measured now; ``kept`` if there is a file of scores.

    Raises:
        TargetError: it misses ``speedup``, which is noise as a rule: nothing that a time depends on has changed.
    """
    with LatencyTable.open(profile) as table:
        ratio, now = as_written(
            backend,
            case.original,
            model,
            case.prepared.bound,
            speedup,
            table=table,
            progress=lambda *told: case.progress("verify", *told),
        )
    if ratio.low >= speedup:
        return ratio, now
    scores = "scores are read from --importance" if kept else "so are those of all blocks, unless --importance is given"
    raise TargetError(
        f"the trained model was timed at {ratio.low:.2f}× and not at the {speedup:g}× of its plan: run again on an "
        f"idle machine, or ask for a little less; the last training is made again then, and {scores}."
    )
