"""Every mistake a user can make: the documented exit code, one sentence, no traceback, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper

Snapshot = dict[str, str]


def snapshot(folder: Path) -> Snapshot:
    """Every file below the folder, hidden ones too, with the digest of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def assert_refused(result: Result, code: int, *words: str) -> None:
    """The exit code, and one line on stderr that names ``words``."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ") and lines[0].endswith(".") and len(lines[0]) > 20
    for word in words:
        assert word in lines[0]


@pytest.fixture
def compress(tmp_path: Path, timings: list[str], run) -> Callable[..., Result]:
    """``olm compress`` that must leave the test's folder as it is."""

    def call(source: object, *words: object, output: object = None, speedup: object = 1.5) -> Result:
        target = tmp_path / "out.onnx" if output is None else output
        before = snapshot(tmp_path)
        result = run("compress", source, target, "--speedup", speedup, *timings, *words)
        assert snapshot(tmp_path) == before
        return result

    return call


def _no_conv() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "plain",
        [value("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("y", TensorProto.FLOAT, ["N", 3, 8, 8])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


def _bad_model(kind: str, folder: Path, good: bytes) -> Path:
    path = folder / "bad.onnx"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "truncated": good[: len(good) * 2 // 3],
                "header only": good[:7],
                "text": b"This is the license of the model.\n" * 20,
                "no conv": _no_conv(),
                "invalid": good.replace(b"Relu", b"Rely"),
            }[kind]
        )
    return path


BAD_MODELS = {
    "missing": "does not exist",
    "directory": "is a directory",
    "empty": "is empty",
    "truncated": "",
    "header only": "",
    "text": "",
    "no conv": "no Conv",
    "invalid": "",
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_model(kind: str, tmp_path, tiny_bytes, compress) -> None:
    path = _bad_model(kind, tmp_path, tiny_bytes)
    assert_refused(compress(path), 1, str(path), BAD_MODELS[kind])


@pytest.mark.parametrize("command", ["inspect", "profile", "plan", "verify"])
@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "truncated", "text"])
def test_bad_model_in_the_other_commands(command: str, kind: str, tmp_path, model, tiny_bytes, timings, run) -> None:
    path = _bad_model(kind, tmp_path, tiny_bytes)
    before = snapshot(tmp_path)
    words = {"inspect": [path], "verify": [model, path]}.get(command, [path, *timings])
    assert_refused(run(command, *words), 1, str(path))
    assert snapshot(tmp_path) == before


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros((40, 3, 8, 8), np.float32)}, ("x",)),
        ({"x": np.zeros((40, 3, 9, 8), np.float32)}, ("'x'", "shape")),
        ({"x": np.zeros((40, 8, 8, 3), np.float32)}, ("'x'", "shape")),
        ({"x": np.zeros((40, 8), np.float32)}, ("'x'", "shape")),
        ({"x": np.full((40, 3, 8, 8), "a")}, ("x",)),
        ({"x": np.zeros((40, 3, 8, 8), np.complex64)}, ("x",)),
        ({"x": np.zeros((0, 3, 8, 8), np.float32)}, ("samples",)),
    ],
    ids=["name", "shape", "layout", "rank", "text", "complex", "none"],
)
@pytest.mark.parametrize("option", ["--calib", "--val"])
def test_bad_samples(option: str, arrays: dict[str, Any], words: tuple[str, ...], tmp_path, model, store, compress):
    path = _npz(tmp_path / "bad.npz", **arrays)
    more = [] if option == "--calib" else ["--calib", store / "calib.npz"]
    assert_refused(compress(model, option, path, *more), 1, *words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.npz", None),
        ("text.npz", b"no zip archive"),
        ("samples.bin", b"what is this"),
        ("script.py", b"def load_data():\n    raise KeyError('x')\n"),
        ("syntax.py", b"def load_data(:\n"),
        ("empty folder", "folder"),
    ],
)
def test_bad_calibration_source(name: str, content: bytes | str | None, tmp_path, model, compress) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert_refused(compress(model, "--calib", path), 1, name)


def test_options_of_images_that_contradict_each_other(model, store, compress) -> None:
    result = compress(model, "--calib", store / "calib.npz", "--mean", "1,2")
    assert_refused(result, 2, "mean")


