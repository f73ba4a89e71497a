"""The records of `run.py` → docs/quality.md, its picture, and the table of README.md.

    python benchmarks/quality/quality_page.py        # what `run.py` calls after every row
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import against, best_of, cells, cost, fast_enough, heads, merit, older, original_line, result
from jobs import DEVICES, FAMILIES, METHODS, NETWORKS, REQUIRED, ROOT
from picture import picture
from readme_part import placed
from rows import load_all
from variants import variants

__all__ = ["render"]

Row = dict[str, Any]
Key = tuple[str, float, str]

DRAWN, PICTURE = "lite0", Path("docs/accuracy.svg")

INTRODUCTION = """\
# Accuracy kept at one measured speed-up

No training, no labels; every model of a table was *measured* to be about as fast as every other, and all were fitted on
the same unlabelled calibration images. This page is generated from `benchmarks/records/quality/` by
`benchmarks/quality/run.py`; nothing in it is written by hand, and what was not run is said to be missing.

- **measured**: `olm verify`, original and result in turn within one run, process CPU time, one thread; the median of
  three such runs with its 95 % interval. † lies more than 2 % beside the speed-up of the table: too slow flatters a
  row, too fast wrongs it.
- **held-out**: right answers on labelled images that calibration never saw, one view each. **all views**: the same over
  five views of each image. **same answer**: as the original, on the plain images.
- **unlabelled**: same answer as the original on views of pictures from a source that calibration did not use.
- **against ours**: held-out answers of this row less ours, over all views, with a 95 % bootstrap interval that draws
  whole images; *p* is McNemar's, exact, two-sided, on one view each. Then the same for unlabelled agreement, drawing
  whole pictures. An interval without 0 is a difference.
- A row shows the best of the variants tried, best by the held-out score itself: the choice is in the rivals' favour.
  **+refit**: every convolution solved again near its weights on calibration images, α 0.1. Rivals fit on all
  calibration images; ours holds a quarter of them back to choose between plans.
- **cost**: CPU minutes of the process that built the model (with a refit, of both), and the memory peak. Block
  timings are shared by all methods of a network, so the first of them to run pays for them.

