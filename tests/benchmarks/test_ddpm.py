"""The page on networks that generate: it says what the record says, and what was not run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ddpm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ddpm")


@pytest.fixture
def page(ddpm: Any) -> Any:
    return importlib.import_module("ddpm_page")


def record(**rows: dict[str, Any]) -> dict[str, Any]:
    about = {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "a processor"},
        "versions": {"onnxruntime": "1", "numpy": "2"},
    }
    return {"rows": {name: {**about, **row} for name, row in rows.items()}, "floor": 0.25}


def test_a_row_has_its_figures_beside_the_originals(page: Any) -> None:
    ratio = {"ratio": 1.2, "low": 1.19, "high": 1.21}
    ours = {"loss": 0.055, "frechet": 1.5, "recipes": {"drop": 2, "fit": 1}, "speedup": ratio}
    table = page.rows_table(record(original={"loss": 0.05, "frechet": 1.0}, **{"ours-1.15": ours}))
    line = next(line for line in table if line.startswith("| ours, 1.15×"))
    assert line == "| ours, 1.15× | 2 drop, 1 fit | 1.200× [1.190, 1.210] | 0.0550 | +10.0% | 1.50 |"
    assert len({line.count("|") for line in table if line.startswith("|")}) == 1


def test_what_was_not_run_or_not_reached_is_said(page: Any) -> None:
    failed = {"error": "The best is 1.1×.", "exit_code": 4}
    table = page.rows_table(record(original={"loss": 0.05, "frechet": 1.0}, **{"layermerge-1.3": failed}))
    assert sum("The best is 1.1×." in line for line in table) == 1
    missing = [line for line in table if "not run" in line]
    assert len(missing) == len(page.ROWS) - 2
    assert "--only ours-1.3`" in "".join(missing)


def test_a_part_of_the_page_is_replaced_between_its_marks_alone(page: Any) -> None:
    text = "a\n<!-- rows: begin -->\nold\n<!-- rows: end -->\nb\n"
    assert page.filled(text, "rows", ["new"]) == "a\n<!-- rows: begin -->\n\nnew\n\n<!-- rows: end -->\nb\n"
    with pytest.raises(SystemExit, match="importance"):
        page.filled(text, "importance", ["new"])


def test_how_importance_goes_with_the_loss_is_one_row_a_measure(page: Any) -> None:
    both = {"spearman": 0.98765, "pearson": 0.5}
    found = {"distance": both, "importance": both, "mixed": both, "rows": [{}, {}], "share": 1.04}
    table = page.importance_table(found)
    assert sum(line.endswith("| 0.988 | 0.500 |") for line in table) == 3
    assert table[-1].startswith("2 blocks") and "1.04" in table[-1]


def test_a_training_is_named_with_what_comes_on_top_of_its_minutes(page: Any) -> None:
    told = {"loss": 0.06, "options": {"speedup": 1.3}, "training": {"steps": 2345, "importance_steps": 7}}
    told |= {"compress_s": 600.0, "error": "x"}
    said = page.trained(record(**{"paper-1.3": told})["rows"])
    assert "last training has 5 minutes" in said and "7 steps a block, 2,345 steps" in said
    assert "10.0 minutes of the clock in all (the part of importance is not in the record)" in said
    told["stages_s"] = {"score": 90.0}
    assert "in all (importance 1.5)" in page.trained(record(**{"paper-1.3": told})["rows"])


def test_a_faster_row_that_loses_less_is_pointed_out(page: Any) -> None:
    def said(slow: float, fast: float) -> list[str]:
        one, other = ({"loss": loss, "options": {"speedup": asked}} for loss, asked in ((slow, 1.15), (fast, 1.3)))
        ours = {"loss": 0.051, "options": {"speedup": 1.3}}
        return page.surprises(record(**{"paper-1.15": one, "paper-1.3": other, "ours-1.3": ours})["rows"], 0.05)

    (found,) = said(0.06, 0.055)
    assert "lost less (+10.0%)" in found and "(+20.0%)" in found and "with one seed" in found
    assert said(0.055, 0.06) == []


def test_the_load_is_that_of_the_record(page: Any) -> None:
    rows = list(record(one={"load_before": 2.34}, other={"load_before": 0.1})["rows"].values())
    assert page.about(rows).endswith("as each row began: 0.1 to 2.3.")
    assert "load" not in page.about(list(record(one={})["rows"].values()))


def test_the_rows_of_the_picture_are_named_from_the_top(page: Any) -> None:
    (said,) = page.picture_names({"picture": ["original", "ours-1.3"]})
    assert said == "From the top: the original; ours, 1.3×."


def test_the_seconds_of_a_stage_are_kept_and_what_is_told_is_passed_on(
    ddpm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, clock = [], iter((0.0, 1.0, 4.0, 9.0))
    monkeypatch.setattr(ddpm.time, "perf_counter", lambda: next(clock))
    stages = ddpm.Stages(lambda *told: heard.append(told))
    for stage in ("read", "score", "read"):
        stages(stage, 0, 1, "x")
    assert stages.seconds == {"start": 1.0, "read": 3.0, "score": 5.0}
    assert heard[1] == ("score", 0, 1, "x")


def test_the_page_is_that_of_the_record(ddpm: Any) -> None:
    text, held = ddpm.PAGE.read_text(encoding="utf-8"), json.loads(ddpm.RECORD.read_text(encoding="utf-8"))
    assert ddpm.page_of(text, held) == text
    # What the picture shows is what was drawn.
    shown = {name for name in ddpm.ROWS if ddpm.ROWS[name].shown and "frechet" in held["rows"].get(name, {})}
    assert set(held["picture"]) == shown
    assert ddpm.PICTURE.stat().st_size <= 150_000