@pytest.mark.parametrize("speedup", ["1", "1.0", "0.5", "0", "-2", "nan", "inf", "-inf", "abc", "", "1,5"])
def test_bad_speedup(speedup: str, model, compress) -> None:
    assert_refused(compress(model, speedup=speedup), 2, "--speedup")


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["--method", "magic"],
        ["--refit", "maybe"],
        ["--rivals", "0"],
        ["--samples", "1"],
        ["--batch", "0"],
        ["--seed", "-1"],
        ["--seed", "abc"],
        ["--shapes", "x=1x3x8x8"],
        ["--shapes", "other:1x3x8x8"],
        ["--shapes", "x:1x3x9x8"],
        ["--shapes", "x:1x3x8"],
        ["--preset", "lite", "--scale", "0"],
        ["--val", "images"],
        ["--report", "report.txt"],
        ["another.onnx"],
    ],
    ids=" ".join,
)
def test_words_that_make_no_sense(words: list[str], model, compress) -> None:
    assert_refused(compress(model, *words), 2)


def test_missing_words(run) -> None:
    assert_refused(run("compress"), 2, "olm compress --help")
    assert_refused(run("compress", "a.onnx", "b.onnx"), 2, "--speedup")
    assert_refused(run("compres"), 2, "compres")


def test_output_folder_missing(tmp_path, model, compress) -> None:
    assert_refused(compress(model, output=tmp_path / "no" / "out.onnx"), 1, "does not exist")


def test_output_is_a_folder(tmp_path, model, compress) -> None:
    assert_refused(compress(model, output=tmp_path), 1, "directory")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_output_folder_is_not_writable(tmp_path, model, compress) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    assert_refused(compress(model, output=locked / "out.onnx"), 1, "writable")


