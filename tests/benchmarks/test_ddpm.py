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


def record(**rows: dict[str, Any]) -> dict[str, Any]:
    about = {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "a processor"},
        "versions": {"onnxruntime": "1", "numpy": "2"},
    }
    return {"rows": {name: {**about, **row} for name, row in rows.items()}, "floor": 0.25}


def test_a_row_has_its_figures_beside_the_originals(ddpm: Any) -> None:
    ratio = {"ratio": 1.2, "low": 1.19, "high": 1.21}
    ours = {"loss": 0.055, "frechet": 1.5, "recipes": {"drop": 2, "fit": 1}, "speedup": ratio}
    table = ddpm.rows_table(record(original={"loss": 0.05, "frechet": 1.0}, **{"ours-1.15": ours}))
    line = next(line for line in table if line.startswith("| ours, 1.15×"))
    assert line == "| ours, 1.15× | 2 drop, 1 fit | 1.200× [1.190, 1.210] | 0.0550 | +10.0% | 1.50 |"
    assert len({line.count("|") for line in table if line.startswith("|")}) == 1


def test_what_was_not_run_or_not_reached_is_said(ddpm: Any) -> None:
    failed = {"error": "The best is 1.1×.", "exit_code": 4}
    table = ddpm.rows_table(record(original={"loss": 0.05, "frechet": 1.0}, **{"layermerge-1.3": failed}))
    assert sum("The best is 1.1×." in line for line in table) == 1
    missing = [line for line in table if "not run" in line]
    assert len(missing) == len(ddpm.ROWS) - 2
    assert "--only ours-1.3`" in "".join(missing)


def test_a_part_of_the_page_is_replaced_between_its_marks_alone(ddpm: Any) -> None:
    page = "a\n<!-- rows: begin -->\nold\n<!-- rows: end -->\nb\n"
    assert ddpm.filled(page, "rows", ["new"]) == "a\n<!-- rows: begin -->\n\nnew\n\n<!-- rows: end -->\nb\n"
    with pytest.raises(SystemExit, match="importance"):
        ddpm.filled(page, "importance", ["new"])


def test_how_importance_goes_with_the_loss_is_one_row_a_measure(ddpm: Any) -> None:
    both = {"spearman": 0.98765, "pearson": 0.5}
    found = {"distance": both, "importance": both, "mixed": both, "rows": [{}, {}], "share": 1.04}
    table = ddpm.importance_table(found)
    assert sum(line.endswith("| 0.988 | 0.500 |") for line in table) == 3
    assert table[-1].startswith("2 blocks") and "1.04" in table[-1]


def test_the_page_is_that_of_the_record(ddpm: Any) -> None:
    page, held = ddpm.PAGE.read_text(encoding="utf-8"), json.loads(ddpm.RECORD.read_text(encoding="utf-8"))
    assert ddpm.page_of(page, held) == page
    assert ddpm.PICTURE.stat().st_size <= 150_000
