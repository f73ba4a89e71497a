"""Built-in metrics: their values by hand, which output they take, and one sentence for every file that does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import onnx_layermerge
from onnx_layermerge.errors import DataError, UsageError
from onnx_layermerge.graph import InputInfo, Session
from onnx_layermerge.verify import metric_of
from onnx_layermerge.verify._built_in import BATCHES, NAMES, built_in, is_script
from tests import zoo
from tests.machine import Machine

# Of four samples; classes by score: (2, 1, 0), (0, 1, 2) by ties, (1, 0, 2), (0, 2, 1).
SCORES = np.array([[1, 2, 3], [5, 5, 5], [2, 9, -1], [7, 0, 1]], np.float32)
INPUTS = np.arange(8, dtype=np.float32).reshape(4, 2)


def file(folder: Path, packed: bool = False, **arrays: Any) -> str:
    path = folder / "held.npz"
    (np.savez_compressed if packed else np.savez)(path, **{"x": INPUTS, **arrays})
    return str(path)


def made(source: str, *outputs: str, batch: int = 4, dim: Any = "N", given: str = "x") -> Any:
    inputs = (InputInfo(given, (dim, 2), np.dtype("float32")),)
    network: Any = SimpleNamespace(inputs=inputs, outputs=outputs or ("y",))
    return built_in(source, network, batch, isinstance(dim, int))


def giving(**outputs: np.ndarray) -> Any:
    """A model that knows its samples by the first value."""

    def run(feeds: Any) -> dict[str, np.ndarray]:
        rows = (next(iter(feeds.values()))[:, 0] / 2).astype(int)
        return {name: values[rows] for name, values in outputs.items()}

    return run


def test_top1_takes_the_first_of_ties_and_top5_the_five_highest(tmp_path: Path) -> None:
    top1 = made("top1:" + file(tmp_path, labels=np.array([2, 0, 0, 0])))
    assert top1(giving(y=SCORES)) == 0.75
    assert made("top1:" + file(tmp_path, labels=np.array([2, 1, 1, 0], np.uint8)))(giving(y=SCORES)) == 0.75
    scores = np.array([[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [1] * 7, [1] * 7], np.float32)
    assert made("top5:" + file(tmp_path, labels=np.array([4, 1, 4, 5])))(giving(y=scores)) == 0.5


def test_agreement_is_with_the_first_model_and_a_nan_agrees_with_nothing(tmp_path: Path) -> None:
    metric = made("agreement:" + file(tmp_path))
    other = SCORES.copy()
    other[0] = [9, 0, 0]
    assert [metric(giving(y=values)) for values in (SCORES, other, SCORES)] == [1.0, 0.75, 1.0]
    other[3, 1] = np.nan  # its highest score would still be the same
    assert metric(giving(y=other)) == 0.5
    top1 = made("top1:" + file(tmp_path, labels=np.array([0, 0, 1, 0])))
    assert top1(giving(y=SCORES)) == 0.75 and top1(giving(y=other)) == 0.75


@pytest.mark.parametrize("packed", [False, True])
def test_mse_is_negative_and_psnr_by_the_targets_range(tmp_path: Path, packed: bool) -> None:
    target = np.array([[0, 4], [1, 1], [2, 2], [3, 3]], np.float64)
    got = target.astype(np.float32) + np.array([[1, 1], [0, 2], [2, 0], [1, -1]], np.float32)
    where = file(tmp_path, packed, y=target, z=np.zeros((4, 1)))
    assert made(f"mse:{where}", "y", "w")(giving(y=got, w=SCORES)) == -(1 + 2 + 2 + 1) / 4
    psnr = made(f"psnr:{where}", "y", "w")(giving(y=got, w=SCORES))
    assert psnr == pytest.approx(10 * (2 * math.log10(16) + 2 * math.log10(8)) / 4)
    # Of two outputs with targets the mean; of one by name that one alone.
    outputs = giving(y=got, z=np.full((4, 1), 2, np.float32))
    assert made(f"mse:{where}", "y", "z")(outputs) == -(1.5 + 4) / 2
    assert made(f"mse:{where}#z", "y", "z")(outputs) == -4


def test_psnr_of_equal_outputs_is_that_of_roundings(tmp_path: Path) -> None:
    image = np.array([[0, 255], [1, 2], [3, 4], [5, 6]], np.uint8)
    metric = made("psnr:" + file(tmp_path, y=image))
    assert metric(giving(y=image)) == pytest.approx(20 * 24 * math.log10(2))
    assert metric(giving(y=image[:, ::-1])) < 60  # bytes do not wrap around


def test_an_array_that_an_input_is_named_like_stands_behind_target(tmp_path: Path) -> None:
    path = tmp_path / "held.npz"
    np.savez(path, **{"labels": INPUTS, "target.labels": np.array([2, 0, 1, 0])})
    assert made(f"top1:{path}", "labels", given="labels")(giving(labels=SCORES)) == 1.0
    np.savez(path, **{"y": INPUTS, "target.y": INPUTS + 1})
    assert made(f"mse:{path}", "y", given="y")(giving(y=INPUTS)) == -1.0


def test_samples_are_run_in_parts_and_a_fixed_batch_in_whole_ones(tmp_path: Path) -> None:
    count = 2 * BATCHES + 2
    inputs = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    where, sizes = file(tmp_path, x=inputs, y=inputs), []

    def run(feeds: Any) -> Any:
        sizes.append(len(feeds["x"]))
        return {"y": feeds["x"] + (feeds["x"] >= 2 * count - 2)}

    assert made(f"mse:{where}", batch=2, dim=2)(run) == pytest.approx(-1 / count)
    assert sizes == [2 * BATCHES, 2]
    with pytest.raises(DataError, match="18 samples, but the model takes 4 at once"):
        made(f"mse:{where}", batch=4, dim=4)


def test_scripts_are_told_from_names() -> None:
    assert all(is_script(words) for words in ("mine.py:top1", "a/mine.py", r"C:\mine.py:f", "top1:x.py:f"))
    assert not any(is_script(f"{name}:held.npz{picked}") for name in NAMES for picked in ("", "#y", "#Call:0"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("top3:FILE", "there is no metric 'top3'; give one of top1, top5, agreement, psnr, mse as NAME:FILE.npz"),
        ("nonsense", "there is no metric 'nonsense'"),
        ("top1", "names no .npz file; give top1:FILE.npz"),
        ("top1:held.npy", "names no .npz file"),
        ("top1:none.npz", "there is no file none.npz"),
        ("top1:FILE#w", "has no output 'w'; name one of 'y', 'z'"),
        ("top1:FILE#", "has no output ''"),
        ("top1:FILE", r"'y', 'z' may all be class scores; name one, as in .*held.npz#y"),
        ("top5:FILE#y", "of 3 classes the label is always in the top 5; choose top1"),
        ("top1:FILE#i", "no class scores, floats"),
        ("agreement:FILE#t", "'t' does not count samples along axis 0"),
        ("mse:FILE#t", "'t' does not count samples along axis 0"),
    ],
)
def test_words_that_name_no_metric(tmp_path: Path, source: str, said: str) -> None:
    where = file(tmp_path, labels=np.zeros(4, int), t=np.zeros((4, 3)))
    outputs = ("y", "z", "i", "t") if "#i" in source or "#t" in source else ("y", "z")
    values = {"y": SCORES, "z": SCORES, "i": SCORES.astype(int), "t": SCORES}

    def run(feeds: Any) -> Any:
        return {name: values[name] if name != "t" else values[name][:3] for name in outputs}

    with pytest.raises(UsageError, match=said) as caught:
        made(source.replace("FILE", where), *outputs)(run)
    assert str(caught.value).startswith("--metric ") and "\n" not in str(caught.value)


LABELS = np.array([2, 0, 1, 0])


@pytest.mark.parametrize(
    ("name", "arrays", "said"),
    [
        ("top1", {}, "no array 'labels', which top1 needs"),
        ("top1", {"labels": LABELS.astype(float)}, "'labels' in .* is float64 of shape .4,., but there are 4 samples"),
        ("top1", {"labels": LABELS[:3]}, r"of shape \(3,\)"),
        ("top1", {"labels": LABELS[:, None]}, r"of shape \(4, 1\)"),
        ("top1", {"labels": np.int64(3)}, "'labels' in .* is a single number"),
        ("top1", {"labels": LABELS + 1}, "from 1 to 3, but output 'y' has 3 classes: give numbers from 0 to 2"),
        ("top1", {"labels": LABELS - 1}, "from -1 to 1"),
        ("top1", {"labels": LABELS.astype(object)}, "'labels' in .* holds pickled Python objects"),
        ("top1", {"labels": LABELS[:0], "x": INPUTS[:0]}, "holds no samples"),
        ("agreement", {"x": INPUTS[:, :1]}, r"shape \(4, 1\), but the model's input 'x' has shape \(N, 2\)"),
        ("agreement", {"x": INPUTS.astype(int)}, "holds int64, but the model's input 'x' takes float32"),
        ("agreement", {"x": INPUTS * np.nan}, "Sample 0 of .* has NaN"),
        ("mse", {"labels": LABELS}, "no target for mse: add an array named after an output .'y'."),
        ("mse", {"y": SCORES[:, :2]}, r"float32 of shape \(4, 2\), but output 'y' is float32 of shape \(4, 3\)"),
        ("mse", {"y": SCORES[:2]}, r"of shape \(2, 3\), but"),
        ("mse", {"y": SCORES.astype(np.uint8)}, "is uint8 of shape"),
        ("mse", {"y": SCORES.astype(str)}, "is <U"),
        ("psnr", {"y": SCORES * np.nan}, "'y' in .* has NaN or infinite values"),
        ("psnr", {"y": np.where(SCORES > 8, np.inf, SCORES)}, "has NaN or infinite values"),
        ("psnr", {"y": SCORES * 0}, "one value throughout, which gives psnr no peak: choose mse"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, arrays: dict[str, Any], said: str) -> None:
    where = file(tmp_path, **arrays)
    with pytest.raises(DataError, match=said) as caught:
        made(f"{name}:{where}")(giving(y=SCORES))
    assert where in str(caught.value) and "\n" not in str(caught.value)


def test_inputs_that_are_missing_and_a_file_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "held.npz"
    np.savez(path, labels=LABELS)
    with pytest.raises(DataError, match="holds 'labels', but the model's inputs are 'x'"):
        made(f"top1:{path}")
    whole = Path(file(tmp_path, True, labels=LABELS)).read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="cannot be read as a .npz file"):
        made(f"top1:{path}")
    place = whole.index(b"labels.npy") + len("labels.npy") + 20  # what it says of the inputs still holds
    path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
    with pytest.raises(DataError, match="cannot be read as a .npz file"):
        made(f"top1:{path}")


def test_a_model_that_gives_nan(tmp_path: Path) -> None:
    where = file(tmp_path, y=SCORES, labels=LABELS)
    broken = np.where(SCORES > 8, np.nan, SCORES)
    with pytest.raises(DataError, match="The original's output 'y' is NaN"):
        made(f"agreement:{where}")(giving(y=broken))
    with pytest.raises(DataError, match="The model's output 'y' is NaN or infinite"):
        made(f"mse:{where}")(giving(y=broken))


def test_a_whole_run(tmp_path: Path, machine: Machine) -> None:
    net, output = zoo.residual()
    scores = net.classifier(output)
    network, model = net.network(scores), net.save(tmp_path / "in.onnx", scores)
    images = np.random.default_rng(0).standard_normal((21, 4, 8, 8)).astype(np.float32)
    labels = Session(network.model).run({"x": images})["scores"].argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3
    where = file(tmp_path, x=images, labels=labels)
    verdict = onnx_layermerge.verify(model, model, metric=f"top1:{where}")
    assert verdict.metric is not None and verdict.metric.name == f"top1:{where}"
    assert (verdict.metric.original, verdict.metric.drop) == (pytest.approx(15 / 21), 0.0)
    with pytest.raises(UsageError, match="there is no metric 'top2'"):
        metric_of(f"top2:{where}", network, 4)
