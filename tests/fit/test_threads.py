"""Fits compute on one thread, whatever the caller has set, and leave the caller's setting as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

import onnx_layermerge
from onnx_layermerge.errors import UsageError
from onnx_layermerge.fit import blas_name, on_one_thread
from onnx_layermerge.flow import _compress, _plan


def _blas() -> set[int]:
    scipy.linalg.cholesky(np.eye(2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_inside_and_the_callers_number_after():
    with threadpool_limits(limits=2, user_api="blas"):
        assert _blas() == {2}
        assert on_one_thread(_blas)() == {1}
        assert _blas() == {2}


def test_a_blas_that_is_loaded_late_is_limited_too():
    program = (
        "from threadpoolctl import threadpool_info\n"
        "from onnx_layermerge.fit import on_one_thread\n"
        "print(sorted(p['num_threads'] for p in on_one_thread(threadpool_info)() if p['user_api'] == 'blas'))\n"
        "import scipy.linalg\n"
        "print(len([p for p in threadpool_info() if p['user_api'] == 'blas']))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
    limited, loaded = run.stdout.splitlines()
    assert limited == str([1] * int(loaded))


def test_the_setting_comes_back_with_the_end_of_the_last():
    def outer() -> list[set[int]]:
        return [on_one_thread(_blas)(), _blas()]

    with threadpool_limits(limits=2, user_api="blas"):
        assert on_one_thread(outer)() == [{1}, {1}]
        assert _blas() == {2}


def test_an_error_gives_the_setting_back():
    @on_one_thread
    def fails() -> None:
        raise ValueError

    with threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(ValueError):
            fails()
        assert _blas() == {2}


def test_what_fits_is_limited(tmp_path, monkeypatch):
    """Both commands, seen from the first thing that they do."""
    seen = []

    def stop(*_, **__):
        seen.append(_blas())
        raise UsageError("stop here.")

    for name, module in (("compress", _compress), ("plan", _plan)):
        monkeypatch.setattr(module, "effort_of", stop)
        outputs = (tmp_path / "out.onnx",) if name == "compress" else ()
        options = {"speedup": 2.0} if name == "compress" else {}
        with threadpool_limits(limits=2, user_api="blas"), pytest.raises(UsageError):
            getattr(onnx_layermerge, name)(tmp_path / "in.onnx", *outputs, **options)
    assert seen == [{1}, {1}]


def test_the_blas_is_named():
    assert "openblas" in blas_name().lower() or "mkl" in blas_name().lower() or "accelerate" in blas_name().lower()
