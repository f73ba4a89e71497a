"""A small denoiser of digits, compressed: what it loses at its own task, and in the digits that it draws.

    python benchmarks/ddpm.py [--only original,ours-1.15,…] [--importance] [--page] [--profile FILE]

For each row of `ROWS`, one after the other:
1. `olm.compress` of examples/ddpm/ddpm.onnx with the row's options, plans ranked by `metric.py:loss`;
2. `olm.verify`: measured speed-up, from the two files alone, and the noise-prediction loss on held-out digits by which
   nothing was chosen (`metric.py:judged`);
3. 2,000 digits drawn with DDIM, 50 steps, from one and the same noise for every row, and their Fréchet distance to all
   5,000 real digits in the features of the project's own classifier.
`other-noise` is the original with another noise: what a distance differs by for nothing.

`--importance` asks whether the importance of a block is what replacing it adds to that loss: for blocks drawn at random
from all candidates, one replaced at a time.

Writes records/ddpm.json after every row (rows that are not asked for stay), then the tables of docs/generation.md and
the picture beside it; `--page` does only the latter. The compressed models and drawn digits stay in models/ddpm.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import onnx_layermerge as olm
from ddpm_importance import importance
from main_job import chosen, machine, versions, write_json
from onnx_layermerge.graph import read
from onnx_layermerge.verify import metric_of

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/ddpm"
ORIGINAL = EXAMPLE / "ddpm.onnx"
MODELS = ROOT / "models/ddpm"
RECORD = ROOT / "benchmarks/records/ddpm.json"
PAGE = ROOT / "docs/generation.md"
PICTURE = ROOT / "docs/generation.png"
DRAWN, SHOWN, STEPS = 2000, 16, 50
CALIB, CHOOSE, JUDGE = (f"{EXAMPLE}/{name}" for name in ("data.py:calibration", "metric.py:loss", "metric.py:judged"))

Json = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


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
    "paper-1.15": Row("the paper's method, 5 minutes of training, 1.15×", {"speedup": 1.15} | PAPER),
    "paper-1.3": Row("the paper's method, 5 minutes of training, 1.3×", {"speedup": 1.3} | PAPER),
}


@contextmanager
def following(title: str) -> Iterator[Callable[[str, int, int, str], None]]:
    """A progress bar on stderr that follows a flow."""
    with Progress(console=err) as bars:
        task = bars.add_task(title, total=1)
        yield lambda stage, done, total, what: bars.update(
            task, description=f"{title} · {stage}: {what}"[:90], completed=done, total=total or done + 1
        )


def run_row(name: str, profile: Path) -> Json:
    """Compress, measure, judge and draw; a row whose speed-up cannot be reached says what could."""
    row, began = ROWS[name], time.perf_counter()
    found: Json = {"options": row.options, "load_before": os.getloadavg()[0], "machine": machine()}
    found |= {"versions": versions(), "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    model = MODELS / f"{name}.onnx" if row.options else ORIGINAL
    with following(name) as progress:
        if row.options:
            words = {"calib": CALIB, "metric": CHOOSE, "profile": profile, "progress": progress} | row.options
            if "finetune" in words:  # the speed-ups share what single blocks cost
                words["importance"] = MODELS / "importance.json"
            try:
                report = olm.compress(ORIGINAL, model, **words)
            except olm.OlmError as error:
                return found | {"error": str(error), "exit_code": error.exit_code}
            recipes = [block.recipe for block in report.blocks]
            found |= {"recipes": {recipe: recipes.count(recipe) for recipe in sorted(set(recipes))}}
            found |= {"basis": report.basis, "convs": report.convs_after, "compress_s": time.perf_counter() - began}
            verdict = olm.verify(ORIGINAL, model, calib=CALIB, metric=JUDGE, progress=progress)
            if verdict.metric is None or verdict.quality is None:
                raise SystemExit("verify was given a metric and samples, and reports none.")
            found |= {"loss": -verdict.metric.compressed, "relative": verdict.quality.relative}
            found |= {"speedup": asdict(verdict.speedup)}
        else:
            found |= {"loss": loss_of(model)}
        sampling = runpy.run_path(str(EXAMPLE / "sample.py"))
        drawn = sampling["sample"](
            model,
            sampling["noises"](DRAWN, row.noise),
            STEPS,
            progress=lambda done: progress("draw", done, DRAWN, "digits"),
        )
    np.save(MODELS / f"{name}.npy", drawn)
    return found | {"frechet": frechet(drawn)}


def loss_of(model: Path) -> float:
    """The held-out loss of a model file."""
    return -metric_of(JUDGE, read(model), 100).original


def frechet(drawn: np.ndarray) -> float:
    """Distance to all real digits."""
    return between(drawn, np.concatenate(real_digits()))


def between(one: np.ndarray, other: np.ndarray) -> float:
    """Distance between two sets of digits."""
    module = runpy.run_path(str(EXAMPLE / "frechet.py"))
    return float(module["distance"](*map(module["features"], (one, other))))


def real_digits() -> tuple[np.ndarray, np.ndarray]:
    """Train and held-out digits."""
    train, held_out = runpy.run_path(str(EXAMPLE / "data.py"))["images"]()
    return train, held_out


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
    first = rows["original"]
    said = ", ".join(f"{name} {first['versions'][name]}" for name in ("onnxruntime", "numpy"))
    dates = sorted({row["date"][:10] for row in rows.values()})
    lines += ["", f"{first['machine']['cpu']}, one thread, {' and '.join(dates)}; {said}."]
    return lines


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
    """The page with the tables between their marks."""
    text = filled(text, "rows", rows_table(record))
    wanted = "*Not run: `python benchmarks/ddpm.py --importance`.*"
    found = record.get("importance")
    return filled(text, "importance", importance_table(found) if found else [wanted])


def write_page(record: Json) -> None:
    """The page, and the picture where the drawn digits of all rows that were run are at hand."""
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
    shown = [MODELS / f"{name}.npy" for name in ROWS if ROWS[name].shown and "frechet" in record["rows"].get(name, {})]
    if shown and all(path.is_file() for path in shown):
        rows = [np.load(path, mmap_mode="r")[:SHOWN] for path in shown]
        runpy.run_path(str(EXAMPLE / "sample.py"))["picture"](rows, PICTURE)


def filled(text: str, part: str, lines: list[str]) -> str:
    """The page with ``lines`` between the marks of ``part``."""
    begin, end = (f"<!-- {part}: {which} -->" for which in ("begin", "end"))
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE} has no {begin} … {end}; put them back.")
    return "\n".join([before + begin, "", *lines, "", end]) + after


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="rows (default: %(default)s)")
    parser.add_argument("--importance", action="store_true", help="measure importance, and no rows")
    parser.add_argument("--page", action="store_true", help="write page and picture from what is there")
    parser.add_argument("--profile", type=Path, default=MODELS / "cpu.sqlite", help="latency table")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    names = [] if options.page or options.importance else chosen(options.only, tuple(ROWS), "--only")
    MODELS.mkdir(parents=True, exist_ok=True)
    record: Json = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"rows": {}}
    for name in names:
        record["rows"][name] = run_row(name, options.profile)
        write_json(RECORD, record)
    if options.importance:
        with following("ddpm") as progress:
            record["importance"] = importance(ORIGINAL, CALIB, JUDGE, progress)
    if not options.page:
        train, held_out = real_digits()
        record["floor"] = between(held_out, train)
        write_json(RECORD, record)
    if "original" not in record["rows"]:
        raise SystemExit(f"{RECORD} lacks the original: run `python benchmarks/ddpm.py --only original` first.")
    write_page(record)


if __name__ == "__main__":
    main()
