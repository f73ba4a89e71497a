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


@needs_torch
def test_a_part_of_the_blocks_and_then_the_rest(words: list[object], model: Path, run) -> None:
    words += ["--importance-lr", "0.01"]
    part = run(*words, "--shard", "1/2", "--quiet")
    assert part.exit_code == 0, part.output
    assert "part 1 of 2" in part.stdout and "--importance next" in part.stdout
    assert not Path(str(words[2])).exists()
    told = json.loads(run(*words, "--shard", "1/2", "--json").stdout)
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


def test_a_part_without_a_training(words: list[object], run) -> None:
    result = run(*(word for word in words if word != "--finetune"), "--shard", "1/2")
    assert result.exit_code == 2 and "--shard is a part of the work of --finetune" in result.stderr


def test_a_method_without_a_training(words: list[object], run) -> None:
    result = run(*words, "--method", "olm")
    assert result.exit_code == 2 and "run olm finetune on the output" in result.stderr


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "²/4"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no part"):
        Shard().convert(text, None, None)


def test_parts() -> None:
    assert Shard().convert("2/8", None, None) == (2, 8)
