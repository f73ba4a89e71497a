"""The paper's method with its training: the whole plan trained before it is merged; what a call asks for is in
``_training_words.py``, what single blocks cost in ``_importance.py``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnx_layermerge.errors import TargetError
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._importance import BATCH, Wanted
from onnx_layermerge.flow._last_timing import as_written
from onnx_layermerge.flow._search import Found
from onnx_layermerge.flow._subject import Subject, lost_by_merging, taken_apart
from onnx_layermerge.flow._training_batch import own_batch, whole_batch
from onnx_layermerge.flow._training_notes import said
from onnx_layermerge.flow._weights import Weights
from onnx_layermerge.latency import Backend, LatencyTable, Ratio
from onnx_layermerge.recover.training import Options, train
from onnx_layermerge.rewrite import NOTES

__all__ = ["finetuned"]

DEFAULT_MINUTES = 10.0

NO_GAIN = (
    "no weights that were tried in the training of the whole plan are closer to the original on held-out samples than "
    "the merged ones, so those were written: give more samples, or more time"
)
# The rate of the last training is tried; there is no option for it here.
LOWER = "olm finetune on the output with a small --lr"


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
    apart = taken_apart(prepared, plan, model, case.fit_data if wanted.norms else None)
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
    warnings = said(trained, NO_GAIN, LOWER)
    warnings += lost_by_merging(trained.divergence, subject.after(case.held_out, own or prepared.batch))
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
            "norms": len(apart.norms),
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
    return replace(found, chosen=done, warnings=(*found.warnings, *warnings))


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
