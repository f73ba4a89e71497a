"""A small network for the paper's methods, and runs of it that train for a few steps."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from onnx_layermerge import OlmError, Report, compress
from onnx_layermerge.flow import ShardReport, score_shard
from tests import zoo
from tests.flow import jobs

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")


def net() -> tuple[zoo.Net, str]:
    """Layers that can be left out, and blocks that can be merged."""
    made = zoo.Net(seed=11)
    value = made.relu(made.conv(made.input("image", ("batch", 4, 6, 6)), "stem", 6), "r")
    for number in range(2):
        value = made.relu(made.conv(value, f"e{number}", 6), f"f{number}")
    return made, jobs.blocks(made, value, 2, 6, 12)


def scored(folder: Path, name: str = "scores.json", **options: Any) -> ShardReport:
    """All scores, and nothing else."""
    made, path = jobs.save(net, folder)
    words = {"calib": jobs.samples(made, 48), "profile": folder / "table.json", "importance_steps": 4, "shard": (1, 1)}
    return score_shard(path, importance=folder / name, **{**words, **options})


def run(folder: Path, name: str = "out.onnx", **options: Any) -> Report:
    made, path = jobs.save(net, folder)
    words = {
        "speedup": 1.2, "method": "layermerge", "finetune": True, "importance_steps": 4, "finetune_steps": 12,
        "calib": jobs.samples(made, 48), "profile": folder / "table.json", "importance": folder / "scores.json",
        **options,
    }  # fmt: skip
    return compress(path, folder / name, **words)


def scores(folder: Path, name: str = "scores.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def refused(folder: Path, error: type[OlmError], match: str, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        run(folder, **options)
    assert str(caught.value).rstrip().endswith(".") and "\n" not in str(caught.value)
    assert not (folder / "out.onnx").exists()
