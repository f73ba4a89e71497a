"""How much is tried before a plan is chosen: ``--effort``.

More never changes what a plan may hold, only how well candidates are known, how many plans are built, and whether the
best is searched around.  docs/quality.md has what each costs and gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_layermerge.errors import UsageError

__all__ = ["EFFORTS", "Effort", "effort_of"]


@dataclass(frozen=True)
class Effort:
    """Bounds on samples and plans.

    scoring_fit, scoring_held_out: samples that a single block is fitted and judged on while blocks are ranked.
    rivals: plans that are built and compared.
    ranking_fit: samples that their fits see at first; the best ``finalists`` are built again with all.
    trimmed: of the best plans, those that are timed closely to give back what they are faster than asked.
    nearby: plans around the best one that are built, with all samples, before it is taken.
    tuning: whether the insides of blocks are tuned once a plan is chosen.
    """

    scoring_fit: int
    scoring_held_out: int
    rivals: int
    ranking_fit: int
    finalists: int
    trimmed: int
    nearby: int
    tuning: bool


# Fewer samples for fits while plans are ranked would be unfair to fitted plans: they gain from every sample, drops
# do not.
EFFORTS = {
    "quick": Effort(
        **{"scoring_fit": 64, "scoring_held_out": 32, "rivals": 4, "ranking_fit": 128, "finalists": 1, "trimmed": 1},
        nearby=0,
        tuning=False,
    ),
    "normal": Effort(
        **{"scoring_fit": 96, "scoring_held_out": 64, "rivals": 12, "ranking_fit": 192, "finalists": 3, "trimmed": 2},
        nearby=0,
        tuning=True,
    ),
    "thorough": Effort(
        **{"scoring_fit": 192, "scoring_held_out": 128, "rivals": 20, "ranking_fit": 384, "finalists": 5, "trimmed": 4},
        nearby=24,
        tuning=True,
    ),
}


def effort_of(name: str) -> Effort:
    """The effort of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in EFFORTS:
        raise UsageError(f"--effort {name} is unknown; choose from {', '.join(EFFORTS)}.")
    return EFFORTS[name]
