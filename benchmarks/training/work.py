"""The steps of `run.py`, each in a process of its own.

    python benchmarks/training/work.py make|score|look SPEC ANSWER        # nobody needs to call this by hand

SPEC is JSON, ANSWER the file that takes what was found, as JSON.  A training's clock is the CPU time of this process:
a busy neighbour takes nothing off it, so equal minutes are equal work.  On a GPU, whose work no process's CPU time
shows, it is the clock on the wall.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / "quality"), str(HERE.parent)]

from equal import clock, device_name, look, samples_of, spent_s  # noqa: E402
from jobs import NETWORKS, ROOT  # noqa: E402
from rich.console import Console  # noqa: E402
from stages import Stages  # noqa: E402
from steps import score, used  # noqa: E402
from table import ROWS  # noqa: E402

# Of the minutes, at least this share is left to the last training, however long the importance took.
LEAST = 0.5
NOTHING = "nothing to do: no block of this plan is a merge, so before the merge it is what it is behind it"
Row = dict[str, Any]
err = Console(stderr=True, highlight=False, soft_wrap=True)


def make(spec: Row) -> Row:
    """The model of one row; the sentence and exit code where it cannot be."""
    from views import ensure_calibration

    from onnx_layermerge.errors import OlmError

    ensure_calibration(spec["network"])
    _shared_timings(spec)
    line = ROWS[spec["row"]]
    try:
        if line.training == "none":
            found = compressed(spec)
        elif line.training == "whole":
            found = whole(spec)
        else:
            found = finetuned(spec, unmerged=line.training != "merged", norms=line.training == "norms")
    except OlmError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"error": None, "exit_code": 0, **found, **device_name(spec)}


def compressed(spec: Row, **training: Any) -> Row:
    """`olm compress`."""
    import onnx_layermerge as olm
    from onnx_layermerge.report import as_json

    words = {**_words(spec), **training}
    with _watched(spec) as stages:
        report = olm.compress(*_files(spec), speedup=spec["speedup"], progress=stages.progress, **words)
    told = json.loads(as_json(report))
    recipes: dict[str, int] = {}
    for block in told["blocks"]:
        recipes[block["recipe"]] = recipes.get(block["recipe"], 0) + 1
    said = ", ".join(f"{count} {recipe}" for recipe, count in sorted(recipes.items()))
    kept = {name: told[name] for name in ("basis", "predicted", "speedup", "convs_before", "convs_after", "warnings")}
    kept["blocks"] = [block["name"] for block in told["blocks"]]
    return {"words": f"{said} (plan by {told['basis']})", "recipes": recipes, "report": kept, "stages": stages.found}


def whole(spec: Row) -> Row:
    """`olm compress --finetune`: importance first and on its own, so that its minutes can be taken off."""
    cost, scores = importance(spec)
    budget = 60 * spec["minutes"]
    left = max(budget - spent_s(spec, cost), LEAST * budget)
    with clock(spec):
        found = compressed(
            spec,
            finetune=True,
            importance=scores,
            importance_steps=spec["importance_steps"],
            finetune_minutes=left / 60,
            finetune_device=spec["train_on"],
        )
    last = found["stages"]["train"]
    found["training"] = {
        "cpu_s": cost["cpu_s"] + last["cpu_s"],
        "wall_s": cost["wall_s"] + last["wall_s"],
        "importance": cost,
        "left_s": left,
        **_noted(Path(spec["output"])),
    }
    return found


def importance(spec: Row) -> tuple[Row, Path]:
    """Scores of all blocks, shared by the speed-ups, and what they cost, whichever row paid for them."""
    from onnx_layermerge.flow import score_shard

    method, steps = ROWS[spec["row"]].method, spec["importance_steps"]
    # Scores of other samples or steps are others; what else they depend on a row that is refused them says.
    parts = [spec["network"], method, f"{spec['samples']}less{spec['held_out']['share']:g}", str(steps)]
    parts += [] if spec["train_on"] == "cpu" else [spec["train_on"]]
    path = Path(spec["profile"]).with_name("-".join([*parts, "importance.json"]))
    told = path.with_suffix(".cost.json")
    cost = {"cpu_s": 0.0, "wall_s": 0.0, "blocks": 0, "steps": steps}
    if told.is_file():
        cost = json.loads(told.read_text(encoding="utf-8"))
    if _entries(path) != cost["blocks"]:  # broken off between two writes: nobody knows what those blocks took
        path.unlink(missing_ok=True)
        cost |= {"cpu_s": 0.0, "wall_s": 0.0, "blocks": 0}
    words = _words(spec)
    try:
        with _watched(spec) as stages, clock(spec):
            score_shard(
                _files(spec)[0],
                importance=path,
                shard=(1, 1),
                importance_steps=steps,
                finetune_device=spec["train_on"],
                progress=stages.progress,
                **words,
            )
    finally:
        # Where all was known the stage only looked that up.
        if _entries(path) > cost["blocks"]:
            spent = stages.found["score"]
            cost |= {name: cost[name] + spent[name] for name in ("cpu_s", "wall_s")}
            told.write_text(json.dumps(cost | {"blocks": _entries(path)}), encoding="utf-8")
    return json.loads(told.read_text(encoding="utf-8")), path


def finetuned(spec: Row, *, unmerged: bool, norms: bool) -> Row:
    """`olm finetune` on the file of the row that it starts from."""
    import onnx_layermerge as olm

    if unmerged and not merges(spec):
        return {"error": NOTHING, "exit_code": 0, "nothing": True}
    fit, held_out = samples_of(spec)
    with _watched(spec) as stages, clock(spec):
        report = olm.finetune(
            _files(spec)[0],
            spec["start"],
            spec["output"],
            data=fit,
            val=held_out,
            samples=spec["samples"],
            minutes=spec["minutes"],
            unmerged=unmerged,
            norms=norms,
            device=spec["train_on"],
            progress=stages.progress,
        )
    last = stages.found["train"]
    apart = f"{len(report.unmerged)} merges taken apart" if unmerged else "the compressed file's weights"
    apart += f", {report.norms} norms" if norms else ""
    return {
        "words": f"{apart}, {report.steps} steps, rate {report.rate:g}",
        "stages": stages.found,
        "training": {**last, **_noted(Path(spec["output"]))},
        # Where a file lay while this ran says nothing about the result.
        "warnings": [said.replace(f"{Path(spec['output']).parent}/", "") for said in report.warnings],
    }


def merges(spec: Row) -> int:
    """How many blocks of the plan that the row starts from are merges."""
    from onnx_layermerge.flow._subject import planned
    from onnx_layermerge.graph import load, read

    original = _files(spec)[0]
    plan = planned(read(original), load(spec["start"]), original, spec["start"])
    return sum(candidate.recipe == "merge" for candidate in plan)


def _files(spec: Row) -> tuple[Path, Path]:
    return ROOT / NETWORKS[spec["network"]].model, Path(spec["output"])


def _words(spec: Row) -> Row:
    """What compression and importance have to be told alike."""
    fit, held_out = samples_of(spec)
    method = ROWS[spec["row"]].method
    words = {"samples": spec["samples"], "method": method, "profile": spec["profile"]}
    return {"calib": fit, "val": held_out, **words}


def _shared_timings(spec: Row) -> None:
    """Begin with what is known of blocks, so that no row pays for all."""
    profile, known = Path(spec["profile"]), ROOT / f"models/quality/{spec['network']}-cpu.sqlite"
    if not profile.is_file() and known.is_file():
        shutil.copyfile(known, profile)


def _entries(path: Path) -> int:
    return len(json.loads(path.read_text(encoding="utf-8"))["entries"]) if path.is_file() else 0


def _noted(path: Path) -> Row:
    """What the file's metadata say of its training."""
    import onnx

    props = {each.key: each.value for each in onnx.load(path, load_external_data=False).metadata_props}
    found = json.loads(props["olm.finetune"])
    return {name: found[name] for name in ("steps", "rate", "improved", "held_out.before", "held_out.after")}


class _watched(Stages):
    """``Stages`` with a progress for a call, which says what is begun."""

    def __init__(self, spec: Row) -> None:
        super().__init__()
        self._title, self._said = spec["title"], ""

    def __enter__(self) -> _watched:
        super().__enter__()
        return self

    def progress(self, stage: str, done: int, total: int, what: str) -> None:
        self.enter(stage)
        if stage != self._said or stage == "score":
            self._said = stage
            err.print(f"{self._title} · {stage} {done}/{total}: {what}"[:150], style="dim")


def main() -> int:
    step, spec, answer = sys.argv[1:]
    begin = time.perf_counter()
    found = {"make": make, "score": score, "look": look}[step](json.loads(spec))
    found |= {"wall_s": time.perf_counter() - begin, **used()}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
