"""Python objects and scripts as sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.data import InputSpec, _streams, load_calibration
from onnx_layermerge.errors import DataError

X = InputSpec("x", ("N", 2), np.dtype("float32"))


def pairs(count: int) -> np.ndarray:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


class Reader:
    """As onnxruntime's CalibrationDataReader: a dict each time, None at the end, one buffer for all."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.buffer = np.zeros((1, 2), np.float32)

    def get_next(self) -> dict[str, np.ndarray] | None:
        if not self.left:
            return None
        self.left -= 1
        self.buffer += 1
        return {"x": self.buffer}


def script(tmp_path: Path, text: str, name: str = "calib.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def first(data: Any) -> np.ndarray:
    values: np.ndarray = data.batch(range(len(data)))["x"]
    return values


def test_an_iterable_of_dicts_with_batches_of_any_size() -> None:
    rows = pairs(6)
    stream = ({"x": rows[a:b]} for a, b in ((0, 1), (1, 4), (4, 6)))
    data = load_calibration(stream, [X])
    np.testing.assert_array_equal(first(data), rows)
    assert data.source == "The generator"


def test_a_limit_takes_the_first_samples_and_draws_no_more() -> None:
    drawn = []

    def stream() -> Iterator[dict[str, np.ndarray]]:
        for index in range(100):
            drawn.append(index)
            yield {"x": pairs(4) + index}

    data = load_calibration(stream(), [X], limit=6)
    np.testing.assert_array_equal(first(data), np.concatenate([pairs(4), pairs(2) + 1]))
    assert drawn == [0, 1]


def test_a_calibration_data_reader() -> None:
    data = load_calibration(Reader(4), [X])
    assert first(data)[:, 0].tolist() == [1, 2, 3, 4]  # each a copy, though the reader reuses its buffer


def test_onnxruntimes_own_reader_class() -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Own(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter([{"x": pairs(1)}, {"x": pairs(1) + 5}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    assert first(load_calibration(Own(), [X])).tolist() == [[0, 1], [5, 6]]


def test_a_dict_of_arrays_is_sampled_at_random() -> None:
    data = load_calibration({"x": pairs(50)}, [X], limit=10, seed=1)
    again = load_calibration({"x": pairs(50)}, [X], limit=10, seed=1)
    other = load_calibration({"x": pairs(50)}, [X], limit=10, seed=2)
    assert first(data).tolist() == first(again).tolist() != first(other).tolist()
    assert first(data).tolist() != pairs(10).tolist()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (7, r"The int is of type int"),
        ([], "gave no samples"),
        ([{"x": np.zeros((0, 2), np.float32)}], "gave no samples"),
        ([pairs(1)], "Item 0 of The list is of type ndarray, not a dict"),
        ([{"x": pairs(1)}, None], "Item 1 of The list is of type NoneType"),
        ([{"z": pairs(1)}], "holds 'z', but the model's inputs are 'x'"),
        ([{"x": pairs(1)[0]}], r"has shape \(2\)"),
        ([{"x": [[1.0, 2.0], [1.0]]}], "cannot be made an array"),
        ([{"x": [["a", "b"]]}], "holds text"),
        ([{"x": pairs(2)}, {"x": pairs(2) * np.nan}], "Sample 2 of The list has NaN"),
        (Reader(0), "The Reader gave no samples"),
    ],
)
def test_objects_that_give_no_fitting_samples(source: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_calibration(source, [X])


def test_a_stream_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[dict[str, np.ndarray]]:
        while True:
            yield {"x": pairs(100)}

    monkeypatch.setattr(_streams, "STREAM_BYTES_MAX", 10_000)
    with pytest.raises(DataError, match=r"no end .* set a limit"):
        load_calibration(endless(), [X])
    assert len(load_calibration(endless(), [X], limit=1000)) == 1000


@pytest.mark.parametrize(
    "body",
    [
        "def f():\n    for i in range(3):\n        yield {'x': np.full((1, 2), i, np.float32)}",
        "def f():\n    return [{'x': np.full((1, 2), i, np.float32)} for i in range(3)]",
        "def f():\n    return {'x': np.repeat(np.arange(3.0)[:, None], 2, axis=1)}",
        "class f:\n    n = -1\n    def get_next(self):\n        self.n += 1\n"
        "        return {'x': np.full((1, 2), self.n, np.float32)} if self.n < 3 else None",
    ],
)
def test_a_script_may_yield_or_return(tmp_path: Path, body: str) -> None:
    path = script(tmp_path, f"import numpy as np\n{body}\n")
    data = load_calibration(f"{path}:f", [X])
    assert first(data).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert data.source == f"{path}:f"


def test_the_function_is_load_data_if_none_is_named(tmp_path: Path) -> None:
    path = script(tmp_path, "def load_data():\n    yield {'x': [[1.0, 2.0]]}\n")
    assert first(load_calibration(path, [X])).tolist() == [[1, 2]]


def test_the_scripts_folder_is_on_the_path_only_meanwhile(tmp_path: Path) -> None:
    script(tmp_path, "ROW = [[3.0, 4.0]]\n", "calib_rows_beside.py")
    path = script(
        tmp_path, "def f():\n    import calib_rows_beside\n    yield {'x': calib_rows_beside.ROW}\n"
    )
    before = list(sys.path)
    assert first(load_calibration(f"{path}:f", [X])).tolist() == [[3, 4]]
    assert sys.path == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["calib.py", "calib_rows_beside.py"]
    sys.modules.pop("calib_rows_beside")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def g():\n    pass\n", "no function 'f'"),
        ("f = 3\n", "no function 'f'"),
        ("def f(:\n", r"calib\.py, line 1 \(SyntaxError"),
        ("x = 1\nraise RuntimeError('out of\\ncheese')\n", r"line 2 \(RuntimeError: out of cheese\)"),
        ("def f():\n    return 1 / 0\n", r"line 2 \(ZeroDivisionError: division by zero\)"),
        ("def f():\n    yield {'x': [[1.0, 2.0]]}\n    raise KeyError('a')\n", r"line 3 \(KeyError: 'a'\)"),
        ("import sys\nsys.exit(3)\n", r"line 2 \(SystemExit: 3\)"),
        ("import no_such_module_here\n", r"line 1 \(ModuleNotFoundError"),
        ("def f():\n    yield [1.0, 2.0]\n", "Item 0 of .*:f is of type list, not a dict"),
        ("def f():\n    return None\n", "is of type NoneType, which gives no samples"),
        ("def f(a):\n    return a\n", "TypeError: f.* missing 1 required"),
        ("def f():\n    yield {'x': [[float('nan'), 2.0]]}\n", "NaN"),
    ],
)
def test_a_script_that_fails_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    before = list(sys.path)
    with pytest.raises(DataError, match=words) as caught:
        load_calibration(f"{script(tmp_path, text)}:f", [X])
    assert "\n" not in str(caught.value)
    assert sys.path == before


def test_a_missing_script(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no script .*none\.py"):
        load_calibration(f"{tmp_path / 'none.py'}:f", [X])
