"""The records of `run.py` → docs/training.md.

    python benchmarks/training/training_page.py        # what `run.py` calls after every row
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / "quality"), str(HERE.parent)]

from cells import against, fast_enough, measured, merit  # noqa: E402
from jobs import NETWORKS, ROOT  # noqa: E402
from rows import package_digest  # noqa: E402
from table import DEFAULT_STEPS, DEVICES, HELD_OUT, ROWS, TABLES, importance_steps, load_all  # noqa: E402

__all__ = ["render"]

Row = dict[str, Any]
# Before the merge against behind it, of one and the same plan.
PAIRS = (("layermerge+unmerged", "layermerge+finetune"), ("layermerge+norms", "layermerge+finetune"),
         ("olm+unmerged", "olm+finetune"))  # fmt: skip

INTRODUCTION = """\
# What training adds

Reconstruction without any training, the same with distillation behind it, and the paper's method with all of its
training, at equal minutes. Nothing here saw a label: every training is towards the original's answers, on the images
that the compression had. This page is generated from `benchmarks/records/training/` by `benchmarks/training/run.py`;
nothing in it is written by hand, and what was not run is said to be missing.

- **measured**: `olm verify`, original and result in turn within one run, process CPU time, one thread; the median of
  three such runs with its 95 % interval. † lies more than 2 % beside the speed-up of the table, because the method's
  plans jump there: too slow flatters a row, too fast wrongs it.
- **held-out**: right answers on labelled images that no training saw, one view each. **all views**: the same over five
  views of each image. **same answer**: as the original, on the plain images.
- **unlabelled**: same answer as the original on views of pictures from another source.
- **training**: minutes of CPU (in brackets those of the clock on the wall), one thread; all trainings of a table may
  take the same. Of the paper's rows the trainings that find the importance of blocks are part of it and are named; at
  least half of the minutes is left to the last training, so that a row can be over: in its favour. On a GPU the minutes
  are the clock's; plans are made for the processor and timed on it there too.
- **against no training**: held-out answers of this row less those of `olm compress` alone, over all views, with a 95 %
  bootstrap interval that draws whole images; *p* is McNemar's, exact, two-sided, on one view each. Then the same for
  unlabelled agreement, drawing whole pictures. An interval without 0 is a difference.

A quarter of the calibration samples, drawn by a fixed seed, is given to every call of a table as `--val`: it decides
between plans and between weights, and nothing is fitted to it or learns from it. Rows that were made without it are
named under their table, as is what the commands warned of.

What the images are: [`benchmarks/quality/views.py`](../benchmarks/quality/views.py). How training works:
[Fine-tuning](finetuning.md). Without training, beside other tools: [What it reaches](quality.md).
"""
HEADS = ("row", "what was done", "measured", "held-out", "all views", "same answer", "unlabelled",
         "against no training", "training")  # fmt: skip


def render(rows: Sequence[Row]) -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for network, table in TABLES.items():
        here = [row for row in rows if row["network"] == network]
        for speedup in sorted({*table.speedups, *(row["speedup"] for row in here)}):
            at = [row for row in here if row["speedup"] == speedup]
            there = {(device_of(row), row["minutes"]) for row in at if row["training"] != "none"}
            if all(device != "cpu" for device, _ in there):
                there.add(("cpu", table.minutes))
            for device, minutes in sorted(there, key=lambda each: (DEVICES.index(each[0]), each[1])):
                lines += section(network, speedup, minutes, at, device)
    if all(device_of(row) == "cpu" for row in rows):
        command = "python benchmarks/training/run.py --device cuda --minutes 60"
        lines += ["## On an NVIDIA GPU, for longer", "", f"*Not run: `{command}`.*"]
    return "\n".join(lines).rstrip() + "\n"


def device_of(row: Row) -> str:
    """Where it was trained."""
    return str(row.get("device", "cpu"))


def section(network: str, speedup: float, minutes: float, rows: Sequence[Row], device: str = "cpu") -> list[str]:
    """One table and what follows from it; rows without training belong to all minutes and devices."""
    asked = (device, minutes)
    here = {row["row"]: row for row in rows if row["training"] == "none" or (device_of(row), row["minutes"]) == asked}
    done = {name: row for name, row in here.items() if row.get("scores")}
    ours = done.get("olm")
    on = "" if device == "cpu" else f" on {device}"
    lines = [f"## {NETWORKS[network].title}, {speedup:g}×, {minutes:g} minutes{on}", ""]
    lines += [f"| {' | '.join(HEADS)} |", "| --- | --- |" + " ---: |" * 5 + " --- | ---: |"]
    if done:
        lines.append(original_line(next(iter(done.values()))))
    for name in TABLES[network].rows:
        row = here.get(name)
        fewer = fewer_steps(network, name, device, None if row is None else row["importance_steps"])
        lines.append(row_line(name, row, ours, command_of(network, speedup, name, minutes, device), fewer))
    return [*lines, "", *warned(here), *winner(done), *pairs(done), *about(list(done.values()))]


def command_of(network: str, speedup: float, name: str, minutes: float, device: str) -> str:
    """What runs a row."""
    table = TABLES[network]
    command = f"`python benchmarks/training/run.py {network} --speedup {speedup:g} --row {name}"
    command += "" if minutes == table.minutes else f" --minutes {minutes:g}"
    command += "`" if device == "cpu" else f" --device {device}`"
    return command


def fewer_steps(network: str, name: str, device: str, steps: int | None) -> str:
    """Why a row of the paper's method has not the usual steps of importance, after a semicolon; empty where it has."""
    table = TABLES[network]
    steps = importance_steps(network, device) if steps is None else steps
    if ROWS[name].training != "whole" or steps == DEFAULT_STEPS:
        return ""
    why = f": {table.why_steps}" if steps == table.importance_steps else ""
    return f"; importance with {steps} step{'s' * (steps != 1)} a block in place of {DEFAULT_STEPS}{why}"


