"""Numbers and names as a reader of a report sees them; the page and the summary use the same ones."""

from __future__ import annotations

import math
import shlex
from pathlib import PurePath

from onnx_layermerge.report._report import Block, Rejected, Report

__all__ = [
    "RECIPES",
    "agreement", "digits", "duration", "error", "file_name", "metric_name", "ms", "place", "plain", "recipe",
    "reproduce", "seconds", "share", "source_of", "times", "verdict",
]  # fmt: skip

# What a kind of replacement makes, in words.
RECIPES = {
    "drop": "dropped",
    "fit": "one fitted convolution",
    "identity": "left out",
    "low-rank": "a pair of low rank",
    "merge": "merged by algebra",
    "width": "fewer channels inside",
}
STEPS = {"refit": "kept convolutions were refitted", "tune": "weights were tuned by small steps",
         "finetune": "all weights were trained, before the merges"}  # fmt: skip


def source_of(report: Report) -> str:
    """Where the speed-up is from."""
    if report.measured_now:
        return "measured in this run"
    if report.plan:
        return "recorded in the plan that was followed, not measured in this run"
    return "read from the latency table, measured in an earlier run"


def metric_name(words: str) -> str:
    """``script.py:function`` or ``NAME:FILE.npz``, without the folders."""
    return ":".join(file_name(part) for part in words.split(":"))


def times(speedup: float, places: int = 2) -> str:
    """1.53×."""
    return f"{speedup:.{places}f}×"


def ms(milliseconds: float) -> str:
    """Three digits that matter: 0.0152, 3.21, 415; 0."""
    if milliseconds == 0:
        return "0"
    size = abs(milliseconds)
    return f"{milliseconds:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4}f}"


def digits(number: float | None, count: int = 3) -> str:
    """So many significant digits; a dash for what is not there."""
    if number is None or math.isnan(number):
        return "–"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    return f"{number:,.0f}" if 10**count <= abs(number) < 1e7 else f"{number:.{count}g}"


def share(number: float | None) -> str:
    """99.8 %."""
    return "–" if number is None or math.isnan(number) else f"{100 * number:.1f} %"


def seconds(number: float) -> str:
    """0.4 s, 43 s, 3 min 20 s."""
    if number < 59.5:
        return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"
    return f"{round(number) // 60} min {round(number) % 60} s"


def duration(report: Report) -> str:
    """The whole run."""
    return seconds(sum(report.seconds.values()))


def file_name(path: str) -> str:
    """The last part of a path."""
    return PurePath(path).name or path


def plain(text: str) -> str:
    """One line without characters that a reader could not see."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def recipe(block: Block) -> str:
    """What was done, in words."""
    return RECIPES.get(block.recipe, block.recipe)


def place(block: Block) -> str:
    """First and last convolution that was replaced."""
    names = block.replaced or (block.name,)
    return plain(names[0]) if len(names) == 1 else f"{plain(names[0])} … {plain(names[-1])}"


def error(report: Report) -> float:
    """By how much the table promised more (above zero) or less than was measured."""
    return report.predicted / report.speedup.ratio - 1


def agreement(report: Report) -> float | None:
    """Share of held-out samples with the same top-1 answer; None where there are no classes, or no data."""
    if report.validation is None or math.isnan(report.validation.agreement):
        return None
    return report.validation.agreement


def verdict(plan: Rejected) -> str:
    """Why a plan was not taken."""
    if not plan.missed:
        return "no better than the chosen one"
    return "refused by the backend" if plan.speedup == 0 else "too slow when it was timed again"


def reproduce(report: Report) -> str:
    """The command line, as it was given; empty for a run from Python."""
    return shlex.join(["olm", *report.command]) if report.command else ""
