"""The cycle collector is held back inside and nowhere else."""

from __future__ import annotations

import gc
import weakref

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


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self


def test_what_is_left_inside_is_gone_on_the_way_out() -> None:
    with without_collector():
        knot = weakref.ref(Knot())
        assert knot() is not None
    assert knot() is None


def test_a_caller_who_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
