"""A model file on the held-out views: numbers for the table, and what each view gave, for paired comparison."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from compare import bits_to_hex, snr_db, spearman
from jobs import NETWORKS, ROOT
from views import CACHE, Views, feeds, held_out, unlabelled

from onnx_layermerge.graph import Session
from onnx_layermerge.importance import divergence

__all__ = ["outputs", "scores"]

Row = dict[str, Any]


def outputs(network: str, model: bytes, image: np.ndarray) -> np.ndarray:
    """The first output for all images, [N, K]."""
    session = Session(model)
    return np.concatenate([next(iter(session.run(part).values())) for part in feeds(network, image)])


def _original(network: str, views: Views) -> np.ndarray:
    """The original's outputs, remembered under what they depend on."""
    model = (ROOT / NETWORKS[network].model).read_bytes()
    name = hashlib.sha256(hashlib.sha256(model).digest() + hashlib.sha256(views.image).digest()).hexdigest()[:16]
    path = CACHE / f"{network}_outputs_{name}.npy"
    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, outputs(network, model, views.image))
        part.replace(path)
    return np.asarray(np.load(path))


def scores(network: str, path: Path) -> Row:
    """Everything a row says about a model's answers; counts and shares, and bits in hexadecimal."""
    model = path.read_bytes()
    found: Row = {}
    labelled, foreign = held_out(network), unlabelled(network)
    if labelled is not None and labelled.accepted is not None:
        before, after = _original(network, labelled), outputs(network, model, labelled.image)
        found |= _labelled(labelled, before, after)
    before, after = _original(network, foreign), outputs(network, model, foreign.image)
    same = before.argmax(1) == after.argmax(1)
    drift = divergence({"": before}, {"": after})
    found["unlabelled"] = {
        "views": len(same),
        "pictures": foreign.images,
        "agreement": float(same.mean()),
        "same": bits_to_hex(same),
        "kl": drift.kl,
        "relative": drift.relative,
    }
    if labelled is None:
        columns = range(before.shape[1])
        found["drift"] = {
            "snr_db": min(snr_db(before[:, k], after[:, k]) for k in columns),
            "rank_correlation": min(spearman(before[:, k], after[:, k]) for k in columns),
            # One column a two-class softmax needs: the other is one minus it.
            "before": [float(f"{v:.6g}") for v in before[:, -1]],
            "after": [float(f"{v:.6g}") for v in after[:, -1]],
        }
    return found


def _labelled(views: Views, before: np.ndarray, after: np.ndarray) -> Row:
    assert views.accepted is not None
    right = [(out.argmax(1)[:, None] == views.accepted).any(axis=1) for out in (before, after)]
    same = before.argmax(1) == after.argmax(1)
    plain = slice(0, views.images)
    return {
        "plain": {
            "images": views.images,
            "correct": int(right[1][plain].sum()),
            "original": int(right[0][plain].sum()),
            "agreement": float(same[plain].mean()),
        },
        "views": {
            "views": len(same),
            "correct": int(right[1].sum()),
            "original": int(right[0].sum()),
            "agreement": float(same.mean()),
            "right": bits_to_hex(right[1]),
            "same": bits_to_hex(same),
        },
    }
