"""The record of `ddpm.py` → the generated parts of docs/generation.md: what its rows are, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "ROWS", "Row", "page_of"]

PAGE = Path(__file__).resolve().parents[1] / "docs/generation.md"
Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table; ``options`` are those of `olm.compress`, and without any it is the original itself.

    ``noise`` is the seed of what is drawn from, ``shown`` whether the picture has the row.
    """

    title: str
    options: Json = field(default_factory=dict)
    noise: int = 0
    shown: bool = True


PAPER = {"method": "layermerge", "finetune": True, "finetune_minutes": 5}
ROWS = {
    "original": Row("the original"),
    "other-noise": Row("the original, other noise", noise=1, shown=False),
    "ours-1.15": Row("ours, 1.15×", {"speedup": 1.15}),
    "ours-1.3": Row("ours, 1.3×", {"speedup": 1.3}),
    "layermerge-1.15": Row("the paper's merge without training, 1.15×", {"speedup": 1.15, "method": "layermerge"}),
    "layermerge-1.3": Row("the paper's merge without training, 1.3×", {"speedup": 1.3, "method": "layermerge"}),
    "paper-1.15": Row("the paper's method, trained ¹, 1.15×", {"speedup": 1.15} | PAPER),
    "paper-1.3": Row("the paper's method, trained ¹, 1.3×", {"speedup": 1.3} | PAPER),
}


def cells(name: str, found: Json | None, loss: float) -> list[str]:
    """A line of the table; ``loss`` is the original's."""
    row = ROWS[name]
    if found is None:
        return [row.title, f"*not run: `python benchmarks/ddpm.py --only {name}`*", *[""] * 4]
    if "error" in found:
        return [row.title, found["error"], *[""] * 4]
    what = ", ".join(f"{count} {recipe}" for recipe, count in found.get("recipes", {}).items())
    ratio, distance = found.get("speedup"), f"{found['frechet']:.2f}"
    if ratio is None:
        return [row.title, "", "1×", f"{found['loss']:.4f}", "", distance]
    speedup = f"{ratio['ratio']:.3f}× [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return [row.title, what, speedup, f"{found['loss']:.4f}", f"{found['loss'] / loss - 1:+.1%}", distance]


def rows_table(record: Json) -> list[str]:
    """The rows, and where they are from."""
    rows, loss = record["rows"], record["rows"]["original"]["loss"]
    lines = ["| row | replaced | measured | loss | more | Fréchet |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(cells(name, rows.get(name), loss)) + " |" for name in ROWS]
    lines.append(f"| 1,000 held-out digits against the 4,000 others | | | | | {record['floor']:.2f} |")
    for said in (trained(rows), *surprises(rows, loss), about(list(rows.values()))):
        lines += ["", said] if said else []
    return lines


def trained(rows: dict[str, Json]) -> str:
    """What the rows marked ¹ were trained for, beside the minutes of their last training."""
    minutes = sorted({f"{row.options['finetune_minutes']:g}" for row in ROWS.values() if "finetune" in row.options})
    said = [
        f"¹ Its last training has {' or '.join(minutes)} minutes. On top of these comes a short training for each "
        "block, which gives its importance; the scores are shared by the speed-ups, so the row that is run first makes "
        "them."
    ]
    there = [row for name, row in rows.items() if "finetune" in ROWS[name].options and "training" in row]
    for row in sorted(there, key=lambda each: each["date"]):
        told, score_s = row["training"], row.get("stages_s", {}).get("score")
        part = "the part of importance is not in the record" if score_s is None else f"importance {score_s / 60:.1f}"
        said.append(
            f"{row['options']['speedup']:g}×: importance with {told['importance_steps']} steps a block, "
            f"{told['steps']:,} steps in the last training; `olm compress` took {row['compress_s'] / 60:.1f} minutes "
            f"of the clock in all ({part})."
        )
    return " ".join(said)


def surprises(rows: dict[str, Json], loss: float) -> list[str]:
    """Where more speed came with less loss, by the same method; ``loss`` is the original's."""
    done = [(name, rows[name]) for name in ROWS if ROWS[name].options and "loss" in rows.get(name, {})]
    found = []
    for number, (one, slow) in enumerate(done):
        for other, fast in done[number + 1 :]:
            alike = method_of(one) == method_of(other) and slow["options"]["speedup"] < fast["options"]["speedup"]
            if alike and fast["loss"] < slow["loss"]:
                found.append(
                    f"*{plain(other)}* lost less ({fast['loss'] / loss - 1:+.1%}) than *{plain(one)}* "
                    f"({slow['loss'] / loss - 1:+.1%}), though it is faster. Each was run once, with one seed, so "
                    "how much of that is chance is not known."
                )
    return found


def method_of(name: str) -> Json:
    """The options of a row but for the speed-up."""
    return {option: value for option, value in ROWS[name].options.items() if option != "speedup"}


def about(rows: list[Json]) -> str:
    """On what the rows were measured, and beside what load."""
    machines = sorted({row["machine"]["cpu"] for row in rows})
    packages = [sorted({f"{name} {row['versions'][name]}" for row in rows}) for name in ("onnxruntime", "numpy")]
    dates = sorted({row["date"][:10] for row in rows})
    said = f"{', '.join(machines)}, one thread, {' and '.join(dates)}; {', '.join(sum(packages, []))}."
    loads = sorted(row["load_before"] for row in rows if "load_before" in row)
    if loads:
        said += f" The machine's load average over a minute, as each row began: {loads[0]:.1f} to {loads[-1]:.1f}."
    return said


def plain(name: str) -> str:
    """A row's title without its mark."""
    return ROWS[name].title.replace(" ¹", "")


def picture_names(record: Json) -> list[str]:
    """What the rows of the picture are, from the top."""
    return [f"From the top: {'; '.join(map(plain, record.get('picture', ())))}."]


def importance_table(found: Json) -> list[str]:
    """How importance and increase go together."""
    lines = ["| against the increase of the loss | Spearman's ρ | Pearson's r |", "| --- | ---: | ---: |"]
    titles = {
        "distance": "E‖f − g‖² of the same model",
        "importance": "importance as it ranks blocks, 64 samples",
        "mixed": "the same with mixtures beside them, as in a run without `--val`",
    }
    lines += [f"| {titles[name]} | {found[name]['spearman']:.3f} | {found[name]['pearson']:.3f} |" for name in titles]
    return [*lines, "", f"{len(found['rows'])} blocks; increase ÷ E‖f − g‖²: {found['share']:.2f} (median)."]


def page_of(text: str, record: Json) -> str:
    """The page with the tables and the names of the picture's rows between their marks."""
    text = filled(text, "picture", picture_names(record))
    text = filled(text, "rows", rows_table(record))
    wanted = "*Not run: `python benchmarks/ddpm.py --importance`.*"
    found = record.get("importance")
    return filled(text, "importance", importance_table(found) if found else [wanted])


def filled(text: str, part: str, lines: list[str]) -> str:
    """The page with ``lines`` between the marks of ``part``."""
    begin, end = (f"<!-- {part}: {which} -->" for which in ("begin", "end"))
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE} has no {begin} … {end}; put them back.")
    return "\n".join([before + begin, "", *lines, "", end]) + after