def row_line(name: str, row: Row | None, ours: Row | None, command: str, fewer: str = "") -> str:
    title = ROWS[name].title
    if row is None:
        return f"| {title} | *not run: {command}*{fewer} | | | | | | | |"
    if not row.get("scores"):
        return f"| {title} | *{row['error']}*{fewer} | | | | | | | |"
    words = row["build"]["words"] + fewer + ("" if row["code"] == package_digest() else "; *older code*")
    told = row["build"].get("training", {})
    if told and not told["improved"]:
        words += "; no weights of the training were better than those before it"
    compared = ""
    if ours is not None and row is not ours:
        compared = "; ".join(f"{what} {value}" for what, value in against(row, ours).items())
    return f"| {title} | {words} | " + " | ".join((*cells(row), compared, cost(told, device_of(row)))) + " |"


def cells(row: Row) -> tuple[str, ...]:
    plain, views, foreign = (row["scores"][name] for name in ("plain", "views", "unlabelled"))
    return (
        measured(row),
        f"{plain['correct']}/{plain['images']}",
        f"{views['correct'] / views['views']:.2%}",
        f"{plain['agreement']:.1%}",
        f"{foreign['agreement']:.1%}",
    )


def cost(told: Row, device: str) -> str:
    if not told:
        return "none"
    on_cpu = device == "cpu"
    words = f"{told['cpu_s'] / 60:.1f} min ({told['wall_s'] / 60:.1f})" if on_cpu else f"{told['wall_s'] / 60:.1f} min"
    if "importance" in told:
        first = told["importance"]
        words += f", {first['cpu_s' if on_cpu else 'wall_s'] / 60:.1f} of it importance: {first['blocks']} blocks, "
        words += f"{first['steps']} steps each"
    return words


def original_line(row: Row) -> str:
    plain, views = row["scores"]["plain"], row["scores"]["views"]
    cells = f"{plain['original']}/{plain['images']} | {views['original'] / views['views']:.2%}"
    return f"| the original | | 1× | {cells} | | | | |"


def warned(here: dict[str, Row]) -> list[str]:
    """What the commands warned of, and whose rows had no held-out samples in common with the others."""
    found: dict[str, list[str]] = {}
    for name, row in here.items():
        build = row.get("build", {})
        for warning in dict.fromkeys([*build.get("warnings", ()), *build.get("report", {}).get("warnings", ())]):
            found.setdefault(warning, []).append(name)
    apart = [name for name, row in here.items() if row.get("scores") and row.get("held_out") != HELD_OUT]
    lines = [f"- {_titles(names)}: {warning.rstrip('.')}." for warning, names in found.items()]
    if apart:
        lines.append(f"- Made without the table's common `--val` (`--again` makes them with it): {_titles(apart)}.")
    return ["What was warned of:", "", *lines, ""] if lines else []


def _titles(names: Sequence[str]) -> str:
    return "; ".join(f"*{ROWS[name].title}*" for name in sorted(names, key=list(ROWS).index))


def winner(done: dict[str, Row]) -> list[str]:
    """What has the most right answers over all views of what is fast enough, and by how much."""
    fast = sorted((row for row in done.values() if fast_enough(row)), key=merit, reverse=True)
    if len(fast) < 2:
        return []
    first = fast[0]
    # The next that is made in another way: rows of one method differ by their training alone.
    other = next((row for row in fast if row["method"] != first["method"]), None)
    said = [f"Most right answers over all views: **{ROWS[first['row']].title}**"]
    if other is not None:
        said.append(f"against the best of another method, **{ROWS[other['row']].title}**: {_said(first, other)}")
    ours = done.get("olm")
    if ours is not None and first is not ours and other is not ours:
        said.append(f"against no training: {_said(first, ours)}")
    return ["; ".join(said) + ".", ""]


def pairs(done: dict[str, Row]) -> list[str]:
    """Which ends better for equal time, trained before the merge or behind it."""
    found = [
        f"{ROWS[one].title} against the merged training: {_said(done[one], done[other])}"
        for one, other in PAIRS
        if one in done and other in done
    ]
    return ["Before the merge or behind it: " + "; ".join(found) + ".", ""] if found else []


def _said(row: Row, other: Row) -> str:
    return ", unlabelled ".join(against(row, other).values())


def about(rows: Sequence[Row]) -> list[str]:
    """Where and when the rows were made."""
    if not rows:
        return []
    dates = sorted({row["date"][:10] for row in rows})
    machines = sorted({f"{row['machine']['cpu']}, {row['machine']['system']}" for row in rows})
    versions = rows[0]["versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "torch", "numpy") if name in versions)
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    gpus = sorted({row["device_name"] for row in rows if "device_name" in row})
    trained = f"; trained on {', '.join(gpus)}" if gpus else ""
    return [f"{'; '.join(machines)}, one thread{trained}; {shown}; {when}.", ""]


def main() -> int:
    page: Path = ROOT / "docs/training.md"
    part = page.with_suffix(".part")
    part.write_text(render(load_all()), encoding="utf-8")
    part.replace(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
