"""The record as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["render"]

Row = dict[str, Any]


def render(record: Row) -> str:
    """The whole page: one section a part, in the order in which they are run."""
    lines = [f"# {record['title']}", "", f"{record['device']}; {record['date'][:10]}.", ""]
    for part, section in _SECTIONS.items():
        for name, found in sorted(record["parts"].get(part, {}).items()):
            lines += [f"## {part}{': ' + name if name else ''}", "", *section(found), *_verdict(found), ""]
    return "\n".join(lines).rstrip() + "\n"


def _verdict(found: Row) -> list[str]:
    lines = [f"- missed: {text}" for text in found["missed"]] or ["All bounds are kept."]
    return ["", *lines, *(f"- warning: {text}" for text in found.get("warnings", ()))]


def _backends(found: Row) -> list[str]:
    device, rows = found["device"], []
    for line in found["lines"]:
        opens = found["opens"].get(line["name"], {})
        words = ", ".join(precision for precision, reason in opens.items() if not reason)
        rows.append((line["name"], words or ("yes" if line["usable"] else "no"), line["detail"]))
    about = device.get("reason") or f"{device['name']}, compute capability {device['capability']}, {device['driver']}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"{about}. {device['clocks']}", "", f"Python {found['python']}; {versions}.", ""]
    lines += _table(("backend", "runs in", "what it says"), rows)
    validity = ", ".join(f"{name}: {words}" for name, words in found["engine_validity"].items())
    return [*lines, "", f"Engines of tensorrt-rtx on this machine, by what they were built for: {validity}."]


def _drivers(found: Row) -> list[str]:
    cases = found["cases"].items()
    return _table(
        ("driver", "passed", "failed", "skipped because"),
        [(name, case["passed"], case["failed"], case["skipped"]) for name, case in cases],
    )


def _repeat(found: Row) -> list[str]:
    rows = []
    for row in found["rows"]:
        if row.get("failure"):
            rows.append((row["block"], row["failure"], "", "", "", ""))
            continue
        width, change = f"±{row['interval']:.2%}", f"{row['change']:+.2%}"
        rows.append((row["block"], _us(row["first_s"]), _us(row["second_s"]), width, change, _us(row["cold_s"])))
    heads = ("block", "µs", "second process, µs", "interval", "change", "cold L2, µs")
    return [*_about(found), *_table(heads, rows)]


def _additivity(found: Row) -> list[str]:
    rows = []
    for row in found["rows"]:
        if row.get("failure"):
            rows.append((row["block"], row["failure"], "", ""))
        else:
            rows.append((row["block"], _us(row["one_s"]), _us(row["chain_s"]), f"{row['off']:+.1%}"))
    lines = [*_about(found), *_table(("block", "one, µs", "chain of 8, µs", "from 8 × one"), rows), ""]
    ways = [
        (row["block"], *(_us(row.get(f"{way}_s")) for way in ("graph", "events", "cold")), row.get("failure", ""))
        for row in found["ways"]
    ]
    return [*lines, *_table(("one run of", "graph, µs", "enqueued, µs", "graph, cold L2, µs", ""), ways)]


def _flow(found: Row) -> list[str]:
    rows = [(step["step"], _ended(step), f"{step['seconds']:.0f}", step["said"]) for step in found["steps"]]
    return _table(("step", "exit code", "s", "said"), rows)


def _ended(step: Row) -> str:
    if step["code"] is None:
        return "limit" if step["seconds"] else "not begun"
    return str(step["code"])


def _about(found: Row) -> list[str]:
    clocks = found.get("clocks") or []
    words = found["clocks_missing"]
    if clocks:
        ends = clocks[0], clocks[-1]
        before, after = ({**look, "reasons": ", ".join(look["reasons"] or ()) or "nothing"} for look in ends)
        form = "{sm_mhz} MHz SM, {memory_mhz} MHz memory, {temperature_c} °C, {power_w} W, slowed by: {reasons}"
        words = f"Before: {form.format(**before)}. After: {form.format(**after)}."
    return [f"{found['key']}.", "", words, ""]


def _us(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e6 * seconds:.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return [*lines, *("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows)]


_SECTIONS: dict[str, Callable[[Row], list[str]]] = {
    "backends": _backends, "drivers": _drivers, "repeat": _repeat, "additivity": _additivity, "flow": _flow,
}  # fmt: skip
