"""The table of README.md and the picture beside it, from the records of `run.py`; `quality_page.py` writes both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cells import best_of, cost, fast_enough, older, result
from jobs import FAMILIES, NETWORKS

__all__ = ["placed", "table"]

# README has the table between these lines, and nothing else there.
BEGIN, END = "<!-- written by benchmarks/quality/run.py -->", "<!-- until here -->"
HEAD = """\
| no training | measured | right | same answer | best of other tools | drops only | the paper's merge | cost |
| --- | --- | --- | ---: | --- | --- | --- | ---: |"""
DROP, MERGE = ("drop", "drop+refit"), ("layermerge",)
OTHERS = tuple(name for _, methods in FAMILIES for name in methods if name not in ("olm", *DROP, *MERGE))
Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """A line for each network and speed-up that our own method was measured at, on the processor."""
    lines = [HEAD]
    for network, job in NETWORKS.items():
        for speedup in job.speedups:
            here = [
                row
                for row in rows
                if (row["network"], row["speedup"], row["device"], row["variant"]) == (network, speedup, "cpu", "")
            ]
            ours = next((row for row in here if row["method"] == "olm" and not row["error"]), None)
            if ours is not None:
                lines.append(_line(f"{job.title}, `--speedup {speedup:g}`", ours, here))
    return "\n".join(lines)


def placed(readme: str, rows: Sequence[Row]) -> str:
    """``readme`` with the table in its place.

    Raises:
        ValueError: the lines that mark its place are not there, once each and in this order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}"


def _line(title: str, ours: Row, here: Sequence[Row]) -> str:
    speed, scores = ours["speed"], ours["scores"]
    measured = f"{speed['ratio']:.2f}× [{speed['low']:.2f}, {speed['high']:.2f}]"
    if "plain" in scores:
        plain, views = scores["plain"], scores["views"]
        before = f"was {views['original'] / views['views']:.1%}, {plain['original']}/{plain['images']}"
        same = f"{plain['agreement']:.1%}"
    else:
        before, same = "worst SNR", f"rank {scores['drift']['rank_correlation']:.3f}"
    right = f"**{_right(ours)}**; {before}"
    cells = (f"{title}{older(ours)}", measured, right, same, *(_best(here, names) for names in (OTHERS, DROP, MERGE)))
    return "| " + " | ".join((*cells, cost(ours))) + " |"


def _right(row: Row) -> str:
    """Of all views, by which rows are compared, and of one view each."""
    views = row["scores"].get("views")
    return result(row) if views is None else f"{views['correct'] / views['views']:.1%}, {result(row)}"


def _best(here: Sequence[Row], methods: Sequence[str]) -> str:
    """The best of some methods, with its name where there are several and its speed-up where that is not ours."""
    found = [row for row in here if row["method"] in methods]
    rows = [row for row in found if not row["error"]]
    lacking = len(methods) - len(found)
    if not rows:
        return "not run" if lacking else "none gets there"
    best = best_of(rows)
    name = f" by {best['method']}" if methods == OTHERS else ""
    slower = "" if fast_enough(best) else ", too slow"
    more = f"; {lacking} of {len(methods)} *not run*" if lacking else ""
    return f"{_right(best)}{name} at {best['speed']['ratio']:.2f}×{slower}{older(best)}{more}"
