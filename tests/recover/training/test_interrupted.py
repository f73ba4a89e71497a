"""A training that is interrupted, its checkpoint, and going on from it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.errors import DataError  # noqa: E402
from onnx_layermerge.recover.training import Options, _loop, train  # noqa: E402
from tests.recover.training import tiny  # noqa: E402
from tests.recover.training.test_loop import same  # noqa: E402


def interrupted(path: Path, at: int, number: signal.Signals = signal.SIGTERM, **words: Any) -> None:
    """A training that is asked to end in its step ``at``."""
    told = Options(steps=20, rate=3e-3, checkpoint=path, fingerprint={"a": "1"}, **words)

    def progress(done: int, total: int, what: str) -> None:
        if done == at:
            os.kill(os.getpid(), number)

    first = tiny.original()
    models = ir.from_proto(tiny.worse(first)), ir.from_proto(first)
    with pytest.raises(KeyboardInterrupt):
        train(*models, tiny.samples(tiny.SAMPLES), tiny.samples(tiny.HELD_OUT, 2), told, progress)


@pytest.mark.parametrize(
    ("at", "number", "words"),
    [
        (7, signal.SIGTERM, {}),
        (13, signal.SIGINT, {"ema": 0.0}),
        (5, signal.SIGTERM, {"precision": "bf16"}),
        (1, signal.SIGTERM, {"feature_weight": 0.5, "taps": ("a", "c3")}),
    ],
    ids=["SIGTERM", "SIGINT without a mean", "bf16", "features, at once"],
)
def test_what_was_interrupted_goes_on_to_the_same_bits(
    tmp_path: Path, at: int, number: signal.Signals, words: dict[str, Any]
) -> None:
    path = tmp_path / "state.npz"
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    interrupted(path, at, number, **words)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    found = tiny.trained(checkpoint=path, resume=True, fingerprint={"a": "1"}, **words)
    whole = tiny.trained(**words)
    assert found.resumed_at == at and found.improved and same(found, whole)
    assert found.checks == whole.checks and found.steps == whole.steps > at


def test_interrupted_twice_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    interrupted(path, 4)
    interrupted(path, 15, resume=True)
    assert same(tiny.trained(checkpoint=path, resume=True, fingerprint={"a": "1"}), tiny.trained())


def test_a_checkpoint_holds_no_code_and_is_of_one_training(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    interrupted(path, 3)
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fu" for name in archive.files)
    with pytest.raises(DataError, match=r"of another training \(a, b differ\)"):
        tiny.trained(checkpoint=path, resume=True, fingerprint={"a": "2", "b": "1"})


@pytest.mark.parametrize("held", [b"", b"no archive", None], ids=["empty", "text", "an archive of something else"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, held: bytes | None) -> None:
    path = tmp_path / "state.npz"
    if held is None:
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(held)
    with pytest.raises(DataError, match="is no checkpoint of olm finetune"):
        tiny.trained(checkpoint=path, resume=True)


def test_without_a_checkpoint_there_it_starts(tmp_path: Path) -> None:
    found = tiny.trained(checkpoint=tmp_path / "state.npz", resume=True)
    assert found.resumed_at == 0 and same(found, tiny.trained())


def test_a_checkpoint_is_written_every_few_minutes(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    tiny.trained(checkpoint=path, checkpoint_minutes=1e-9)
    assert path.exists() and list(tmp_path.iterdir()) == [path]


def test_while_rates_are_tried_it_ends_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, steps = tmp_path / "state.npz", []
    one = _loop._Training._one

    def asked(self: Any, step: int, rate: float) -> float:
        steps.append(step)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return one(self, step, rate)

    monkeypatch.setattr(_loop._Training, "_one", asked)
    with pytest.raises(KeyboardInterrupt):
        tiny.trained(rate=None, steps=1000, checkpoint=path)
    assert steps == [0] and not path.exists()  # of a try nothing is kept
