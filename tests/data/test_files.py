"""``.npz`` files and folders of ``.npy``: what is read, how much of it, and damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import Calibration, InputSpec, load_calibration
from onnx_layermerge.errors import DataError

X = InputSpec("x", ("N", 3, 4, 4), np.dtype("float32"))
Y = InputSpec("y", ("N", 2), np.dtype("int64"))


def arrays(count: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(count, 3, 4, 4)).astype(np.float32),
        "y": rng.integers(0, 99, (count, 2)),
    }


def everything(data: Calibration) -> dict[str, np.ndarray]:
    return data.batch(range(len(data)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_gives_its_arrays(tmp_path: Path, save: Any, order: Any) -> None:
    wanted = arrays()
    save(tmp_path / "c.npz", **{name: np.array(a, order=order) for name, a in wanted.items()})
    got = everything(load_calibration(str(tmp_path / "c.npz"), [X, Y]))
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].flags.c_contiguous


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_with_a_limit_gives_whole_samples(tmp_path: Path, save: Any, order: Any) -> None:
    wanted = arrays()
    save(tmp_path / "c.npz", **{name: np.array(a, order=order) for name, a in wanted.items()})
    got = everything(load_calibration(tmp_path / "c.npz", [X, Y], limit=7, seed=5))
    places = [int(np.flatnonzero((wanted["x"] == sample).all(axis=(1, 2, 3)))[0]) for sample in got["x"]]
    assert len(set(places)) == 7
    assert places == sorted(places)
    assert places != list(range(7))
    np.testing.assert_array_equal(got["y"], wanted["y"][places])


def test_a_stored_npz_is_mapped_and_a_packed_one_read_in_part(tmp_path: Path) -> None:
    for save, kept in ((np.savez, 400), (np.savez_compressed, 5)):
        save(tmp_path / "c.npz", **arrays(400))
        data = load_calibration(tmp_path / "c.npz", [X], limit=5)
        store: Any = data._store
        values, _ = store._columns["x"]
        assert len(values) == kept
        assert isinstance(values, np.memmap) == (kept == 400)


def test_npz_arrays_that_no_input_takes_are_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **arrays())
    data = load_calibration(tmp_path / "c.npz", [X])
    assert [note for note in data.warnings if "'y'" in note and "ignored" in note]


def test_npz_with_pickled_objects_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="pickled Python objects, which are never loaded"):
        load_calibration(tmp_path / "c.npz", [X])


@pytest.mark.parametrize("keep", [0, 30, 500, -10])
def test_npz_that_is_cut_off(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"c\.npz cannot be read as a \.npz file"):
        load_calibration(path, [X])


def test_npz_whose_packed_values_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez_compressed(path, x=arrays()["x"])
    content = bytearray(path.read_bytes())
    content[2000:2400] = bytes(400)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"c\.npz"):
        load_calibration(path, [X])


def test_npz_names_the_sample_with_nan(tmp_path: Path) -> None:
    bad = arrays()
    bad["x"][17, 0, 0, 0] = np.nan
    np.savez(tmp_path / "c.npz", **bad)
    with pytest.raises(DataError, match=r"Sample 17 of .*c\.npz has NaN"):
        load_calibration(tmp_path / "c.npz", [X])


def test_npz_with_wrong_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", arrays()["x"])
    with pytest.raises(DataError, match=r"holds 'arr_0', but the model's inputs are 'x'"):
        load_calibration(tmp_path / "c.npz", [X])


def test_npy_with_and_without_the_batch_axis(tmp_path: Path) -> None:
    wanted = arrays(6)["x"]
    np.save(tmp_path / "a.npy", wanted[0])
    np.save(tmp_path / "b.npy", wanted[1:2])
    np.save(tmp_path / "c.npy", wanted[2:])
    data = load_calibration(tmp_path, [X])
    np.testing.assert_array_equal(everything(data)["x"], wanted)
    assert len(load_calibration(tmp_path, [X], limit=2)) == 2


def test_npy_of_a_scalar_input(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.float32(index))
    got = everything(load_calibration(tmp_path, [InputSpec("x", ("N",), np.dtype("float32"))]))["x"]
    assert got.tolist() == [0, 1, 2]


def test_npy_of_several_inputs_lie_in_folders_named_after_them(tmp_path: Path) -> None:
    wanted = arrays(3)
    for name, array in wanted.items():
        (tmp_path / name).mkdir()
        for index, sample in enumerate(array):
            np.save(tmp_path / name / f"{index}.npy", sample)
    got = everything(load_calibration(tmp_path, [X, Y]))
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
    np.testing.assert_array_equal(everything(load_calibration(tmp_path, [X]))["x"], wanted["x"])
    (tmp_path / "y" / "1.npy").unlink()
    with pytest.raises(DataError, match=r"1\.npy has no partner"):
        load_calibration(tmp_path, [X, Y])
    np.save(tmp_path / "y" / "1.npy", np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match="differ in samples"):
        load_calibration(tmp_path, [X, Y])


def test_npy_folders_with_wrong_names(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    np.save(tmp_path / "z" / "0.npy", arrays(1)["x"])
    with pytest.raises(DataError, match=r"inputs 'x', 'y', but has 'z'"):
        load_calibration(tmp_path, [X, Y])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        (np.zeros((3, 4, 5), np.float32), r"has shape \(3, 4, 5\)"),
        (np.zeros((3, 4, 4), np.uint8), "holds uint8"),
        (np.array([None]), "pickled"),
        (np.full((3, 4, 4), np.inf, np.float32), "NaN or infinite"),
        (np.zeros((0, 3, 4, 4), np.float32), "no samples"),
    ],
)
def test_npy_that_does_not_fit(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(DataError, match=words):
        load_calibration(tmp_path, [X])


def test_npy_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, arrays()["x"])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"a\.npy cannot be read"):
        load_calibration(tmp_path, [X])


def test_the_same_samples_have_the_same_digest_from_every_source(tmp_path: Path) -> None:
    wanted = arrays(5)
    np.savez_compressed(tmp_path / "c.npz", **wanted)
    folder = tmp_path / "npy"
    for name, array in wanted.items():
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "all.npy", array)
    stream = [{name: array[i : i + 1] for name, array in wanted.items()} for i in range(5)]
    doubles = {"x": wanted["x"].astype(np.float64), "y": wanted["y"]}
    sources = (tmp_path / "c.npz", folder, stream, wanted, doubles)
    assert len({load_calibration(source, [X, Y]).digest() for source in sources}) == 1
