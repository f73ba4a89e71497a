"""Operators, checkpoints and devices that fine-tuning turns away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from onnx_layermerge.errors import DataError, DeviceError, ModelError  # noqa: E402
from onnx_layermerge.recover.training._checkpoint import VERSION, load_checkpoint  # noqa: E402
from onnx_layermerge.recover.training._processes import device_of  # noqa: E402
from tests.recover.training.running import draw, module_of, one_node  # noqa: E402

DEEP = draw(1, 2, 3, 3, 3, 3)
WEIGHT = draw(2, 2, 1, 1, 1, 1)
SCALES = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "words", "said"),
    [
        ("Conv", [DEEP, WEIGHT], {}, "its kernel has 4 spatial axes"),
        ("ConvTranspose", [DEEP, WEIGHT], {}, "its kernel has 4 spatial axes"),
        ("MaxPool", [DEEP], {"kernel_shape": [2] * 4}, "it pools over 4 axes"),
        ("Resize", [draw(1, 2, 3, 3), None, SCALES], {"coordinate_transformation_mode": "tf_crop_and_resize"},
         "it smooths or crops while it resizes|it resizes by"),
        ("Resize", [draw(1, 2, 3, 3), None, SCALES], {"coordinate_transformation_mode": "sideways"},
         "it resizes by 'nearest' with coordinates 'sideways'"),
        ("Pad", [draw(2, 3), np.array([0, 1, 0, 1])], {"mode": "diagonal"}, "its mode is 'diagonal'"),
        ("Constant", [], {"value_string": b"words"}, "it holds no numbers"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_be_trained_says_why(op: str, inputs: list[Any], words: dict[str, Any], said: str) -> None:
    data, feeds = one_node(op, inputs, **words)
    with pytest.raises(ModelError, match=rf"node 'the_node' \({op}\) cannot be trained: ({said}); export the model"):
        module_of(data)({name: torch.from_numpy(array) for name, array in feeds.items()})


def test_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    told = json.dumps({"version": VERSION + 1, "fingerprint": {}}).encode()
    np.savez(tmp_path / "c.npz", told=np.frombuffer(told, np.uint8))
    with pytest.raises(DataError, match=r"c\.npz was written by another version of olm; start anew with another"):
        load_checkpoint(tmp_path / "c.npz", {})


def test_a_gpu_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1").index == 1
    with pytest.raises(DeviceError, match="--device cuda:2: there are 2 GPUs here; give a smaller number"):
        device_of("cuda:2")
