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

Writes records/ddpm.json after every row (rows that are not asked for stay), then the picture of docs/generation.md, the
names of its rows and the tables; `--page` does only the latter. The compressed models and drawn digits stay in
models/ddpm.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.progress import Progress

import onnx_layermerge as olm
from ddpm_importance import importance
from ddpm_page import PAGE, ROWS, page_of
from main_job import chosen, machine, versions, write_json
from onnx_layermerge.graph import read
from onnx_layermerge.verify import metric_of

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/ddpm"
ORIGINAL = EXAMPLE / "ddpm.onnx"
MODELS = ROOT / "models/ddpm"
RECORD = ROOT / "benchmarks/records/ddpm.json"
PICTURE = ROOT / "docs/generation.png"
DRAWN, SHOWN, STEPS = 2000, 16, 50
CALIB, CHOOSE, JUDGE = (f"{EXAMPLE}/{name}" for name in ("data.py:calibration", "metric.py:loss", "metric.py:judged"))

Json = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def following(title: str) -> Iterator[Callable[[str, int, int, str], None]]:
    """A progress bar on stderr that follows a flow."""
    with Progress(console=err) as bars:
        task = bars.add_task(title, total=1)
        yield lambda stage, done, total, what: bars.update(
            task, description=f"{title} · {stage}: {what}"[:90], completed=done, total=total or done + 1
        )


class Stages:
    """A progress that passes on what it is told and keeps the seconds of each stage, in ``seconds``."""

    def __init__(self, progress: Callable[[str, int, int, str], None]) -> None:
        self._progress, self._now = progress, ("start", time.perf_counter())
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, what: str) -> None:
        before, since = self._now
        self._now = stage, time.perf_counter()
        self.seconds[before] = self.seconds.get(before, 0.0) + self._now[1] - since
        self._progress(stage, done, total, what)


def run_row(name: str, profile: Path) -> Json:
    """Compress, measure, judge and draw; a row whose speed-up cannot be reached says what could."""
    row, began = ROWS[name], time.perf_counter()
    found: Json = {"options": row.options, "load_before": os.getloadavg()[0], "machine": machine()}
    found |= {"versions": versions(), "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    model = MODELS / f"{name}.onnx" if row.options else ORIGINAL
    with following(name) as progress:
        if row.options:
            stages = Stages(progress)
            words: Json = {"calib": CALIB, "metric": CHOOSE, "profile": profile, "progress": stages} | row.options
            if "finetune" in words:  # the speed-ups share what single blocks cost
                words["importance"] = MODELS / "importance.json"
            try:
                report = olm.compress(ORIGINAL, model, **words)
            except olm.OlmError as error:
                return found | {"error": str(error), "exit_code": error.exit_code}
            stages("verify", 0, 1, "the file")
            recipes = [block.recipe for block in report.blocks]
            found |= {"recipes": {recipe: recipes.count(recipe) for recipe in sorted(set(recipes))}}
            found |= {"basis": report.basis, "convs": report.convs_after, "compress_s": time.perf_counter() - began}
            found |= {"stages_s": stages.seconds}
            if "finetune" in words:
                found |= {"training": training_of(model)}
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


def training_of(model: Path) -> Json:
    """Steps of the last training and of each block's, as the file that `olm compress --finetune` wrote keeps them."""
    props = {each.key: each.value for each in onnx.load(model, load_external_data=False).metadata_props}
    noted = json.loads(props["olm.finetune"])
    return {"steps": noted["steps"], "importance_steps": noted["importance.steps"]}


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


def write_page(record: Json) -> None:
    """The picture where the drawn digits of all rows that were run are at hand, then the page, with its rows' names."""
    names = [name for name in ROWS if ROWS[name].shown and "frechet" in record["rows"].get(name, {})]
    shown = [MODELS / f"{name}.npy" for name in names]
    if shown and all(path.is_file() for path in shown):
        rows = [np.load(path, mmap_mode="r")[:SHOWN] for path in shown]
        runpy.run_path(str(EXAMPLE / "sample.py"))["picture"](rows, PICTURE)
        record["picture"] = names
        write_json(RECORD, record)
    PAGE.write_text(page_of(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


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
