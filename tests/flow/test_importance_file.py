"""Files of blocks' scores: what is kept in them, and which go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_layermerge import DataError
from onnx_layermerge.flow._importance_file import Entry, ImportanceFiles, open_files
from onnx_layermerge.importance import Divergence

OF = {"the model": "0" * 64}


def entry(rate: float = 1e-2, kl: float = 0.1) -> Entry:
    return Entry("structure", Divergence(kl, kl, 0.9), -kl, 0.2, rate)


def opened(*paths: Path) -> ImportanceFiles:
    return open_files(paths, OF, ())


def held(path: Path) -> dict[str, float]:
    return {key: told["kl"] for key, told in json.loads(path.read_text())["entries"].items()}


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    one, two = opened(path), opened(path)
    one.add("a", entry())
    two.add("b", entry(kl=0.2))
    one.add("c", entry())
    one.add("b", entry(kl=0.3))  # whoever has a block itself writes its own
    assert held(path) == {"a": 0.1, "b": 0.3, "c": 0.1}
    assert set(one.known) == {"a", "b", "c"}


def test_another_file_in_its_place_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    found = opened(path)
    found.add("a", entry())
    path.write_text("mine")
    with pytest.raises(DataError, match="is no file of --importance"):
        found.add("b", entry())
    assert path.read_text() == "mine"


def test_entries_of_several_rates_are_not_compared(tmp_path: Path) -> None:
    for name, rate in (("1.json", 1e-2), ("2.json", 3e-3)):
        opened(tmp_path / name).add(name, entry(rate))
    with pytest.raises(DataError, match="0.003 and 0.01.*with one --importance-lr") as caught:
        opened(tmp_path / "1.json", tmp_path / "2.json")
    assert str(caught.value).startswith(str(tmp_path / "2.json"))
    found = opened(tmp_path / "1.json")
    assert found.rate == 1e-2
    late = opened(tmp_path / "3.json")
    opened(tmp_path / "3.json").add("x", entry(1e-3))
    with pytest.raises(DataError, match="with one --importance-lr"):
        late.add("y", entry(1e-2))
    assert held(tmp_path / "3.json") == {"x": 0.1}


def test_only_the_first_file_is_added_to(tmp_path: Path) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    opened(two).add("b", entry())
    found = opened(one, two)
    found.add("a", entry())
    assert held(one) == {"a": 0.1} and held(two) == {"b": 0.1} and set(found.known) == {"a", "b"}
