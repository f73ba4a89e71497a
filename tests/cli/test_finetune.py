"""`olm finetune` as words: what is shown, what is JSON, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge.recover import training

ROOT = Path(__file__).resolve().parents[2]
needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed"
)


@pytest.fixture
def worse(model: Path) -> Path:
    """The tiny network with noise on one layer's weights."""
    proto, rng = onnx.load(model), np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array + rng.normal(0, 0.02, array.shape).astype("f"), "w2"))
    path = model.parent / "worse.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture
def words(model: Path, worse: Path, store: Path) -> list[object]:
    return ["finetune", model, worse, model.parent / "out.onnx", "--data", store / "calib.npz", "--batch", 8]


@needs_torch
def test_it_shows_what_was_gained(words: list[object], run) -> None:
    result = run(*words, "--steps", 20, "--lr", "3e-3")
    assert result.exit_code == 0, result.output
    assert "closer to" in result.stdout and "20 steps of 8 to the end" in result.stdout
    assert "loss  " in result.stdout and "validation  KL" in result.stdout
    assert Path(str(words[3])).exists()


@needs_torch
def test_json_is_the_whole_report(words: list[object], run) -> None:
    result = run(*words, "--steps", 4, "--lr", "1e-3", "--feature-weight", 1, "--no-augment", "--quiet", "--json")
    report = json.loads(result.stdout)
    assert report["steps"] == 4 and report["batch"] == 8 and report["taps"]
    assert report["improved"] is (report["end_loss"] < report["start_loss"])
    assert {"kl", "relative", "agreement"} == set(report["start"]) == set(report["end"])


@needs_torch
def test_ctrl_c_says_where_the_run_is_kept(words: list[object], run, monkeypatch, tmp_path: Path) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_layermerge.flow._finetune.train", interrupt)
    result = run(*words, "--steps", 4, "--checkpoint", tmp_path / "state.npz")
    assert result.exit_code == 130 and "nothing was written" in result.stderr and "--resume" in result.stderr
    assert not Path(str(words[3])).exists()


@needs_torch
def test_a_signal_ends_the_process_with_its_checkpoint_written(words: list[object], tmp_path: Path) -> None:
    """The command itself, as a scheduler would end it."""
    state = tmp_path / "state.npz"
    script = (
        "import os, signal, sys, threading, time\n"
        "def end():\n"
        "    while not os.path.exists(sys.argv[1]): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=end, daemon=True).start()\n"
        "from olm.app import olm\n"
        "olm(sys.argv[2:], prog_name='olm')\n"
    )
    given = [*map(str, words), "--steps", "100000", "--lr", "1e-6", "--ema", "0", "--checkpoint", str(state)]
    done = subprocess.run(
        [sys.executable, "-c", script, str(state), *given, "--checkpoint-minutes", "0.0001"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli")))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "nothing was written" in done.stderr and state.exists() and not Path(str(words[3])).exists()


def test_a_missing_torch_is_one_line(words: list[object], run, monkeypatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    result = run(*words)
    assert result.exit_code == 5 and result.stdout == ""
    assert result.stderr == (
        'Error: olm finetune needs PyTorch; install it with pip install "onnx-layermerge[torch]".\n'
    )


def test_data_are_needed(model: Path, run) -> None:
    result = run("finetune", model, model, model.parent / "out.onnx")
    assert result.exit_code == 2 and "--data" in result.stderr


@needs_torch
@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        (["--steps", 0], 2, "--steps"),
        (["--lr", "nan"], 2, "--lr"),
        (["--label-weight", 2], 2, "--label-weight"),
        (["--resume"], 2, "--checkpoint"),
        (["--loss", "kll"], 2, "--loss"),
        (["--labels", "classes"], 1, "classes"),
        (["--batch", 1000], 1, "--batch"),
        (["--device", "cuda:99"], 5, "--device"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[object], more: list[object], code: int, named: str, run
) -> None:
    result = run(*words, *more, "--quiet")
    assert result.exit_code == code, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1 and named in result.stderr
    assert not Path(str(words[3])).exists()
