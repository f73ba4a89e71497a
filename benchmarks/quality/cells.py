"""What a page says of one row: its cells, its differences from another, and which of several is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from compare import bootstrap, bootstrap_of, hex_to_bits, mcnemar, snr_db
from jobs import NETWORKS, TOLERANCE
from rows import code_digest

__all__ = [
    *("against", "best_of", "cells", "cost", "fast_enough", "heads", "merit", "older", "original_line", "result"),
]

Row = dict[str, Any]


def older(row: Row) -> str:
    """What to add where the files that the row's model was made by are others now."""
    return "" if row["code"] == code_digest(row["method"]) else "; *older code*"


def heads(network: str) -> list[str]:
    if NETWORKS[network].labels:
        names = ("held-out", "all views", "same answer", "unlabelled")
    else:
        names = ("worst SNR", "rank correlation", "relative error", "same answer")
    title = " | ".join(("row", "variant", "measured", *names, "against ours", "cost"))
    return [f"| {title} |", "| --- | --- |" + " ---: |" * 5 + " --- | ---: |"]


def original_line(row: Row) -> str:
    scores = row["scores"]
    if "plain" not in scores:
        return f"| the original | | 1× | ∞ dB | 1 | 0 | {scores['unlabelled']['views']} views | | |"
    plain, views = scores["plain"], scores["views"]
    cells = f"{plain['original']}/{plain['images']} | {views['original'] / views['views']:.1%} of {views['views']}"
    return f"| the original | | 1× | {cells} | | {scores['unlabelled']['views']} views | | |"


def best_of(rows: Sequence[Row]) -> Row:
    """The row with the most right answers over all views, or the highest worst SNR; the first of equals.

    Rows that are too slow for the table only count where there is no other.
    """
    return max([row for row in rows if fast_enough(row)] or rows, key=merit)


def fast_enough(row: Row) -> bool:
    return bool(row["speed"]["ratio"] >= row["speedup"] * (1 - TOLERANCE))


def merit(row: Row) -> float:
    scores = row["scores"]
    return float(scores["views"]["correct"] if "views" in scores else scores["drift"]["snr_db"])


def result(row: Row) -> str:
    """The shortest result of a row."""
    if row["error"]:
        return "does not get there" if row["exit_code"] == 4 else "failed"
    scores = row["scores"]
    if "plain" in scores:
        return f"{scores['plain']['correct']}/{scores['plain']['images']}"
    return f"{scores['drift']['snr_db']:.1f} dB"


def measured(row: Row) -> str:
    speed = row["speed"]
    off = abs(speed["ratio"] / row["speedup"] - 1) > TOLERANCE
    return f"{speed['ratio']:.3f}× [{speed['low']:.3f}, {speed['high']:.3f}]{' †' if off else ''}"


def cells(row: Row) -> tuple[str, ...]:
    scores = row["scores"]
    foreign = scores["unlabelled"]
    if "plain" not in scores:
        drift = scores["drift"]
        return (
            measured(row),
            f"{drift['snr_db']:.1f} dB",
            f"{drift['rank_correlation']:.3f}",
            f"{foreign['relative']:.3f}",
            f"{foreign['agreement']:.1%}",
        )
    plain, views = scores["plain"], scores["views"]
    return (
        measured(row),
        f"{plain['correct']}/{plain['images']}",
        f"{views['correct'] / views['views']:.1%}",
        f"{plain['agreement']:.1%}",
        f"{foreign['agreement']:.1%}",
    )


def cost(row: Row) -> str:
    steps = [row[step] for step in ("base", "build") if step in row]
    return f"{sum(s['cpu_s'] for s in steps) / 60:.1f} min, {max(s['peak_rss_gb'] for s in steps):.1f} GB"


def against(row: Row, ours: Row) -> dict[str, str]:
    """Paired differences, row less ours, in words."""
    theirs, own = row["scores"], ours["scores"]
    found: dict[str, str] = {}
    if "views" in own:
        count, images = own["views"]["views"], own["plain"]["images"]
        right = [hex_to_bits(each["views"]["right"], count) for each in (theirs, own)]
        owner = np.tile(np.arange(images), count // images)
        found["answers"] = _points(right[0], right[1], owner)
        found["answers"] += f", p = {mcnemar(right[0][:images], right[1][:images]):.2g}"
    else:
        before, second = np.array(own["drift"]["before"]), np.array(own["drift"]["after"])
        first = np.array(theirs["drift"]["after"])
        owner = _pictures(own["unlabelled"])

        def gap(picked: np.ndarray) -> float:
            return snr_db(before[picked], first[picked]) - snr_db(before[picked], second[picked])

        low, high = bootstrap_of(gap, owner)
        found["SNR"] = f"{gap(np.arange(len(before))):+.1f} dB [{low:+.1f}, {high:+.1f}]"
    views = own["unlabelled"]["views"]
    same = [hex_to_bits(each["unlabelled"]["same"], views) for each in (theirs, own)]
    found["unlabelled"] = _points(same[0], same[1], _pictures(own["unlabelled"]))
    return found


def _pictures(unlabelled: Row) -> np.ndarray:
    """Which picture each unlabelled view is of: every picture has as many, one after the other."""
    return np.repeat(np.arange(unlabelled["pictures"]), unlabelled["views"] // unlabelled["pictures"])


def _points(first: np.ndarray, second: np.ndarray, owner: np.ndarray) -> str:
    difference = first.astype(float) - second.astype(float)
    low, high = bootstrap(difference, owner)
    return f"{100 * difference.mean():+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
