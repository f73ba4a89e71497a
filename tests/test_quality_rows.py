"""The statistics, the records and the page of the quality benchmark; no model is built."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks/quality"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
NAMES = ("compare", "jobs", "rows", "search", "cells", "variants", "picture", "readme_part", "quality_page", "without")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, importable as its scripts see them, and gone again afterwards."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


def row(method: str, right: np.ndarray, ratio: float = 1.31, **changes: Any) -> dict[str, Any]:
    """A record of lite0 at 1.3×: four images in five views each, three pictures in two."""
    bits = {"right": np.packbits(right).tobytes().hex(), "same": np.packbits(right).tobytes().hex()}
    unlabelled = {"views": 6, "pictures": 3, "agreement": 0.5, "same": "e0", "kl": 0.1, "relative": 0.2}
    plain = {"images": 4, "correct": int(right[:4].sum()), "original": 4, "agreement": 0.75}
    views = {"views": 20, "correct": int(right.sum()), "original": 20, "agreement": 0.7, **bits}
    found = {
        **{"network": "lite0", "speedup": 1.3, "method": method, "device": "cpu", "variant": "", "settings": {}},
        **{"code": "new", "date": "2026-01-01", "error": None, "exit_code": 0},
        "build": {"words": "words", "cpu_s": 60.0, "peak_rss_gb": 1.0},
        "speed": {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01},
        "scores": {"plain": plain, "views": views, "unlabelled": unlabelled},
    }
    return found | changes


def few(count: int) -> np.ndarray:
    """The first ``count`` of 20 views right."""
    return np.arange(20) < count


def test_mcnemar_is_the_two_sided_binomial_tail_of_the_disagreements(bench: dict[str, ModuleType]) -> None:
    first = np.array([True] * 5 + [False] * 1 + [True] * 10)
    second = np.array([False] * 5 + [True] * 1 + [True] * 10)
    # 5 against 1: 2 · (C(6,0) + C(6,1)) / 2⁶
    assert bench["compare"].mcnemar(first, second) == pytest.approx(14 / 64)
    assert bench["compare"].mcnemar(first, first) == 1.0


def test_the_bootstrap_draws_images_and_not_their_views(bench: dict[str, ModuleType]) -> None:
    rng = np.random.default_rng(0)
    by_image = rng.normal(size=50)
    copied = np.tile(by_image, 5)
    owner = np.tile(np.arange(50), 5)
    low, high = bench["compare"].bootstrap(copied, owner)
    # Five equal views of an image say no more than one.
    alone = bench["compare"].bootstrap(by_image, np.arange(50))
    assert (low, high) == pytest.approx(alone)
    assert high - low == pytest.approx(2 * 1.96 * by_image.std() / np.sqrt(50), rel=0.1)


def test_any_statistic_has_an_interval_around_it(bench: dict[str, ModuleType]) -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 300)
    low, high = bench["compare"].bootstrap_of(lambda picked: float(values[picked].mean()), np.arange(300))
    assert low < values.mean() < high < low + 0.4


def test_bits_survive_the_record(bench: dict[str, ModuleType]) -> None:
    bits = np.random.default_rng(2).random(1003) < 0.5
    text = bench["compare"].bits_to_hex(bits)
    assert (bench["compare"].hex_to_bits(text, 1003) == bits).all()


def test_snr_is_that_of_the_spread(bench: dict[str, ModuleType]) -> None:
    wanted = np.array([1.0, -1.0, 1.0, -1.0]) + 7
    assert bench["compare"].snr_db(wanted, wanted + 0.1) == pytest.approx(20.0)
    assert bench["compare"].snr_db(wanted, wanted) == np.inf
    assert bench["compare"].spearman(wanted, np.zeros(4)) == 0.0


def test_the_least_that_meets_the_speedup_is_kept(bench: dict[str, ModuleType]) -> None:
    pick = bench["search"].pick
    assert pick([(0.1, 1.1), (0.2, 1.305), (0.25, 1.32), (0.3, 1.5)], 1.3) == (0.2, 1.305)
    assert pick([(0.1, 1.285), (0.3, 1.5)], 1.3) == (0.1, 1.285)  # nearer than what overshoots
    assert pick([(0.1, 1.1), (0.3, 1.5), (0.4, 1.6)], 1.3) == (0.3, 1.5)
    with pytest.raises(bench["search"].TargetError, match=r"1\.20×"):
        pick([(0.1, 1.1), (0.9, 1.2)], 1.3)


def test_the_search_times_no_structure_twice(bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    module, timed = bench["search"], []

    class Ratio:
        def __init__(self, ratio: float) -> None:
            self.ratio = ratio

    def measure(backend: object, original: bytes, model: bytes, bound: object, **_: object) -> tuple[Ratio, bool]:
        timed.append(model)
        return Ratio(1 + int(model) / 10), True

    monkeypatch.setattr(module, "measured_speedup", measure)
    monkeypatch.setattr(module, "structure_key", lambda model, bound: model)
    # Tenths are the tiles here: speed-ups go 1.1, 1.2, … and 1.25 lies between two of them.
    found = module.search(lambda share: str(round(share * 10)).encode(), b"", 1.25, None, {})
    assert found.speedup == pytest.approx(1.3)
    assert len(timed) == len(set(timed)) == 3


def test_a_row_is_run_again_for_other_code_or_without_an_end(bench: dict[str, ModuleType]) -> None:
    outdated = bench["rows"].outdated
    assert outdated(None, "new")
    assert outdated({"code": "old", "scores": {"a": 1}}, "new")
    assert outdated({"code": "new", "exit_code": 0}, "new")
    assert not outdated({"code": "new", "scores": {"a": 1}}, "new")
    assert outdated({"code": "new", "exit_code": 2}, "new")
    assert not outdated({"code": "new", "exit_code": 4}, "new")  # that it cannot be reached is a result


def test_file_names_tell_rows_apart(bench: dict[str, ModuleType]) -> None:
    rows = bench["rows"]
    variants = [rows.variant_of({}), rows.variant_of({"seed": 1}), rows.variant_of({"seed": 1, "samples": 64})]
    names = {
        rows.file_of("lite0", speedup, method, device, variant).name
        for speedup in (1.2, 1.3)
        for method in ("drop", "drop+refit")
        for device in ("cpu", "launch-bound")
        for variant in variants
    }
    assert len(names) == 2 * 2 * 2 * 3


def test_every_method_stands_in_one_family(bench: dict[str, ModuleType]) -> None:
    jobs = bench["jobs"]
    listed = [method for _, methods in jobs.FAMILIES for method in methods]
    assert sorted(listed) == sorted(jobs.METHODS)


def test_the_page_says_what_is_missing(bench: dict[str, ModuleType]) -> None:
    text = bench["quality_page"].render([])
    for network, job in bench["jobs"].NETWORKS.items():
        for speedup in job.speedups:
            assert f"run.py {network} --speedup {speedup:g} --method olm`" in text


def line_of(text: str, title: str) -> str:
    section = text.split("## EfficientNet-Lite0, 1.3×")[1]
    return next(line for line in section.splitlines() if line.startswith(f"| {title}"))


def test_a_family_shows_its_best_row_and_names_the_others(bench: dict[str, ModuleType]) -> None:
    rows = [row("olm", few(16)), row("drop", few(12)), row("drop+refit", few(3))]
    text = bench["quality_page"].render(rows)
    line = line_of(text, "drop only")
    assert "drop: words; also drop+refit 3/4" in line and "60.0%" in line
    assert "answers -20.0 points [" in line
    both = "80.0%, one view each 4/4 against 60.0%, one view each 4/4"
    assert f"By all views ours is ahead of the best rival, drop ({both})" in text


def test_a_rival_in_front_is_said_aloud(bench: dict[str, ModuleType]) -> None:
    text = bench["quality_page"].render([row("olm", few(12)), row("width", few(16))])
    assert "**BEHIND** the best rival, width" in text


def test_a_slow_row_is_marked_and_beats_nobody(bench: dict[str, ModuleType]) -> None:
    rows = [row("olm", few(16)), row("drop", few(20), ratio=1.2), row("drop+refit", few(12))]
    text = bench["quality_page"].render(rows)
    assert "drop+refit: words; also drop 4/4" in line_of(text, "drop only")
    assert "ahead of" in text
    alone = bench["quality_page"].render(rows[:2])
    assert "the best rival" not in alone
    assert "1.200× [1.190, 1.210] †" in line_of(alone, "drop only")


def test_a_row_depends_on_the_files_that_made_it(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = bench["rows"]
    for name in ("onnx_layermerge", "benchmarks/quality"):
        shutil.copytree(rows.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    ours, rival, other = (rows.code_digest(name) for name in ("olm", "width+refit", "tp-taylor"))
    assert len({ours, rival, other}) == 3 and other == rows.code_digest("tp-magnitude")
    assert ours == rows.code_digest("drop") != rows.code_digest("drop+refit")
    assert len({rows.code_digest(name) for name in ("onnxsim", "onnxsim+refit", "tp-taylor", "tp-taylor+refit")}) == 4

    whole = rows.package_digest()
    (tmp_path / "onnx_layermerge/verify/_gate.py").write_text("# other\n", encoding="utf-8")
    assert rows.code_digest("olm") == ours and rows.package_digest() == whole  # rows have no bounds
    (tmp_path / "onnx_layermerge/recover/training/_loop.py").write_text("# other\n", encoding="utf-8")
    assert rows.code_digest("olm") == ours and rows.package_digest() != whole  # no row here trains
    (tmp_path / "onnx_layermerge/flow/_choose.py").write_text("# other\n", encoding="utf-8")
    assert rows.code_digest("olm") != ours and rows.code_digest("width+refit") == rival
    (tmp_path / "onnx_layermerge/fit/_ridge.py").write_text("# other\n", encoding="utf-8")
    assert rows.code_digest("width+refit") != rival and rows.code_digest("tp-taylor") == other
    (tmp_path / "benchmarks/quality/torch_prune.py").write_text("# other\n", encoding="utf-8")
    assert rows.code_digest("tp-taylor") != other


def test_errors_other_code_and_other_settings_are_shown(
    bench: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench["cells"], "code_digest", lambda method: "new")
    rows = [
        row("olm", few(16)),
        row("layermerge", few(0), error="1.3× cannot be reached here.", exit_code=4, scores=None),
        row("width", few(8), code="old"),
        row("olm", few(17), variant="seed=1", settings={"seed": 1}),
    ]
    stage = {"name": "tune", "wall_s": 61.4, "cpu_s": 60.2, "memory_gb": 1.26}
    rows[0]["build"]["detail"] = {"stages": [stage, stage | {"name": "read", "wall_s": 0.2}]}
    text = bench["quality_page"].render(rows)
    assert "Stages of our row: tune 61 s (60 s CPU), 1.3 GB." in text
    assert "layermerge: 1.3× cannot be reached here." in line_of(text, "the paper's merge")
    assert "*older code*" in line_of(text, "uniform width")
    assert "| olm | seed=1 |" in text and "answers +5.0 points" in text
    assert "Seeds 0, 1: right answers " in text and "*some are of older code*" not in text


def test_seeds_are_summed_up(bench: dict[str, ModuleType]) -> None:
    rows = [row("olm", few(count), variant=f"seed={count}", settings={"seed": count}) for count in (11, 14)]
    rows += [row("olm", few(16)), row("olm", few(2), variant="samples=64", settings={"samples": 64})]
    said = next(line for line in bench["quality_page"].render(rows).split("\n") if line.startswith("Seeds"))
    assert said.startswith("Seeds 0, 11, 14: right answers ")
    views = [100 * r["scores"]["views"]["correct"] / r["scores"]["views"]["views"] for r in (rows[2], *rows[:2])]
    assert "all views " + ", ".join(f"{value:.1f} %" for value in views) in said
    assert f"(mean {np.mean(views):.1f} %, standard deviation {np.std(views, ddof=1):.2g})" in said


def test_requirements_are_judged(bench: dict[str, ModuleType]) -> None:
    scores = row("olm", few(16))["scores"]
    scores["plain"] |= {"images": 4, "correct": 131, "agreement": 0.83}
    text = bench["quality_page"].render([row("olm", few(16), scores=scores)])
    assert "right answers 131 (required 131, goal 134): required met, goal missed." in text
    assert "same answer 83.0% (required 84.0%, goal 88.0%): **MISSED**." in text


def test_every_ingredient_can_be_left_out(bench: dict[str, ModuleType]) -> None:
    """What an ablation switches off is still where it looks for it."""
    for name in bench["without"].INGREDIENTS:
        with bench["without"].without(name):
            pass


def test_the_picture_stands_at_what_was_measured(bench: dict[str, ModuleType]) -> None:
    rows = [row("olm", few(16)), row("drop", few(9)), row("drop+refit", few(12)), row("width", few(8), ratio=1.5)]
    rows += [row("width+refit", few(2)), row("tp-magnitude", few(3))]  # the last without its refit: not drawn
    rows += [row("tp-taylor", few(3), variant="seed=1"), row("onnxsim", few(3), device="launch-bound")]
    lines = {line.kind: line for line in bench["picture"].lines_of("lite0", rows)}
    assert {kind: line.points for kind, line in lines.items()} == {
        "ours": ((1.31, 0.8),),
        "drop": ((1.31, 0.6),),  # the better of two
        "width": ((1.5, 0.4),),
    }
    svg = bench["picture"].picture("lite0", rows)
    told = ET.fromstring(svg).find("{http://www.w3.org/2000/svg}desc")
    assert told is not None and told.text is not None
    assert "The original: 100.0 %. ours: 80.0 % at 1.31×." in told.text
    assert bench["picture"].picture("lite0", []) == ""


@pytest.mark.parametrize("fastest", [1.3, 1.7, 2.5, 6.0])
def test_the_picture_keeps_its_numbers_apart(bench: dict[str, ModuleType], fastest: float) -> None:
    rows = [row("olm", few(16)), row("width", few(8), ratio=fastest), row("width+refit", few(2))]
    texts = ET.fromstring(bench["picture"].picture("lite0", rows)).iter("{http://www.w3.org/2000/svg}text")
    ticks = [float(text.attrib["x"]) for text in texts if (text.text or "").endswith("×")]
    assert len(ticks) >= 3
    assert min(right - left for left, right in zip(ticks, ticks[1:], strict=False)) >= 36


def test_readme_names_the_best_of_the_other_tools(bench: dict[str, ModuleType]) -> None:
    rows = [row("olm", few(16)), row("drop", few(14)), row("width", few(8)), row("tp-taylor", few(12), ratio=1.2)]
    readme = f"before\n{bench['readme_part'].BEGIN}\nold\n{bench['readme_part'].END}\nafter\n"
    placed = bench["readme_part"].placed(readme, rows)
    assert placed.startswith("before\n") and placed.endswith("\nafter\n") and "\nold\n" not in placed
    cells = [cell.strip() for cell in placed.split("\n")[5].split("|")[1:-1]]
    assert cells[1] == "1.31× [1.30, 1.32]" and cells[2] == "**80.0%, 4/4**; was 100.0%, 4/4"
    # Faster than asked or right on it comes before what is too slow and keeps more.
    assert cells[4].startswith("40.0%, 4/4 by width at 1.31×") and cells[4].endswith("; 10 of 12 *not run*")
    assert cells[5].endswith("1 of 2 *not run*") and cells[6] == "not run"
    assert bench["readme_part"].placed(placed, rows) == placed
    with pytest.raises(ValueError, match="once each"):
        bench["readme_part"].placed("no place for it", rows)


def test_readme_page_and_picture_are_those_of_the_records(bench: dict[str, ModuleType]) -> None:
    root, page = FOLDER.parents[1], bench["quality_page"]
    rows = bench["rows"].load_all()

    def told(text: str) -> str:
        """Without the mark of rows whose code has changed: an edit of the package is no reason to write the page."""
        return text.replace("; *older code*", "")

    assert told(page.render(rows)) == told((root / "docs/quality.md").read_text(encoding="utf-8")), "run.py --page"
    assert page.picture(page.DRAWN, rows) == (root / page.PICTURE).read_text(encoding="utf-8"), "run.py --page"
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert told(page.placed(readme, rows)) == told(readme), "run.py --page"
