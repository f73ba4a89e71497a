"""What each block costs once the network was trained a little around it: the paper's importance.

LayerMerge (Kim, El Halabi, Ji, Song; ICML 2024, arXiv 2406.12837, §4) gives a block of layers i+1 … j the importance

    I[i,j,k] = exp(performance with only that block replaced, after a short fine-tuning − the original's),

a layer that stays one of exp(0) = 1, and looks for the plan of the largest Σ I.  The program here minimizes a sum of
losses in which what stays counts nothing; with n = j − i layers in a block,

    Σ over blocks I + Σ over kept layers 1 = layers − Σ over blocks (n − I),

so a block's loss is n − I: the same plans are best.  A block that is better than the original (I > n) counts as one
that loses nothing.  The performance is −KL to the original on held-out samples, or the user's own metric.

All blocks are trained at one rate, so that they can be compared, and none of the steps goes into finding it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnx_layermerge.candidates import Candidate
from onnx_layermerge.data import Calibration
from onnx_layermerge.errors import TargetError
from onnx_layermerge.flow._choose import Case
from onnx_layermerge.flow._effort import Effort
from onnx_layermerge.flow._importance_file import Entry, open_files
from onnx_layermerge.flow._in_place import structure
from onnx_layermerge.flow._prepare import Prepared, Progress
from onnx_layermerge.flow._record import file_digest
from onnx_layermerge.flow._scores import bounded
from onnx_layermerge.flow._subject import taken_apart
from onnx_layermerge.flow._timed import Timed
from onnx_layermerge.flow._training_batch import own_batch, whole_batch
from onnx_layermerge.importance import Divergence, Score, Scores
from onnx_layermerge.plan import Choice
from onnx_layermerge.recover.training import Answers, Options, Trained, fastest, put_back, train
from onnx_layermerge.report import metric_name
from onnx_layermerge.verify import Metric, outputs_of, quality

__all__ = ["BATCH", "BASIS", "Importance", "Wanted", "loss_of", "scored_by_training"]

BASIS = "importance"
BATCH = 32
# Of a short training, behind its last step; each costs a run over the held-out samples.
LOOKS = 1
# Tried for a whole short training of one block each, the largest first; networks differ by a factor of a hundred.
RATES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)


@dataclass(frozen=True)
class Wanted:
    """What was asked of the training; ``shard`` (number from 1, of how many) computes its part of the entries only.
    ``importance_lr`` None finds the rate with one block; with ``norms`` every training has some."""

    importance_steps: int
    files: tuple[Path, ...]
    minutes: float | None
    steps: int | None
    device: str
    shard: tuple[int, int] | None = None
    importance_lr: float | None = None
    norms: bool = False


@dataclass(eq=False)
class Importance:
    """Scores by training, for the search; ``taken`` are files that the run uses for something else."""

    wanted: Wanted
    taken: tuple[Path, ...] = ()
    gains: dict[str, float] | None = None

    def scores(self, case: Case, candidates: Sequence[Candidate], effort: Effort) -> Scores:
        """Every candidate's divergence after its short training.

        Raises:
            DataError, UsageError, ModelError, OutputError: as of ``train`` and of the files.
        """
        if case.fit_data is None:
            raise ValueError("a training needs data")
        entries, _ = scored_by_training(
            case.prepared, candidates, case.fit_data, case.held_out, self.wanted, metric=case.metric, effort=effort,
            seed=case.seed, taken=self.taken, progress=case.progress,
        )  # fmt: skip
        self.gains = {candidate.key: entries[candidate.key].gain for candidate in candidates}
        return Scores({key: Score(entry.divergence) for key, entry in entries.items()})

    def bases(self, candidates: Sequence[Candidate], timed: Timed) -> dict[str, tuple[Choice, ...]]:
        """The paper's objective as losses.

        Raises:
            TargetError: no block leaves anything of the outputs.
        """
        gains = self.gains or {}
        kept = [candidate for candidate in candidates if math.isfinite(gains[candidate.key])]
        if not kept:
            raise TargetError("no replacement keeps anything of the outputs on these samples; give --calib more.")
        return {
            BASIS: tuple(
                Choice(
                    each.key,
                    each.region.start,
                    each.region.stop,
                    timed.savings_s[each.key],
                    loss_of(len(each.region.convs), gains[each.key]),
                )
                for each in kept
            )
        }


def loss_of(layers: int, gain: float) -> float:
    """n − exp(Δ), 0 where it would be less."""
    return max(0.0, layers - math.exp(min(gain, 700.0)))


def scored_by_training(
    prepared: Prepared,
    candidates: Sequence[Candidate],
    fit_data: Calibration,
    held_out: Calibration,
    wanted: Wanted,
    *,
    metric: Metric | None,
    effort: Effort,
    seed: int,
    taken: Sequence[Path],
    progress: Progress,
) -> tuple[dict[str, Entry], int]:
    """Entries by key of all candidates, or of those of the shard; and how many of them were not known yet."""
    judged = bounded(prepared, held_out.take(min(effort.scoring_held_out, len(held_out)), seed), seed)
    shapes = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(prepared.bound.items()))
    files = open_files(
        wanted.files,
        {
            "the model": prepared.network.digest,
            "--shapes or --batch": shapes,
            "the data": f"{fit_data.digest()}+{held_out.digest()}",
            "--effort": f"{len(judged)} samples judge",
            "--importance-steps": str(wanted.importance_steps),
            "--importance-lr": "tried" if wanted.importance_lr is None else f"{wanted.importance_lr:g}",
            "--metric": "none" if metric is None else _measured_by(metric),
            "--seed": str(seed),
            **({"--norms": "put back"} if wanted.norms else {}),
        },
        taken,
    )
    trial = _Trial(prepared, fit_data, judged, wanted, metric, seed)
    rate = files.rate if wanted.importance_lr is None else wanted.importance_lr
    part = [each for each in candidates if _of_shard(prepared, each, wanted.shard)]
    found: dict[str, Entry] = {}
    trained = 0
    for number, candidate in enumerate(part):
        entry = files.get(candidate)
        if entry is None:
            if rate is None:
                progress("score", number, len(part), "looking for a rate")
                rate = trial.fastest(candidates)
            progress("score", number, len(part), f"training with {candidate.key}")
            entry = trial.entry(candidate, rate)
            files.add(candidate.key, entry)
            trained += 1
        found[candidate.key] = entry
    files.begin()
    progress("score", len(part), len(part), "scored")
    return found, trained


def _measured_by(metric: Metric) -> str:
    """The metric's words, a digest of its file, and what it says of the original, in as many digits as other machines
    get too: what a script reads shows nowhere else."""
    source, path = metric.function.source, metric.function.path
    if path is None and ":" in source:  # NAME:FILE.npz#output
        path = Path(source.partition(":")[2].partition(".npz")[0] + ".npz")
    digest = "" if path is None else f" {file_digest(path)}"
    return f"{metric_name(source)}{digest} {metric.original:.4g}"


def _of_shard(prepared: Prepared, candidate: Candidate, shard: tuple[int, int] | None) -> bool:
    """By the place among all candidates: which of them are worth a training is another matter on another device."""
    if shard is None:
        return True
    number, count = shard
    return prepared.candidates.index(candidate) % count == number - 1


class _Trial:
    """Short trainings of one network, a block of it replaced at a time."""

    def __init__(
        self,
        prepared: Prepared,
        fit_data: Calibration,
        judged: Calibration,
        wanted: Wanted,
        metric: Metric | None,
        seed: int,
    ) -> None:
        self._prepared, self._fit, self._judged, self._metric = prepared, fit_data, judged, metric
        self._exact = outputs_of(prepared.network.model, judged, prepared.batch)
        self._normed_on = fit_data if wanted.norms else None
        self._answers: dict[int | None, Answers] = {}
        self._options = Options(
            steps=wanted.importance_steps, batch=BATCH, seed=seed, device=wanted.device, checks=LOOKS
        )

    def fastest(self, candidates: Sequence[Candidate]) -> float:
        """The rate that brings the network closest to the original with the block in the middle replaced; the smallest
        where none brings it closer.  It is the same for every part of the blocks."""
        # From the middle on outwards, where that block leaves nothing that could be trained.
        middle = len(candidates) / 2
        for place in sorted(range(len(candidates)), key=lambda place: abs(place - middle)):
            model, before = self._replaced(candidates[place])
            if not math.isfinite(before.kl):
                continue
            return fastest(before.kl, partial(self._apart, model), RATES)
        return RATES[-1]

    def entry(self, candidate: Candidate, rate: float) -> Entry:
        model, before = self._replaced(candidate)
        if not math.isfinite(before.kl):
            return Entry(candidate.structure, before, -math.inf, before.kl, rate)
        found = self._trained(model, rate)
        gain = -found.divergence.kl
        if self._metric is not None:
            put_back(model, found.weights)
            gain = self._metric.score(model) - self._metric.original
        return Entry(candidate.structure, found.divergence, gain, before.kl, rate)

    def _replaced(self, candidate: Candidate) -> tuple[ir.Model, Divergence]:
        """The network with the block replaced, before its merge, and how far its outputs lie from the original's."""
        prepared = self._prepared
        # What the merge would weigh is of no matter here: it is taken apart at once.
        merged = structure(prepared, [candidate])
        model = taken_apart(prepared, [candidate], merged, self._normed_on).model
        return model, quality(self._exact, model, self._judged, prepared.batch)

    def _apart(self, model: ir.Model, rate: float) -> float:
        return self._trained(model, rate).divergence.kl

    def _trained(self, model: ir.Model, rate: float) -> Trained:
        own = own_batch(self._prepared, model)
        batch = whole_batch(min(BATCH, len(self._fit)), own)
        answers = self._answers.setdefault(own, Answers())
        options = replace(self._options, own_batch=own, batch=batch, rate=rate)
        return train(model, self._prepared.network.model, self._fit, self._judged, options, answers=answers)
