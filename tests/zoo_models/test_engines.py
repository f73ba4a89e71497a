"""Every candidate block of three networks is an engine for TensorRT-RTX's builder, where that library is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_layermerge.errors import DeviceError
from onnx_layermerge.flow._build_only import build_only
from onnx_layermerge.latency.backends.tensorrt import load
from tests.zoo_models import restore


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# Each takes a minute; the other three pairs are in benchmarks/build_only.py.
@pytest.mark.parametrize(
    ("name", "precision"), [("resnet34", "fp16"), ("mobilenet_v2", "fp32"), ("efficientnet_lite0", "fp16")]
)
def test_all_candidates_parse_and_build(name: str, precision: str, tmp_path: Path) -> None:
    try:
        load("tensorrt-rtx")
    except DeviceError as error:
        pytest.skip(str(error))
    path = restore(name, tmp_path)
    report = build_only([path], capabilities=("8.6",), precision=precision)
    (model,) = report.models.values()
    assert model.candidates > 500 and len(report.blocks) > 150
    assert [(block.label, block.reason) for block in report.failed] == []
    assert all(block.engine_bytes > 0 and block.layers for block in report.blocks)
    # Nothing stands in a block only to change a layout, except at the image.
    if precision == "fp16":
        reformats = [block.label for block in report.blocks if any(layer.reformat for layer in block.layers)]
        assert len(reformats) < 0.1 * len(report.blocks), reformats[:5]
