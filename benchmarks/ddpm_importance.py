"""Is the importance of a block what replacing it adds to the noise-prediction loss? (`ddpm.py --importance`)

For f the original, g with one block replaced, and the noise ε that was added,

    E‖ε − g‖² − E‖ε − f‖² = E‖f − g‖² + 2 E⟨ε − f, f − g⟩,

and the last term is 0 where f is the mean of ε given x_t and t: what is left of ε then is orthogonal to every function
of these. The first term is the importance, a relative squared error, times the spread of f. So for a denoiser that
learned its task, importance is the increase of its loss, known without the noise. How nearly that holds is measured
here, on blocks drawn at random from all candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from onnx_layermerge.data import ImageOptions, with_mixtures
from onnx_layermerge.flow._data import open_data
from onnx_layermerge.flow._effort import effort_of
from onnx_layermerge.flow._prepare import prepare
from onnx_layermerge.importance import divergence, score
from onnx_layermerge.recover import build
from onnx_layermerge.verify import metric_of, outputs_of

__all__ = ["importance"]

BLOCKS, SAMPLES = 24, 512


def importance(model: Path, calib: str, judge: str, progress: Callable[[str, int, int, str], None]) -> dict[str, Any]:
    """One row a block, and how its figures go together.

    ``importance`` is the score that ranks blocks, on as many samples as `--effort normal` has, ``mixed`` the same with
    mixtures of samples beside them, as a run without `--val` has it; ``distance`` is E‖f − g‖²/784 on all held-out
    samples, ``increase`` that of the loss on the digits of ``judge``. The last two are of one and the same model.
    """
    prepared, effort = prepare(model), effort_of("normal")
    data = open_data(prepared, calib, ImageOptions(), SAMPLES, 0)
    fit, validation = data.split(0.5)
    few = validation.take(effort.scoring_held_out)
    order = np.random.default_rng(0).permutation(len(prepared.candidates))
    blocks = [prepared.candidates[k] for k in order[:BLOCKS]]
    plain, mixed = (
        score(prepared.network, blocks, fit, judged, images=effort.scoring_fit, batch=prepared.batch).by_key
        for judged in (few, with_mixtures(few, 0))
    )
    metric = metric_of(judge, prepared.network, 100)
    wanted = outputs_of(prepared.network.model, validation, prepared.batch)
    (values,) = wanted.values()
    # A relative error counts in this unit: the mean square of what one value differs by between samples.
    unit = float(np.square(values - values.mean(axis=0, dtype=np.float64)).mean())
    rows = []
    for number, block in enumerate(blocks):
        progress("importance", number, len(blocks), block.key)
        if not np.isfinite(plain[block.key].divergence.relative):
            continue  # a fit that explains next to nothing is not scored
        built = build(prepared.network, [block], fit, images=effort.scoring_fit, batch=prepared.batch)
        moved = divergence(wanted, outputs_of(built.model, validation, prepared.batch))
        row: dict[str, Any] = {"block": block.key, "distance": moved.relative * unit}
        row |= {"importance": plain[block.key].divergence.relative, "mixed": mixed[block.key].divergence.relative}
        rows.append(row | {"increase": metric.original - metric.score(built.model)})
    increase = [row["increase"] for row in rows]
    found: dict[str, Any] = {"rows": rows, "unit": unit, "loss": -metric.original}
    for name in ("importance", "mixed", "distance"):
        other = [row[name] for row in rows]
        found[name] = {"spearman": float(spearmanr(other, increase)[0]), "pearson": float(pearsonr(other, increase)[0])}
    return found | {"share": float(np.median([row["increase"] / row["distance"] for row in rows]))}
