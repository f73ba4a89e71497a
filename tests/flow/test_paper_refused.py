"""Words of `compress --finetune` and `--shard` that make no sense, said before any work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from onnx_layermerge import DeviceError, UsageError
from onnx_layermerge.flow import score_shard
from onnx_layermerge.recover import training
from tests.flow import jobs
from tests.flow.paper import needs_torch, net, refused
from tests.machine import Machine


@pytest.mark.parametrize("method", ["olm", "drop"])
def test_methods_without_a_training_of_their_own(method: str, clocked: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "run olm finetune on the output", method=method)


@pytest.mark.parametrize(
    "word",
    [
        *({"importance": "x.json"}, {"importance_steps": 3}, {"importance_lr": 0.1}),
        *({"finetune_minutes": 1.0}, {"finetune_steps": 3}, {"finetune_device": "cpu"}, {"norms": True}),
    ],
)
def test_words_about_a_training_that_was_not_asked_for(word: dict[str, Any], clocked: Machine, tmp_path: Path) -> None:
    nothing = {"importance": None, "importance_steps": None, "finetune_steps": None}
    option = next(iter(word)).replace("_", "-")
    refused(tmp_path, UsageError, f"--{option} is about", finetune=False, **{**nothing, **word})


def test_without_samples(clocked: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "--finetune trains on samples", calib=None)


@pytest.mark.parametrize(
    "word",
    [{"importance_steps": 0}, {"importance_lr": 0.0}, {"finetune_minutes": math.nan}, {"finetune_steps": -1}],
)
def test_lengths_that_are_none(word: dict[str, Any], clocked: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "too small or no number", **word)


@needs_torch
@pytest.mark.parametrize("word", [{"plan": "plan.json"}, {"lock": True, "plan": "plan.json"}])
def test_plans_are_not_trained(word: dict[str, Any], clocked: Machine, tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "--plan and --lock", **word)


def test_a_missing_torch_is_said_at_once(clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    refused(tmp_path, DeviceError, "^olm compress --finetune needs PyTorch")


def test_several_processes_of_torchrun(clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(tmp_path, UsageError, "runs in one process, .* let --shard spread the blocks")
    made, path = jobs.save(net, tmp_path)
    with pytest.raises(UsageError, match="runs in one process"):
        score_shard(path, importance=tmp_path / "a.json", shard=(1, 2), calib=jobs.samples(made))
    assert clocked.built == 0 and not (tmp_path / "a.json").exists()


@needs_torch
@pytest.mark.parametrize(("device", "match"), [("cuda", "is not available"), ("tpu", "unknown"), ("meta", "is none")])
def test_a_device_that_is_none_is_said_at_once(
    device: str, match: str, clocked: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: TID251

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error = DeviceError if device == "cuda" else UsageError
    refused(tmp_path, error, f"^--finetune-device {device} .*{match}", finetune_device=device, importance=None)
    assert clocked.built == 0


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_parts_that_are_none(shard: tuple[int, int], clocked: Machine, tmp_path: Path) -> None:
    made, path = jobs.save(net, tmp_path)
    with pytest.raises(UsageError, match="is no part"):
        score_shard(path, importance=tmp_path / "a.json", shard=shard, calib=jobs.samples(made))


def test_a_part_needs_a_file(clocked: Machine, tmp_path: Path) -> None:
    made, path = jobs.save(net, tmp_path)
    with pytest.raises(UsageError, match="into the file of --importance"):
        score_shard(path, importance=(), shard=(1, 2), calib=jobs.samples(made))
