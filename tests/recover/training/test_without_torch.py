"""The package without torch: everything can be imported, and what needs it says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.recover import training
from tests import zoo
from tests.recover.training import tiny

ROOT = Path(__file__).resolve().parents[3]
SENTENCE = 'training needs PyTorch; install it with pip install "onnx-layermerge[torch]".'


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it was never installed."""
    monkeypatch.setattr(training, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_torch")
def test_what_needs_torch_says_so() -> None:
    net = zoo.Net()
    model = ir.from_proto(net.proto(net.conv(net.input(), "c")))
    calls: tuple[Callable[[], object], ...] = (
        lambda: training.onnx_module(model),
        lambda: training.unsupported_nodes(model),
        lambda: training.check_checkpoint(Path("there.npz")),
        lambda: training.check_device("cpu", "--device"),
        lambda: training.train(model, model, tiny.samples(8), tiny.samples(8), training.Options(steps=1)),
    )
    for call in calls:
        with pytest.raises(DeviceError) as caught:
            call()
        assert str(caught.value) == SENTENCE and caught.value.exit_code == 5


def test_nothing_imports_torch_before_it_is_needed() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import onnx_layermerge, onnx_layermerge.recover.training, olm.commands.finetune\n"
        "print(callable(onnx_layermerge.finetune))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
