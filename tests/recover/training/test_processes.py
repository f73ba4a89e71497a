"""Two processes train as one would: the same weights in both, and those of one process up to rounding."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from tests.recover.training import tiny  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


def run_two(folder: Path) -> list[dict[str, np.ndarray]]:
    """What both wrote; started as torchrun starts them, less its watching."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
    command = [sys.executable, "-m", "tests.recover.training.sharing", str(folder / "w")]
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), "\n".join(outputs)
    return [dict(np.load(folder / f"w.{rank}.npz")) for rank in range(2)]


def test_two_processes_share_the_batch_and_choose_one_rate(tmp_path: Path) -> None:
    first, second = run_two(tmp_path)
    assert first["told"][3] == 0 and second["told"][3] == 1
    np.testing.assert_array_equal(np.delete(first["told"], 3), np.delete(second["told"], 3))
    alone = tiny.trained(steps=8, ema=0.0, augment=False, rate=None)
    assert first["told"][1] == pytest.approx(alone.value, rel=1e-2) and first["told"][4] == alone.rate
    for name, array in alone.weights.items():
        assert first[name].tobytes() == second[name].tobytes()
        np.testing.assert_allclose(first[name], array, rtol=1e-3, atol=1e-5)