What the images are: [`benchmarks/quality/views.py`](../benchmarks/quality/views.py). The original's own score is in the
first line of each table.
"""


def render(rows: Sequence[Row]) -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for device in DEVICES:
        here = {key_of(row): row for row in rows if row["device"] == device and not row["variant"]}
        if device != "cpu" and not here:
            lines += [f"## On the synthetic device `{device}`", "", f"Not run: {command('lite0', device=device)}", ""]
            continue
        for network, job in NETWORKS.items():
            speedups = sorted({*(job.speedups if device == "cpu" else ()), *_speedups(rows, network, device)})
            for speedup in speedups:
                lines += section(network, speedup, device, here, rows)
    return "\n".join(lines).rstrip() + "\n"


def section(
    network: str, speedup: float, device: str, here: dict[Key, Row], rows: Sequence[Row]
) -> list[str]:
    """One table, what follows from it, and the rows with other settings."""
    where = "" if device == "cpu" else f", on the synthetic device `{device}`"
    lines = [f"## {NETWORKS[network].title}, {speedup:g}×{where}", ""]
    if device != "cpu":
        lines += ["Times are computed by the formula of `benchmarks/quality/launch_bound.py`; no device was timed.", ""]
    ours = here.get((network, speedup, "olm"))
    ours = None if ours is None or ours["error"] else ours
    lines += heads(network)
    original = next((r for r in here.values() if r["network"] == network and r.get("scores")), None)
    if original is not None:
        lines.append(original_line(original))
    for title, methods in FAMILIES:
        found = [here[network, speedup, method] for method in methods if (network, speedup, method) in here]
        lines.append(family_line(title, methods, found, ours, command(network, speedup, methods[:1], device)))
    lines += ["", *verdicts(network, speedup, device, here)]
    lines += stages(ours)
    mine = [row for row in rows if (row["network"], row["speedup"], row["device"]) == (network, speedup, device)]
    lines += variants(network, mine)
    return lines


def stages(ours: Row | None) -> list[str]:
    """What each stage of our row took, in one sentence; nothing for rows that did not record it."""
    found = [] if ours is None else ours["build"].get("detail", {}).get("stages", [])
    said = [
        f"{stage['name']} {stage['wall_s']:.0f} s ({stage['cpu_s']:.0f} s CPU), {stage['memory_gb']:.1f} GB"
        for stage in found
        if stage["wall_s"] >= 1
    ]
    return ["Stages of our row: " + "; ".join(said) + ".", ""] if said else []


def family_line(
    title: str, methods: Sequence[str], found: list[Row], ours: Row | None, hint: str
) -> str:
    if not found:
        return f"| {title} | *not run: {hint}* | | | | | | | |"
    done = [row for row in found if not row["error"]]
    if not done:
        said = "; ".join(dict.fromkeys(f"{row['method']}: {row['error']}" for row in found))
        return f"| {title} | *{said}* | | | | | | | |"
    best = best_of(done)
    words = best["method"] if len(methods) > 1 else ""
    told = [best[step]["words"] for step in ("base", "build") if step in best]
    words += f"{': ' if words else ''}{', '.join(told)}"
    others = [f"{row['method']} {result(row)}" for row in found if row is not best]
    lacking = [method for method in methods if method not in {row["method"] for row in found}]
    words += f"; also {', '.join(others)}" if others else ""
    words += f"; *not run: {', '.join(lacking)}*" if lacking else ""
    words += older(best)
    return f"| {title} | {words} | " + " | ".join((*cells(best), compared(best, ours), cost(best))) + " |"


def compared(row: Row, ours: Row | None) -> str:
    if ours is None or row is ours or row["method"] == "olm" and not row["variant"]:
        return ""
    return "; ".join(f"{name} {value}" for name, value in against(row, ours).items())


def verdicts(network: str, speedup: float, device: str, here: dict[Key, Row]) -> list[str]:
    """What is required of our row, and whether it is first."""
    ours = here.get((network, speedup, "olm"))
    if ours is None or ours["error"]:
        return ["Ours is missing, so nothing can be said about it.", ""]
    said = []
    wanted = REQUIRED.get((network, speedup)) if device == "cpu" else None
    if wanted is not None:
        plain = ours["scores"]["plain"]
        found = [("right answers", plain["correct"], wanted.correct, wanted.correct_goal, "{:g}")]
        if wanted.agreement is not None:
            found.append(("same answer", plain["agreement"], wanted.agreement, wanted.agreement_goal, "{:.1%}"))
        for name, value, least, goal, form in found:
            met = "goal met" if value >= goal else "required met, goal missed" if value >= least else "**MISSED**"
            asked = f"required {form.format(least)}, goal {form.format(goal)}"
            said.append(f"{name} {form.format(value)} ({asked}): {met}.")
    rivals = [r for (n, s, m), r in here.items() if (n, s) == (network, speedup) and m != "olm" and not r["error"]]
    rivals = [row for row in rivals if fast_enough(row)]
    missing = [m for m in METHODS if (network, speedup, m) not in here]
    if rivals:
        best = best_of(rivals)
        lead = merit(ours) - merit(best)
        word = "ahead of" if lead > 0 else "level with" if lead == 0 else "**BEHIND**"
        shown = "all views" if "views" in ours["scores"] else "worst SNR"
        found = f"{over_all(ours)} against {over_all(best)}"
        said.append(f"By {shown} ours is {word} the best rival, {best['method']} ({found}).")
    if missing:
        said.append(f"{len(missing)} of {len(METHODS)} methods were not run.")
    return [" ".join(said), ""] if said else []


def over_all(row: Row) -> str:
    """What rows are compared by, with the plain answers where there are any."""
    views = row["scores"].get("views")
    return result(row) if views is None else f"{views['correct'] / views['views']:.1%}, one view each {result(row)}"


def command(network: str, speedup: float | None = None, methods: Sequence[str] = (), device: str = "cpu") -> str:
    words = ["python benchmarks/quality/run.py", network]
    words += [f"--speedup {speedup:g}"] if speedup is not None else []
    words += [f"--method {','.join(methods)}"] if methods else []
    words += [f"--device {device}"] if device != "cpu" else []
    return f"`{' '.join(words)}`"


def key_of(row: Row) -> Key:
    return row["network"], row["speedup"], row["method"]


def _speedups(rows: Sequence[Row], network: str, device: str) -> set[float]:
    return {row["speedup"] for row in rows if row["network"] == network and row["device"] == device}


def write(place: Path, text: str) -> None:
    """Whole or not at all."""
    part = place.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(place)


def main() -> int:
    rows = load_all()
    write(ROOT / "docs/quality.md", render(rows))
    write(ROOT / PICTURE, picture(DRAWN, rows))
    write(ROOT / "README.md", placed((ROOT / "README.md").read_text(encoding="utf-8"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
