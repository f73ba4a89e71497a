"""The signatures that every other test here runs on are strict, and those of the real bindings."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from onnx_layermerge.latency.backends.tensorrt import Library
from tests.latency.tensorrt.fake import FOLDER, VERSIONS, Refused, World, fake

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "tensorrt_signatures.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("tensorrt_signatures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_name_or_argument_is_an_error(version: str) -> None:
    module = fake(version, World())
    assert not hasattr(module, "Frobnicator")
    network = module.INetworkDefinition.__new__(module.INetworkDefinition)
    with pytest.raises(Refused, match="get_input takes"):
        network.get_input(number=0)
    with pytest.raises(Refused, match="get_input takes"):
        network.get_input()
    with pytest.raises(AttributeError, match="no frobnicate"):
        network.frobnicate()
    config = module.IBuilderConfig.__new__(module.IBuilderConfig)
    config._values = {}
    config.max_aux_streams = 0
    with pytest.raises(Refused, match="has no max_streams"):
        config.max_streams = 0
    with pytest.raises(AttributeError):
        network.num_inputs = 1


def test_the_versions_differ_where_this_package_asks_first() -> None:
    """What is feature-tested is really absent somewhere, or the test would be no test."""
    ten, eleven, rtx = (fake(version, World()) for version in VERSIONS)
    assert [hasattr(module, "ComputeCapability") for module in (ten, eleven, rtx)] == [False, False, True]
    assert [hasattr(module, "IRuntimeCache") for module in (ten, eleven, rtx)] == [False, False, True]
    assert [hasattr(module.Runtime, "get_engine_validity") for module in (ten, eleven, rtx)] == [False, False, True]
    assert [hasattr(module.BuilderFlag, "FP16") for module in (ten, eleven, rtx)] == [True, False, False]
    assert (ten.__version__.split(".")[0], eleven.__version__.split(".")[0]) == ("10", "11")


def test_the_list_is_that_of_the_installed_bindings(real: Library) -> None:
    listed = json.loads((FOLDER / "tensorrt-rtx-1.json").read_text(encoding="utf-8"))
    if listed["version"] != real.version:
        pytest.skip(f"signatures are of {listed['version']}, and {real.version} is installed")
    for name, members in listed["classes"].items():
        assert script().members(getattr(real.module, name)) == members, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("self: x.Y, a: int, b: x.Z = <Z.W: 0>", [["a", False], ["b", True]]),
        ("self: x.Y, a: tuple[int, str], *args", [["a", False]]),
        ("self: x.Y", []),
    ],
)
def test_arguments_out_of_a_docstring(text: str, expected: list[list[Any]]) -> None:
    assert script().arguments(text) == expected