@pytest.mark.parametrize("how", ["same", "dots", "relative", "symlink", "hard link", "folder link"])
def test_output_is_the_input(how: str, tmp_path, model, compress, monkeypatch) -> None:
    if how == "same":
        output: object = model
    elif how == "dots":
        (tmp_path / "sub").mkdir()
        output = tmp_path / "sub" / ".." / "in.onnx"
    elif how == "relative":
        monkeypatch.chdir(tmp_path)
        output = "in.onnx"
    elif how == "folder link":
        (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
        output = tmp_path.parent / f"{tmp_path.name}-link" / "in.onnx"
    else:
        output = tmp_path / "other.onnx"
        if how == "symlink":
            output.symlink_to(model)
        else:
            os.link(model, output)
    assert_refused(compress(model, output=output), 1, "input itself")


def test_report_is_checked_before_the_work(tmp_path, model, compress) -> None:
    assert_refused(compress(model, "--report", tmp_path / "no" / "r.json"), 1, "does not exist")
    target = tmp_path / "out.json"
    assert_refused(compress(model, "--report", target, output=target), 2, "output itself")
    page = tmp_path / "page.html"
    assert_refused(compress(model, "--report", page, "--report", page), 2, "given twice")
    for suffix in (".html", ".md", ".json"):
        linked = tmp_path / f"linked{suffix}"
        linked.symlink_to(model)
        assert_refused(compress(model, "--report", linked), 1, "input itself")
        linked.unlink()
    profile = tmp_path / "profile.json"
    assert_refused(compress(model, "--report", profile, "--profile", profile), 2, "works with")
    folder = tmp_path / "folder.md"
    folder.mkdir()
    assert_refused(compress(model, "--report", folder), 1, "is a directory")


def test_a_report_does_not_replace_the_weights_of_a_model(tmp_path, model, compress) -> None:
    weights = tmp_path / "weights.json"
    held = onnx.load(model)
    onnx.save(held, model, save_as_external_data=True, location=weights.name, size_threshold=0)
    assert_refused(compress(model, "--report", weights), 1, "holds the weights")
    other = tmp_path / "older.onnx"  # an output that is written anew has weights of its own beside it
    other.write_bytes(model.read_bytes())
    assert_refused(compress(tmp_path / "none.onnx", "--report", weights, output=other), 1, "holds the weights")


def test_a_profile_that_is_none(tmp_path, model, run) -> None:
    """The input itself, damaged JSON, a folder, a missing folder: said, and not written over."""
    (tmp_path / "broken.json").write_text("{")
    for bad in (model, tmp_path / "broken.json", tmp_path, tmp_path / "no" / "p.sqlite"):
        before = snapshot(tmp_path)
        result = run("compress", model, tmp_path / "out.onnx", "--speedup", 1.5, "--profile", bad)
        assert_refused(result, 1, str(bad.parent if bad.parent.name == "no" else bad))
        assert snapshot(tmp_path) == before


def test_unreachable_speedup_names_the_best(model, compress) -> None:
    result = compress(model, "--quiet", speedup=1000)
    assert_refused(result, 4, "1000×", "best measured speed-up is")


@pytest.mark.parametrize(
    "words",
    [
        ["--device", "cuda:0"],
        ["--device", "toaster"],
        ["--backend", "tensorrt"],
        ["--backend", "magic"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("command", ["compress", "profile", "plan", "verify"])
def test_unknown_device_or_backend(command: str, words: list[str], tmp_path, model, timings, run) -> None:
    before = snapshot(tmp_path)
    more = {
        "compress": [tmp_path / "out.onnx", "--speedup", 1.5, *timings],
        "verify": [model],
    }.get(command, timings)
    assert_refused(run(command, model, *more, *words), 5, words[1])
    assert snapshot(tmp_path) == before


def test_gate_that_is_missed(model, run) -> None:
    result = run("verify", model, model, "--min-speedup", 50, "--quiet", "--json")
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: speed-up ") and "50×" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [["--min-agreement", "0.5"], ["--max-kl", "1"], ["--preset", "lite"]], ids=" ".join)
def test_gate_on_outputs_needs_data(words: list[str], model, run) -> None:
    assert_refused(run("verify", model, model, *words), 2, words[0], "--calib")


def test_a_bound_on_the_metric_needs_one(model, run) -> None:
    assert_refused(run("verify", model, model, "--max-drop", "0.5"), 2, "--max-drop", "--metric")


MISTAKES = {
    "mine.py": "names no function",
    "none.py:top1": "there is no script",
    "mine.py:top5": "has no function 'top5'",
    "mine.py:nothing": "returned",
    "mine.py:nan": "returned",
    "mine.py:fails": "line 6 (ZeroDivisionError",
    "broken.py:top1": "line 1 (SyntaxError",
}


@pytest.mark.parametrize("given", MISTAKES)
@pytest.mark.parametrize("option", ["--metric", "--decoder"])
def test_a_metric_or_decoder_that_is_none(option: str, given: str, tmp_path, model, store, compress, run) -> None:
    (tmp_path / "mine.py").write_text(
        "def nothing(given):\n    pass\ndef nan(given):\n    return float('nan')\ndef fails(given):\n    1 / 0\n"
    )
    (tmp_path / "broken.py").write_text("def top1(:\n")
    words = [option, tmp_path / given, "--calib", store / "calib.npz"]
    for result in (compress(model, *words), run("verify", model, model, *words)):
        assert_refused(result, 2, option, str(tmp_path / given.split(":")[0]), MISTAKES[given])


@pytest.mark.parametrize("command", ["compress", "verify"])
def test_a_decoder_needs_data(command: str, tmp_path, model, compress, run) -> None:
    script = tmp_path / "mine.py"
    script.write_text("def boxes(outputs):\n    return []\n")
    words = ["--decoder", f"{script}:boxes"]
    result = compress(model, *words) if command == "compress" else run("verify", model, model, *words)
    assert_refused(result, 2, "--decoder", "--calib")


@pytest.mark.parametrize("value", ["nan", "-1", "82", "most"])
def test_gate_with_an_impossible_bound(value: str, model, run) -> None:
    assert_refused(run("verify", model, model, "--min-agreement", value), 2, "--min-agreement")


def test_models_that_cannot_be_compared(tmp_path, model, tiny_bytes, run) -> None:
    other = onnx.load_from_string(tiny_bytes.replace(b"tiny", b"tony"))
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    onnx.save(other, tmp_path / "other.onnx")
    assert_refused(run("verify", model, tmp_path / "other.onnx"), 1, "inputs")
