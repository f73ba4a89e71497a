"""What a page says of rows with other settings: seeds, calibration sizes, efforts, ingredients left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from cells import against, cells, cost, heads, older

__all__ = ["variants"]

Row = dict[str, Any]


def variants(network: str, rows: Sequence[Row]) -> list[str]:
    """A table of the ``rows`` of one network, speed-up and device that are not made with the defaults; nothing without
    any.  Then how far seeds differ."""
    here = [row for row in rows if row["variant"]]
    if not here:
        return []
    lines = ["With other settings:", "", *heads(network)]
    base = {row["method"]: row for row in rows if not row["variant"]}
    for row in sorted(here, key=lambda row: (row["method"], row["variant"])):
        words = row["variant"].replace("_", " ") + older(row)
        if row["error"]:
            lines.append(f"| {row['method']} | {words}: *{row['error']}* | | | | | | | |")
            continue
        reference = base.get(row["method"])
        reference = None if reference is None or reference["error"] else reference
        said = "; ".join(f"{k} {v}" for k, v in against(row, reference).items()) if reference else ""
        lines.append(f"| {row['method']} | {words} | " + " | ".join((*cells(row), said, cost(row))) + " |")
    return [*lines, "", "Here *against ours* is against the same method with its defaults.", "", *_seeds(rows)]


def _seeds(rows: Sequence[Row]) -> list[str]:
    """How our rows differ that differ in nothing but their seed; the defaults are seed 0."""
    own = [row for row in rows if row["method"] == "olm" and not row["error"]]
    found = {_seed(row): row for row in own if set(row["settings"]) <= {"seed"}}
    if len(found) < 2:
        return []
    said = []
    for name, value, form in _FIGURES:
        values = [value(found[seed]) for seed in sorted(found) if _has(found[seed])]
        if len(values) > 1:
            each = ", ".join(form.format(one) for one in values)
            said.append(f"{name} {each} (mean {form.format(mean(values))}, standard deviation {stdev(values):.2g})")
    old = "; *some are of older code*" if any(older(row) for row in found.values()) else ""
    return [f"Seeds {', '.join(str(seed) for seed in sorted(found))}: {'; '.join(said)}{old}.", ""] if said else []


def _seed(row: Row) -> int:
    return int(row["settings"].get("seed", 0))


def _has(row: Row) -> bool:
    return "plain" in row["scores"]


_FIGURES: tuple[tuple[str, Callable[[Row], float], str], ...] = (
    ("right answers", lambda row: float(row["scores"]["plain"]["correct"]), "{:g}"),
    ("same answer", lambda row: 100 * float(row["scores"]["plain"]["agreement"]), "{:.1f} %"),
    ("all views", lambda row: 100 * row["scores"]["views"]["correct"] / row["scores"]["views"]["views"], "{:.1f} %"),
    ("unlabelled", lambda row: 100 * float(row["scores"]["unlabelled"]["agreement"]), "{:.1f} %"),
    ("measured", lambda row: float(row["speed"]["ratio"]), "{:.3f}×"),
)
