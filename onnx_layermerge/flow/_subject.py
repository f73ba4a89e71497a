"""What a fine-tuning trains, and how what it learned gets into the file: the compressed model itself, or its plan
before the merges (``recover/_unmerged.py``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_layermerge.candidates import METHODS, Candidate, enumerate_candidates
from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import ModelError, UsageError
from onnx_layermerge.flow._prepare import Prepared
from onnx_layermerge.graph import Network, load_runnable
from onnx_layermerge.importance import Divergence
from onnx_layermerge.recover import Unmerged, merged_weights, moved_merges, normed_weights, unmerged, with_norms
from onnx_layermerge.recover.training import put_back
from onnx_layermerge.rewrite import NOTES
from onnx_layermerge.verify import outputs_of, quality

__all__ = ["Subject", "lost_by_merging", "planned", "subject_of", "taken_apart"]

# Samples that a norm's mean and variance are of.
MEASURED_ON = 256
NOTHING_MERGED = "no block of {compressed} is a merge, so unmerged it is what it is"
ALREADY_TRAINED = (
    "{moved} of {merges} merges in {compressed} were trained since they were made, and what they would be unmerged is"
    " not known, so these are trained merged: to train all unmerged, give what olm compress wrote without --finetune"
)
# What rounding to the file's type, and sums in another order, may do to a merge.
NEAR, NOTHING = 1.2, 1e-6
LOST_BY_MERGING = (
    "merged again the model lies at KL {after:.4g} from the original, and at {before:.4g} as it was trained: the merge"
    " or the file's type rounds too much of it away, and olm finetune without --unmerged may do better"
)


@dataclass(frozen=True, eq=False)
class Subject:
    """``model`` is trained; ``apart`` is what was taken apart for that, None where nothing was."""

    network: Network
    compressed: ir.Model
    plan: Sequence[Candidate] = ()
    apart: Unmerged | None = None
    warnings: tuple[str, ...] = ()

    @property
    def model(self) -> ir.Model:
        return self.compressed if self.apart is None else self.apart.model

    @property
    def blocks(self) -> tuple[str, ...]:
        """Keys of the blocks that were taken apart."""
        return () if self.apart is None else self.apart.blocks

    @property
    def norms(self) -> int:
        """How many norms were put back."""
        return 0 if self.apart is None else len(self.apart.norms)

    def put_back(self, weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """Give the compressed model what was learned, in place; the names of the initializers that changed."""
        if self.apart is not None:
            weights = merged_weights(self.network, self.plan, self.compressed, self.apart, weights)
        return put_back(self.compressed, weights)

    def after(self, held_out: Calibration, batch: int) -> Divergence:
        """How far the compressed model, as it is now, lies from the original."""
        wanted = outputs_of(self.network.model, held_out, batch)
        return quality(wanted, self.compressed, held_out, batch)


def subject_of(
    prepared: Prepared,
    compressed: ir.Model,
    data: Calibration,
    names: tuple[str | Path, str | Path],
    *,
    apart: bool,
    norms: bool,
) -> Subject:
    """What of ``compressed`` is trained; ``names`` are the original's path and its own.  ``norms`` need ``apart``.

    Raises:
        UsageError: the network computes in bfloat16.
        ModelError: the file holds no plan, a damaged one, or one of another model.
    """
    network = prepared.network
    if not apart:
        return Subject(network, compressed)
    if network.widened is not None:
        raise UsageError("--unmerged takes no model that computes in bfloat16; train it merged, without the option.")
    plan = planned(network, compressed, *names)
    try:
        moved = moved_merges(network, plan, compressed)
        plan = [each for each in plan if each.key not in moved]
        found = taken_apart(prepared, plan, compressed, data if norms else None)
    except ValueError as error:
        raise ModelError(
            f"{names[1]} was changed since olm compress wrote it ({error}); compress again, or leave out --unmerged."
        ) from error
    warnings: tuple[str, ...] = () if found.blocks or moved else (NOTHING_MERGED.format(compressed=names[1]),)
    if moved:
        merges = len(moved) + len(found.blocks)
        warnings = (ALREADY_TRAINED.format(moved=len(moved), merges=merges, compressed=names[1]),)
    return Subject(network, compressed, plan, found, warnings)


def lost_by_merging(before: Divergence, after: Divergence) -> tuple[str, ...]:
    """A warning where the merged model is clearly further from the original than the one that was trained."""
    if after.kl <= NEAR * before.kl + NOTHING:
        return ()
    return (LOST_BY_MERGING.format(before=before.kl, after=after.kl),)


def taken_apart(
    prepared: Prepared, plan: Sequence[Candidate], compressed: ir.Model, normed_on: Calibration | None
) -> Unmerged:
    """The model before its merges, with norms where ``normed_on`` has samples for their statistics.

    Raises:
        ValueError: the plan's merges are not in ``compressed``.
    """
    network = prepared.network
    found = unmerged(network, plan, compressed)
    if normed_on is None:
        return found
    known = normed_weights(load_runnable(network.source)) & {
        str(value.name) for node in network.order for value in node.inputs if value is not None
    }
    names = [info.name for info in network.inputs]
    batches = normed_on.take(max(MEASURED_ON, prepared.batch)).batches(prepared.batch)
    # A file that was exported with its norms folded shows none: then any convolution may have had one.
    return with_norms(found, ({name: feeds[name] for name in names} for feeds in batches), known or None)


def planned(network: Network, compressed: ir.Model, original: str | Path, path: str | Path) -> list[Candidate]:
    """The blocks of the plan that the file at ``path`` holds.

    Raises:
        ModelError: it holds none, a damaged one, or one of another model than ``network``.
    """
    record = {k.removeprefix(NOTES): v for k, v in compressed.metadata_props.items() if k.startswith(NOTES)}
    if "plan" not in record:
        raise ModelError(f"{path} holds no plan of olm compress, so what was merged is unknown; leave out --unmerged.")
    if record.get("input.sha256", network.digest) != network.digest:
        raise ModelError(f"{path} was not made from {original}; give the very file that olm compress read.")
    keys, kinds = _keys(record), METHODS.get(record.get("method", "olm"))
    if keys is None:
        raise ModelError(f"the plan in {path} is damaged; compress again, or leave out --unmerged.")
    known = {each.key: each for each in enumerate_candidates(network, kinds=kinds or ())[0]}
    missing = [key for key in keys if key not in known]
    if missing:
        raise ModelError(
            f"the plan in {path} has a block '{missing[0]}' that this version does not find in {original}; compress "
            "again, or leave out --unmerged."
        )
    return [known[key] for key in keys]


def _keys(record: Mapping[str, str]) -> list[str] | None:
    try:
        found: Any = json.loads(record["plan"])
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(key, str) for key in found) else None
