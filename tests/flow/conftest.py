from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_layermerge.flow import _importance
from onnx_layermerge.verify import outputs_of
from tests.flow import paper
from tests.machine import Machine, install
from tests.recover.training import tiny


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return install(monkeypatch)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For torch, so that sums are made in one order, and small networks are not held up by waiting threads."""
    if find_spec("torch") is None:
        yield
        return
    import torch  # noqa: TID251

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original of a training, a worse copy, and samples with labels."""
    folder = tmp_path_factory.mktemp("desk")
    first = tiny.original()
    onnx.save(first, folder / "in.onnx")
    onnx.save(tiny.worse(first), folder / "small.onnx")
    np.savez(folder / "data.npz", **tiny.arrays(128))
    np.savez(folder / "val.npz", x=tiny.arrays(32, 2)["x"])
    return folder


@pytest.fixture(scope="session")
def timed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A table that knows every time of ``paper.net``; what a machine takes is no test's of these."""
    folder = tmp_path_factory.mktemp("timed")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        for method in ("layermerge", "layeronly"):
            paper.run(
                folder, method=method, finetune=False, importance=None, importance_steps=None, finetune_steps=None
            )
    return (folder / "table.json").read_bytes()


@pytest.fixture
def clocked(machine: Machine, timed: bytes, tmp_path: Path) -> Machine:
    """It times nothing of ``paper.net``: the table that ``paper.run`` works with has all."""
    (tmp_path / "table.json").write_bytes(timed)
    return machine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single blocks are scored as they are: what their training does is another test's."""

    def untrained(student: Any, teacher: Any, data: Any, held_out: Any, options: Any, **_: Any) -> SimpleNamespace:
        wanted = outputs_of(teacher, held_out, 16)
        return SimpleNamespace(divergence=_importance.quality(wanted, student, held_out, 16), weights={})

    monkeypatch.setattr(_importance, "train", untrained)
