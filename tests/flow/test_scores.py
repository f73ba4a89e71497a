"""Scores are worked out once for a model and its samples, and a damaged memory of them is no memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.flow import _scores
from onnx_layermerge.flow._effort import EFFORTS
from onnx_layermerge.flow._prepare import Prepared, prepare, quiet
from onnx_layermerge.importance import Scores, score
from tests.flow import jobs


class Job:
    """Scoring of one small network, and how often it was really done."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        self.net, path = jobs.save(jobs.residual_net, folder)
        self.prepared: Prepared = prepare(path)
        self.folder = folder / "cache/olm/scores"
        self.done = 0

        def counted(*given, **named) -> Scores:
            self.done += 1
            return score(*given, **named)

        monkeypatch.setattr(_scores, "score", counted)

    def data(self, seed: int) -> Calibration:
        specs = [InputSpec(info.name, info.shape, info.dtype) for info in self.prepared.network.inputs]
        return load_calibration(jobs.samples(self.net, 24, seed), specs)

    def run(
        self, *, seed: int = 0, data: int = 0, first: int = 0, effort: str = "quick", mixing: bool = False
    ) -> Scores:
        return _scores.scored(
            self.prepared,
            self.prepared.candidates[first:],
            self.data(data),
            self.data(7),
            effort=EFFORTS[effort],
            seed=seed,
            mixing=mixing,
            progress=quiet,
        )


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


def same(one: Scores, other: Scores) -> bool:
    """To the last bit, moves as well."""
    moves = [(score.move, other.by_key[key].move) for key, score in one.by_key.items()]
    equal = all((a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in moves)
    return one == other and list(one.by_key) == list(other.by_key) and equal


def test_a_second_run_reads_the_same_scores(job: Job) -> None:
    first, second = job.run(), job.run()
    assert job.done == 1 and same(first, second)
    assert any(found.move is not None for found in first.by_key.values())
    assert any(not np.isfinite(found.divergence.kl) or found.fit_error for found in first.by_key.values())


@pytest.mark.parametrize("other", [{"seed": 1}, {"data": 1}, {"first": 1}, {"effort": "normal"}, {"mixing": True}])
def test_whatever_scores_depend_on_asks_for_new_ones(job: Job, other: dict[str, int]) -> None:
    job.run()
    job.run(**other)  # type: ignore[arg-type]
    assert job.done == 2
    job.run()
    assert job.done == 2


def test_other_code_asks_for_new_ones(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.run()
    monkeypatch.setattr(_scores, "_CODE", (*_scores._CODE, "errors.py"))
    job.run()
    assert job.done == 2


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_file_is_no_memory(job: Job, damage: bytes | None) -> None:
    first = job.run()
    (file,) = job.folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert same(first, job.run()) and job.done == 2
    assert file.read_bytes() == whole


def test_only_the_newest_are_kept(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scores, "MOST_REMEMBERED", 2)
    for seed in (0, 1, 2):
        job.run(seed=seed)
    assert len(list(job.folder.iterdir())) == 2
    job.run(seed=2)
    assert job.done == 3


def test_a_folder_that_cannot_be_written_is_no_fault(job: Job) -> None:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    job.folder.write_text("a file in its place")
    assert same(job.run(), job.run()) and job.done == 2
