"""What people export: read, counted, and given back as it was when nothing is to be replaced."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_layermerge import inspect
from onnx_layermerge.flow import _inspect
from onnx_layermerge.graph import Network, Session, bind_shapes, random_feeds, read, to_bytes
from onnx_layermerge.recover import assemble
from onnx_layermerge.rewrite import finish
from tests.zoo_models import HERE, restore, strip

EXPECTED: dict[str, dict[str, int]] = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
NAMES = sorted(EXPECTED)
# Families in which at most a tenth of the convolutions may lie outside of every legal block.
WELL_COVERED = ("resnet", "resnext", "vgg", "mobilenet", "efficientnet_lite")


@dataclass(frozen=True)
class Seen:
    """What the package says of one file, and how far the empty plan's output lies from the file's."""

    convs: int
    covered: int
    blocks: int
    off: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@cache
def look(name: str, folder: Path) -> Seen:
    path = restore(name, folder)
    networks: list[Network] = []

    def keeping(*arguments: Any, **options: Any) -> Network:
        networks.append(read(*arguments, **options))
        return networks[-1]

    with mock.patch.object(_inspect, "read", keeping):  # what it read serves the empty plan as well
        seen = inspect(path)
    model, _ = assemble(networks[0], (), lambda number, candidate, model, aliases: ())
    empty = to_bytes(finish(networks[0], model, {}))
    onnx.checker.check_model(empty, full_check=True)
    feeds = random_feeds(networks[0].inputs, bind_shapes(networks[0].inputs, {}, batch=1), seed=1)
    wanted, got = Session(path.read_bytes()).run(feeds), Session(empty).run(feeds)
    off = max(float(np.abs(value - got[key]).max() / np.abs(value).max()) for key, value in wanted.items())
    path.unlink()
    return Seen(seen.convs, seen.covered, sum(seen.blocks.values()), off)


@pytest.mark.parametrize("name", NAMES)
def test_as_many_convolutions_lie_in_legal_blocks_as_before(name: str, folder: Path) -> None:
    seen = look(name, folder)
    assert seen.convs == EXPECTED[name]["convs"]
    assert seen.covered >= EXPECTED[name]["covered"]
    assert seen.blocks > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(WELL_COVERED)])
def test_nine_tenths_of_a_plain_family_can_be_optimized(name: str, folder: Path) -> None:
    seen = look(name, folder)
    assert seen.covered >= 0.9 * seen.convs


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_plan_leaves_the_outputs_as_they_were(name: str, folder: Path) -> None:
    assert look(name, folder).off <= 1e-5


def test_every_family_that_has_to_be_well_covered_is_there() -> None:
    assert all(any(name.startswith(family) for name in NAMES) for family in WELL_COVERED)


def test_a_restored_file_keeps_shapes_and_follows_its_laws(tmp_path: Path) -> None:
    bare = onnx.load_from_string(gzip.decompress((HERE / "mobilenet_v1.onnx.gz").read_bytes())).graph.initializer
    full = onnx.load(restore("mobilenet_v1", tmp_path)).graph.initializer
    drawn = 0
    for tensor, other in zip(bare, full, strict=True):
        array = numpy_helper.to_array(other)
        assert (other.name, array.shape) == (tensor.name, tuple(tensor.dims))
        if tensor.doc_string:
            assert not tensor.raw_data
            assert not other.doc_string
            drawn += array.size
            law, *numbers = tensor.doc_string.split()
            first, second = map(float, numbers)
            if law == "uniform":
                assert first - 1e-6 <= array.min() < array.max() <= second + 1e-6
            elif array.size > 5000:
                assert array.std() == pytest.approx(second, rel=0.1)
    assert drawn > 4e6


def test_restoring_gives_the_same_bytes_and_stripping_takes_the_weights_out_again(tmp_path: Path) -> None:
    first, again = (restore("resnet18", tmp_path).read_bytes() for _ in range(2))
    assert first == again
    assert len(strip(onnx.load_from_string(first))) < 1e-3 * len(first)
