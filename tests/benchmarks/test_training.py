"""The benchmark of trainings: its rows and records, the minutes that are left, the page; nothing is trained."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [str(ROOT / "benchmarks" / name) for name in ("training", "quality", "")]
NAMES = ("table", "training_page", "work", "jobs", "rows", "compare", "cells", "stages", "steps")


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
    assert file_of("resnet20", 2.0, "olm", 4) == file_of("resnet20", 2.0, "olm", 3)


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


@pytest.mark.parametrize(("importance_s", "left_s"), [(60.0, 120.0), (150.0, 90.0), (0.0, 180.0)])
def test_the_last_training_has_what_importance_left_and_never_less_than_half(
    importance_s: float, left_s: float, bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = bench["work"], []
    cost = {"cpu_s": importance_s, "wall_s": importance_s, "blocks": 3, "steps": 20}
    monkeypatch.setattr(work, "importance", lambda spec: (cost, Path("scores.json")))
    monkeypatch.setattr(work, "_noted", lambda path: {"steps": 5})

    class Clock:
        def __enter__(self) -> None: ...

        def __exit__(self, *given: object) -> None: ...

    def compressed(spec: dict[str, Any], **words: Any) -> dict[str, Any]:
        seen.append(words["finetune_minutes"])
        return {"stages": {"train": {"cpu_s": 60 * words["finetune_minutes"], "wall_s": 1.0}}}

    monkeypatch.setattr(work, "cpu_clock", Clock)
    monkeypatch.setattr(work, "compressed", compressed)
    found = work.whole({"minutes": 3, "importance_steps": 20, "output": "x.onnx"})
    assert seen == [pytest.approx(left_s / 60)]
    assert found["training"]["cpu_s"] == pytest.approx(importance_s + left_s)


@pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")
def test_a_training_goes_by_the_cpu_time_of_its_process(bench: dict[str, ModuleType]) -> None:
    from onnx_layermerge.recover.training import _loop

    with bench["work"].cpu_clock():
        assert _loop.time.monotonic is time.process_time
    assert _loop.time is time
