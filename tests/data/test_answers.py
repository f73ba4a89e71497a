"""Answers are looked at before anything is concluded from them; sources that memory cannot hold end in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_layermerge.data import (
    Calibration,
    InputSpec,
    Layout,
    _answers,
    _memory,
    answers,
    answers_finite,
    check_finite,
    constant_outputs,
    load_calibration,
    same_answer,
    same_values,
)
from onnx_layermerge.errors import DataError
from tests import zoo

SPEC = InputSpec("x", ("N", 3, 4, 4), np.dtype(np.float32))


def data(values: np.ndarray) -> Calibration:
    return load_calibration({"x": values.astype(np.float32)}, [SPEC])


def logs() -> ir.Model:
    """ln(x), which is NaN below 0."""
    net = zoo.Net()
    return ir.from_proto(net.proto(net.node("Log", net.input("x", SPEC.shape), name="y")))


def test_answers_are_those_of_the_model() -> None:
    values = np.random.default_rng(0).uniform(1, 2, (10, 3, 4, 4))
    found, layout = answers(logs(), [data(values)], 4)
    np.testing.assert_allclose(found["y"], np.log(values), rtol=1e-5, atol=1e-6)
    assert layout.samples == len(values)
    few, layout = answers(logs(), [data(values), data(values[:3])], 2, limit=6)
    assert len(few["y"]) == layout.samples == 9


@pytest.mark.parametrize("bad", [-1.0, 0.0])
def test_one_that_is_no_number_is_an_error(bad: float) -> None:
    values = np.ones((10, 3, 4, 4))
    values[7, 0, 0, 0] = bad
    with pytest.raises(DataError, match=r"output 'y' is NaN or infinite for 1 of 10 samples of .* \(sample 7\): leave"):
        answers(logs(), [data(values)], 4)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("fixed", [False, True])
def test_one_of_hundreds_is_found_and_named_and_so_is_its_source(part: int, fixed: bool, tmp_path: Path) -> None:
    """Far more than are looked at for anything else; the last of a source whose last batch is not full."""
    spec = InputSpec("x", (3 if fixed else "N", 3, 4, 4), np.dtype(np.float32))
    values = [np.random.default_rng(seed).uniform(1, 2, (400, 3, 4, 4)).astype(np.float32) for seed in (0, 1)]
    values[part][399, 0, 0, 0] = -1
    parts = []
    for name, array in zip(("fit", "val"), values, strict=True):
        np.savez(tmp_path / f"{name}.npz", x=array)
        parts.append(load_calibration(tmp_path / f"{name}.npz", [spec]))
    source = ("fit", "val")[part]
    with pytest.raises(DataError, match=rf"for 1 of 400 samples of .*{source}\.npz \(sample 399\)"):
        answers(logs(), parts, 3)
    told: list[tuple[int, int]] = []
    answers(logs(), [parts[1 - part]], 3, seen=lambda *now: told.append(now))
    assert told[-1] == (400, 400) and told == sorted(told)


def test_a_sample_is_named_by_its_file_and_only_a_few_are() -> None:
    values = np.ones((10, 3, 4, 4))
    values[3:8] = 0
    with pytest.raises(DataError, match=r"5 of 10 samples .* \(sample 3, sample 4, sample 5 and 2 more\)"):
        answers(logs(), [data(values)], 4)
    with pytest.raises(DataError, match=r"2 of 6 samples .* \(sample 3, sample 4\)"):
        answers(logs(), [load_calibration({"x": values.astype(np.float32)}, [SPEC], limit=6, seed=2)], 4)


def test_files_name_samples(tmp_path: Path) -> None:
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full((3, 4, 4), float(number != 2), np.float32))
    many = np.ones((3, 3, 4, 4), np.float32)
    many[1] = 0
    np.save(tmp_path / "many.npy", many)
    with pytest.raises(DataError, match=r"\(.*/2\.npy, sample 1 of .*/many\.npy\)"):
        answers(logs(), [load_calibration(tmp_path, [SPEC])], 4)


def test_where_no_axis_counts_samples_all_of_a_batch_are_suspect() -> None:
    net = zoo.Net()
    many = net.node("Log", net.input("x", SPEC.shape), name="l")
    model = ir.from_proto(net.proto(net.node("ReduceMean", many, name="y")))
    values = np.ones((10, 3, 4, 4))
    values[5, 0, 0, 0] = 0
    with pytest.raises(DataError, match="for 4 of 10 samples"):
        answers(model, [data(values)], 4)


def test_large_outputs_are_held_for_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).uniform(1, 2, (40, 3, 4, 4))
    monkeypatch.setattr(_answers, "HELD_BYTES", 6 * 3 * 4 * 4 * 4)
    found, layout = answers(logs(), [data(values)], 4)
    assert len(found["y"]) == layout.samples == 6
    values[39] = 0
    with pytest.raises(DataError, match=r"\(sample 39\)"):
        answers(logs(), [data(values)], 4)


def test_answers_from_a_number_on() -> None:
    values = np.ones((10, 3, 4, 4))
    values[5] = 0
    assert answers_finite(logs(), data(values), 2, 6) and not answers_finite(logs(), data(values), 2, 5)
    check_finite({"y": np.ones(3, np.float32), "n": np.ones(3, int)}, "there")
    with pytest.raises(DataError, match="output 'y' is NaN or infinite for some samples of there"):
        check_finite({"y": np.array([1, np.inf], np.float32)}, "there")


def test_the_share_of_the_commonest_answer() -> None:
    scores = np.eye(4, dtype=np.float32)[[1, 1, 1, 2]]
    assert same_answer({"scores": scores}) == 0.75
    # Nothing else is class scores: boxes, images, counts.
    others = {"boxes": np.zeros((4, 2, 2), np.float32), "one": np.zeros((4, 1), np.float32), "n": np.zeros((4, 3), int)}
    assert same_answer(others) is None
    assert same_answer({**others, "scores": scores}) == 0.75


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_field_of_one_colour_is_constant(channels_last: bool) -> None:
    colours = np.random.default_rng(0).uniform(0, 1, (6, 3, 1, 1)) * np.ones((1, 1, 4, 4))
    colours[5] += np.random.default_rng(1).uniform(0, 0.1, (3, 4, 4))
    spec = SPEC
    if channels_last:
        colours, spec = colours.transpose(0, 2, 3, 1), InputSpec("x", ("N", 4, 4, 3), np.dtype(np.float32))
    notes = load_calibration({"x": colours.astype(np.float32)}, [spec]).warnings
    assert any(note.startswith("5 of 6 ") and "one colour" in note for note in notes)


def test_stripes_are_not_constant() -> None:
    stripes = np.zeros((40, 3, 4, 4))
    stripes += np.arange(4) + np.arange(40).reshape(-1, 1, 1, 1)
    assert not data(stripes).warnings


def test_a_stream_larger_than_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(100):
            yield {"x": np.random.default_rng(0).uniform(0, 1, (1, 3, 4, 4)).astype(np.float32)}

    monkeypatch.setattr(_memory, "free_bytes", lambda: 2 * 50 * 3 * 4 * 4 * 4)
    with pytest.raises(DataError, match=r"\(51 samples\) would take .* are free: use fewer samples \(--samples\)"):
        load_calibration(stream(), [SPEC])
    assert len(load_calibration(stream(), [SPEC], limit=50)) == 50


def test_a_packed_file_larger_than_memory_is_refused_and_a_plain_one_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (64, 3, 4, 4)).astype(np.float32)
    np.savez_compressed(tmp_path / "packed.npz", x=values)
    np.savez(tmp_path / "plain.npz", x=values)
    monkeypatch.setattr(_memory, "free_bytes", lambda: values.nbytes)
    with pytest.raises(DataError, match=r"packed\.npz would take .*--samples"):
        load_calibration(tmp_path / "packed.npz", [SPEC])
    assert len(load_calibration(tmp_path / "packed.npz", [SPEC], limit=32)) == 32
    assert len(load_calibration(tmp_path / "plain.npz", [SPEC])) == 64


def test_free_memory_is_known_here_and_nowhere_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _memory.free_bytes()
    assert found is None or found > 1 << 20
    monkeypatch.setattr(_memory, "free_bytes", lambda: None)
    _memory.check_fits(1 << 60, "everything")


def test_the_same_values_for_all_samples_are_noticed_up_to_rounding() -> None:
    noise = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    same = np.repeat(noise[:1] + 100, 6, axis=0)
    outputs = {
        "alive": noise,
        "zero": np.zeros((6, 2), np.float32),
        "same": same * (1 + 1e-8 * noise),
        "faint": same + 0.001 * noise,
        "words": np.array(["cat"] * 6),
        # Two rows a sample: the same two, and the one then the other for all.
        "rows": np.tile(noise[0], (6, 1)),
        "row": np.repeat(noise[0, :2], 6, axis=0),
        # Of as many rows, but none of them a sample's.
        "anchors": np.ones((12, 2), np.float32),
    }
    layout = Layout(dict.fromkeys(outputs, 0) | {"anchors": None}, samples=6)
    assert same_values(outputs, layout) == ("zero", "same", "rows")
    late = np.zeros((6, 2), np.float32)
    late[5, 1] = 1e-3
    assert same_values({"late": late}, Layout({"late": 0}, samples=6)) == ()
    assert same_values({"one": late[:1]}, Layout({"one": 0}, samples=1)) == ()


def test_an_output_that_no_input_decides_on_is_told_from_one_that_says_the_same() -> None:
    """Of the four only one is of values: the others are a constant, what makes one of it, and a size."""
    net = zoo.Net()
    x = net.input("x", SPEC.shape)
    anchors = net.node("Identity", net.constant("a.w", np.ones((8, 2), np.float32)), name="anchors")
    shape = net.node("Shape", x, name="shape")
    size = net.node("Cast", shape, name="size", to=1)
    nothing = net.node("Mul", x, net.constant("zero", np.zeros(1, np.float32)), name="nothing")
    model = ir.from_proto(net.proto(anchors, net.relu(anchors, "more"), size, nothing))
    assert constant_outputs(model) == {"anchors", "more", "size"}
    _, layout = answers(model, [data(np.random.default_rng(0).standard_normal((8, 3, 4, 4)))], 8)
    assert layout.axes == {"anchors": None, "more": None, "size": None, "nothing": 0}
