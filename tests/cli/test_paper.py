"""The paper's methods with their training as words: `compress --finetune`, `--shard`, `finetune --unmerged`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from olm.values import Shard
from tests.machine import install

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")


@pytest.fixture
def words(model: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    install(monkeypatch)
    folder = model.parent
    return [
        *("compress", model, folder / "out.onnx", "--speedup", 1.1, "--method", "layeronly", "--finetune"),
        *("--calib", store / "calib.npz", "--profile", folder / "table.sqlite", "--importance", folder / "a.json"),
        *("--importance-steps", 1, "--finetune-steps", 2),
    ]


def without(words: list[object], option: str) -> list[object]:
    """All but the option and its value."""
    place = words.index(option)
    return words[:place] + words[place + 2 :]


@needs_torch
def test_a_part_of_the_blocks_and_then_the_rest(words: list[object], model: Path, run) -> None:
    words += ["--importance-lr", "0.01"]
    scoring = without(words, "--finetune-steps")
    part = run(*scoring, "--shard", "1/2", "--quiet")
    assert part.exit_code == 0, part.output
    assert "part 1 of 2" in part.stdout and "--importance next" in part.stdout
    assert not Path(str(words[2])).exists()
    told = json.loads(run(*scoring, "--shard", "1/2", "--json").stdout)
    assert told["trained"] == 0 and told["blocks"] > 0 and told["shard"] == [1, 2]
    whole = run(*words, "--json", "--quiet")
    report = json.loads(whole.stdout)
    assert report["basis"] == "importance" and {block["recipe"] for block in report["blocks"]} == {"identity"}
    again = run(*words)
    assert again.exit_code == 0 and "method layeronly, plan by importance" in again.stdout
    after = model.parent / "trained.onnx"
    trained = run("finetune", model, words[2], after, "--data", model.parent.parent / "none", "--unmerged")
    assert trained.exit_code == 1
    calib = words[words.index("--calib") + 1]
    given = ("--data", calib, "--batch", 8, "--steps", 2, "--lr", "1e-3", "--unmerged", "--norms")
    trained = run("finetune", model, words[2], after, *given)
    assert trained.exit_code == 0, trained.output
    assert "unmerged    0 blocks" in trained.stdout or "no block of" in trained.stderr


@needs_torch
def test_an_interruption_says_what_stays(words: list[object], run, monkeypatch) -> None:
    def interrupt(*given: object, **words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_layermerge.flow._importance.train", interrupt)
    kept = run(*words)
    assert kept.exit_code == 130 and "their scores in --importance: the same words go on)" in kept.stderr
    lost = run(*without(words, "--importance"))
    assert lost.exit_code == 130 and "with --importance their scores would stay, too)" in lost.stderr


def test_a_part_without_a_training(words: list[object], run) -> None:
    result = run(*(word for word in words if word != "--finetune"), "--shard", "1/2")
    assert result.exit_code == 2 and "--shard is a part of the work of --finetune" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        *(("--report", "r.html"), ("--plan", "p.json"), ("--lock",), ("--finetune-minutes", 1)),
        *(("--finetune-steps", 1), ("--decoder", "d.py:boxes"), ("--refit", "off"), ("--refit", "auto")),
        *(("--rivals", 3), ("--require-builds", "b.json")),
    ],
)
def test_a_part_has_nothing_else(more: tuple[object, ...], words: list[object], model: Path, run) -> None:
    result = run(*without(words, "--finetune-steps"), "--shard", "1/2", *more)
    assert result.exit_code == 2 and f"leaves nothing for {more[0]}; leave that out" in result.stderr
    assert not (model.parent / "a.json").exists()


def test_a_part_is_of_a_speed_up_that_makes_sense(words: list[object], run) -> None:
    result = run(*without(words, "--finetune-steps"), "--shard", "1/2", "--speedup", 0.5)
    assert result.exit_code == 2 and "--speedup 0.5 makes no sense" in result.stderr


@pytest.mark.parametrize("place", [0, 1])
def test_a_report_over_scores(place: int, words: list[object], model: Path, run) -> None:
    files = [model.parent / "a.json", model.parent / "b.json"]
    files[place].write_text("scores")
    result = run(*words, "--importance", files[1], "--report", files[place])
    assert result.exit_code == 2 and "is a file that this run works with" in result.stderr
    assert files[place].read_text() == "scores"


def test_where_nothing_is_trained(words: list[object], run) -> None:
    for option in ("--importance", "--importance-steps", "--finetune-steps"):
        words = without(words, option)
    result = run(*(word for word in words if word != "--finetune"), "--finetune-device", "cpu")
    assert result.exit_code == 2 and "--finetune-device is about the training of --finetune" in result.stderr


def test_a_method_without_a_training(words: list[object], run) -> None:
    result = run(*words, "--method", "olm")
    assert result.exit_code == 2 and "run olm finetune on the output" in result.stderr


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "²/4"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no part"):
        Shard().convert(text, None, None)


def test_parts() -> None:
    assert Shard().convert("2/8", None, None) == (2, 8)
