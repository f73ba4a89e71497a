"""Runs of `finetune` on the files of the fixture ``desk``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

import onnx_layermerge as olm

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="fine-tuning is an extra: torch is not installed")


def tuned(desk: Path, output: Path, **words: Any) -> olm.FinetuneReport:
    given = {"data": str(desk / "data.npz"), "steps": 20, "lr": 3e-3, **words}
    models = [given.pop(name, desk / f"{file}.onnx") for name, file in (("original", "in"), ("compressed", "small"))]
    return olm.finetune(*models, output, **given)


def bits(path: Path) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}
