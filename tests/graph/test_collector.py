"""The cycle collector is held back inside and nowhere else."""

from __future__ import annotations

import gc

import pytest

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import read, without_collector


def test_off_inside_and_on_behind_an_error(tmp_path) -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), without_collector():
        assert not gc.isenabled()
        with without_collector():
            pass
        assert not gc.isenabled()
        1 / 0  # noqa: B018
    assert gc.isenabled()
    with pytest.raises(ModelError):
        read(tmp_path / "none.onnx")
    assert gc.isenabled()


def test_a_caller_who_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
