"""What is said of a fine-tuning: what it depends on, the note in the file, and the warnings."""

from __future__ import annotations

import hashlib
import json

import onnx_ir as ir

from onnx_layermerge.flow._subject import Subject
from onnx_layermerge.graph import Network, to_bytes
from onnx_layermerge.recover.training import Options, Trained
from onnx_layermerge.rewrite import NOTES

__all__ = ["NOTE", "NO_GAIN", "fingerprint", "fitted_before", "note", "said"]

# What of the run is noted in the file.
NOTE = "olm.finetune"

NO_GAIN = (
    "no weights that were tried are closer to the original on the held-out samples than those of {compressed}, so "
    "{output} has these: give more samples, or more time"
)
NOT_FINITE = (
    "the loss or its gradient was NaN or infinite at step {step}, so the training ended there; the weights are the "
    "best of those before"
)
ENDED_EARLY = (
    "held-out samples were far worse off than at the start for long, so the training ended at step {step}; {lower} "
    "may do better"
)
FITTED = (
    "{compressed} was fitted to these very samples, those that judge included, and answers better to them than to "
    "others, so a training can hardly beat it here: give others with --val"
)


def fingerprint(options: Options, loss: str, network: Network, student: ir.Model, digest: str) -> dict[str, str]:
    """What the steps depend on; minutes and the device are free to change."""
    return {
        "the original": network.digest,
        "the compressed model": hashlib.sha256(to_bytes(student)).hexdigest(),
        "the data": digest,
        "--loss": loss,
        "--feature-weight": repr(options.feature_weight),
        "--label-weight": repr(options.label_weight),
        "--steps": repr(options.steps),
        "--lr": repr(options.rate),
        "--batch": repr(options.batch),
        "--seed": repr(options.seed),
        "--precision": options.precision,
        "--ema": repr(options.ema),
        "--augment": repr(options.augment),
    }


def fitted_before(student: ir.Model, digest: str, compressed: str) -> tuple[str, ...]:
    """A warning where ``olm compress`` fitted weights to the samples of this ``digest``, none of which are held out."""
    props = student.metadata_props
    fitted = "fit_error" in props.get(f"{NOTES}blocks", "") or f"{NOTES}recovery" in props
    # A digest of two parts is that of a run with --val, to which no weight was fitted.
    if not fitted or "+" in digest or props.get(f"{NOTES}calibration.sha256") != digest:
        return ()
    return (FITTED.format(compressed=compressed),)


def note(found: Trained, loss: str, digest: str, seed: int, subject: Subject) -> str:
    """The JSON that the file keeps of the run."""
    apart = {} if subject.apart is None else {"unmerged": len(subject.blocks), "norms": subject.norms}
    return json.dumps(
        {
            **apart,
            "steps": found.steps,
            "loss": loss,
            "data.sha256": digest,
            "seed": seed,
            "rate": found.rate,
            "improved": found.improved,
            "held_out.before": found.start_value,
            "held_out.after": found.value,
        },
        sort_keys=True,
    )


def said(found: Trained, no_gain: str, lower: str = "a smaller --lr") -> tuple[str, ...]:
    """What its user should know of how the training went, as warnings: ``no_gain`` where nothing came of it; ``lower``
    is how its steps are made smaller."""
    told = []
    if found.ended == "nan":
        told.append(NOT_FINITE.format(step=found.at))
    if found.ended == "early":
        told.append(ENDED_EARLY.format(step=found.at, lower=lower))
    if not found.improved:
        told.append(no_gain)
    return tuple(told)
