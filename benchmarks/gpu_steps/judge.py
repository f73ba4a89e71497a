"""The bounds, as arithmetic on what the jobs answered; nothing here measures.

1. A repeated timing is trusted when the half-width of each interval is at most `INTERVAL` of the time, and when the
   same block in a second process is within `AGAIN` of the first.
2. Blocks add up when a chain of eight costs eight times one block, within `ADDS_UP`.
3. A driver is used when its contract tests ran on this GPU and none failed; one of them is enough.
4. The flow works when every step ended with exit code 0 (4: the speed-up asked for was not reached, and that was said).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ADDS_UP", "AGAIN", "INTERVAL", "additivity", "backends", "drivers", "flow", "repeat"]

INTERVAL = 0.01
AGAIN = 0.02
ADDS_UP = 0.05
Row = dict[str, Any]


def repeat(first: Sequence[Row], second: Sequence[Row]) -> Row:
    """Two processes' rows of the same blocks → one row a block, what missed a bound, and whether none did."""
    again = {row["block"]: row for row in second}
    rows, missed = [], []
    for row in first:
        other = again.get(row["block"], {"failure": "was not timed in the second process"})
        failure = row.get("failure") or other.get("failure")
        if failure:
            rows.append({"block": row["block"], "failure": failure})
            missed.append(f"{row['block']}: {failure}")
            continue
        widths = [each["half_width_s"] / each["seconds"] if each["seconds"] else 1.0 for each in (row, other)]
        change = other["seconds"] / row["seconds"] - 1 if row["seconds"] else 1.0
        judged = {
            "block": row["block"], "first_s": row["seconds"], "second_s": other["seconds"],
            "interval": max(widths), "change": change, "cold_s": row.get("cold_s"), "n": row["n"],
        }  # fmt: skip
        rows.append(judged)
        if judged["interval"] > INTERVAL:
            missed.append(f"{row['block']}: interval ±{judged['interval']:.2%}")
        if abs(change) > AGAIN:
            missed.append(f"{row['block']}: {change:+.2%} in the second process")
    missed += [] if rows else ["nothing was timed"]
    return {"rows": rows, "missed": missed, "ok": not missed}


def additivity(rows: Sequence[Row], length: int) -> Row:
    """Rows with the cost of one block and of a chain of ``length`` → how far the chain is from that many times one."""
    judged, missed = [], []
    for row in rows:
        if row.get("failure"):
            judged.append(row)
            missed.append(f"{row['block']}: {row['failure']}")
            continue
        off = row["chain_s"] / (length * row["one_s"]) - 1 if row["one_s"] else 1.0
        judged.append({**row, "off": off})
        if abs(off) > ADDS_UP:
            missed.append(f"{row['block']}: a chain of {length} is {off:+.1%} from {length} times one")
    missed += [] if judged else ["nothing was timed"]
    return {"rows": judged, "missed": missed, "ok": not missed}


def drivers(cases: Mapping[str, Mapping[str, Any]]) -> Row:
    """By adapter: tests that passed and failed on this GPU, and the reason where they were skipped."""
    missed = [f"{name}: {found['failed']} contract tests failed" for name, found in cases.items() if found["failed"]]
    if not any(found["passed"] for found in cases.values()):
        missed.append("no adapter reached a GPU")
    return {"cases": dict(cases), "missed": missed, "ok": not missed}


def backends(usable: Mapping[str, Mapping[str, str]]) -> Row:
    """By backend and precision: "" where it opened, else the reason."""
    found = [name for name, by_precision in usable.items() if "" in by_precision.values()]
    return {"usable": found, "missed": [] if found else ["no GPU backend is usable here"], "ok": bool(found)}


def flow(steps: Sequence[Row]) -> Row:
    """Steps of one model on one backend, each with its exit code (None: ended by its limit, or not begun)."""
    missed = [f"{step['step']}: {step['said']}" for step in steps if step["code"] != 0]
    missed += [] if steps else ["no step was begun"]
    return {"steps": list(steps), "missed": missed, "ok": not missed}
