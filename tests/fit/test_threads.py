"""Fits compute on one thread, whatever the caller has set, and leave the caller's setting as it was."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

import onnx_layermerge
from onnx_layermerge.fit import on_one_thread


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


def test_what_fits_is_limited():
    for command in (onnx_layermerge.compress, onnx_layermerge.plan):
        assert inspect.unwrap(command) is not command
