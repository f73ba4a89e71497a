"""What every block costs alone: worked out once for a model and its samples.

Another speed-up or another number of plans needs the same scores of the same blocks, so they are remembered.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import numpy as np

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration, with_mixtures
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._remembered import keep, place
from onnx_layermerge.importance import Divergence, Score, Scores, score

__all__ = ["bounded", "scored"]

# Outputs of images (segmentation) are large; a set of them is held for every candidate of one exit.
OUTPUT_BYTES = 48 << 20
# A file holds 16 KiB for each candidate.
MOST_REMEMBERED = 8
# All that decides on a score.
_ROOMS = ("graph", "merge", "candidates", "data", "fit", "importance")
_CODE = (*(f"{room}/**/*.py" for room in _ROOMS), "flow/_scores.py")


def scored(
    prepared: Prepared,
    candidates: Sequence[Candidate],
    fit_data: Calibration | None,
    validation: Calibration,
    *,
    effort: Effort,
    seed: int,
    mixing: bool = False,
    progress: Progress,
) -> Scores:
    """Importance of every candidate on as many validation samples as ``effort`` has it, and with ``mixing`` on
    mixtures of them too."""
    judged = validation.take(min(effort.scoring_held_out, len(validation)), seed)
    judged = bounded(prepared, with_mixtures(judged, seed) if mixing else judged, seed)
    shapes = {name: list(shape) for name, shape in sorted(prepared.bound.items())}
    data = ["" if fit_data is None else fit_data.digest(), judged.digest(), prepared.batch]
    keys = [candidate.key for candidate in candidates]
    what = [prepared.network.digest, shapes, *data, keys, effort.scoring_fit, seed]
    path = place("scores", *what, code=_CODE).with_suffix(".npz")
    known = _recall(path, keys)
    if known is not None:
        progress("score", len(keys), len(keys), "known from a run before")
        return known
    found = score(
        prepared.network,
        candidates,
        fit_data,
        judged,
        images=effort.scoring_fit,
        batch=prepared.batch,
        seed=seed,
        progress=lambda done, total, what: progress("score", done, total, what),
    )
    keep(path, _packed(found), most=MOST_REMEMBERED)
    return found


def bounded(prepared: Prepared, data: Calibration, seed: int) -> Calibration:
    """As many of the samples as keep one set of outputs within ``OUTPUT_BYTES``."""
    sizes = [prepared.shapes[name] for name in prepared.network.outputs if name in prepared.shapes]
    each = max(1, sum(4 * prod(shape[1:]) for shape in sizes))
    return data.take(min(len(data), max(2, prepared.batch, OUTPUT_BYTES // each)), seed)


def _packed(scores: Scores) -> bytes:
    """Numbers as JSON, which keeps every bit of a float, and the moves as one array."""
    rows = {key: asdict(replace(score, move=None)) for key, score in scores.by_key.items()}
    moves = {key: score.move for key, score in scores.by_key.items() if score.move is not None}
    file = io.BytesIO()
    stack = np.stack(list(moves.values())) if moves else np.empty((0, 0), np.float32)
    np.savez(file, rows=np.array(json.dumps([rows, list(moves)])), moves=stack)
    return file.getvalue()


def _recall(path: Path, keys: Sequence[str]) -> Scores | None:
    """What ``_packed`` wrote, if it is there and whole."""
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        with np.load(path, allow_pickle=False) as held:
            rows, moved = json.loads(str(held["rows"]))
            moves = dict(zip(moved, held["moves"], strict=True))
        found = {
            key: Score(**{**row, "divergence": Divergence(**row["divergence"]), "move": moves.get(key)})
            for key, row in rows.items()
        }
        if found.keys() == set(keys):
            return Scores(found)
    return None
