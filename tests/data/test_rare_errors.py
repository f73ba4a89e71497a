"""Data of kinds that are seldom met: each is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import InputSpec, load_calibration
from onnx_layermerge.data._streams import from_script
from onnx_layermerge.errors import DataError

X = InputSpec("x", ("N", 2), np.dtype("float32"))
Y = InputSpec("y", ("N", 2), np.dtype("float32"))
IMAGE = InputSpec("x", ("N", 3, 4, 4), np.dtype("float32"))


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_an_array_of_records(tmp_path: Path) -> None:
    """Names of fields that are not Latin-1 make a header of a version of its own."""
    np.savez(tmp_path / "c.npz", x=np.zeros(3, [("größe中", "f4")]))
    with pytest.raises(DataError, match="holds records, but the model takes plain arrays: save plain arrays"):
        load_calibration(tmp_path / "c.npz", [X])


def test_an_image_of_32_bits(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "images" / "deep.tif")
    with pytest.raises(DataError, match=r"deep\.tif holds 32-bit values: save it with 8 or 16 bits"):
        load_calibration(tmp_path / "images", [IMAGE]).batch([0])


def test_a_dict_whose_arrays_differ_in_samples() -> None:
    items: list[dict[str, Any]] = [{"x": np.zeros((2, 2), np.float32), "y": np.zeros((3, 2), np.float32)}]
    with pytest.raises(DataError, match="The arrays of Item 0 of .* differ in samples: give all of them the same"):
        load_calibration(iter(items), [X, Y])


def test_a_script_that_is_no_python_file(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text("x")
    with pytest.raises(DataError, match=r"calib\.txt cannot be loaded as a Python script: give a \.py file"):
        from_script(f"{tmp_path / 'calib.txt'}:samples", [X], None, 0)
