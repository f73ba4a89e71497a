"""What a model says about the range of its images, and whether given samples agree with it.

What is certain, in the order in which it is asked:

1. An input of whole numbers takes pixels 0…255.
2. A BatchNormalization whose statistics survive was trained on what the right range gives it.  With m, v the mean and
   variance of a channel over natural pictures and μ, σ² those it holds, a range is as far off as

       D = ½ (ln(σ²/v) + (v + (m − μ)²)/σ² − 1)     nats, KL(N(m, v) ‖ N(μ, σ²)),

   median over channels, at the first norm: what lies behind it depends more on what the pictures show.  A range is
   taken where it is near and every other clearly is not.  Other pictures than the model was trained on cost some tenths
   of a nat; a wrong range costs more than that.
3. Constants in front of the first convolution, y = a·x + b: a network computes with values of order one, so a says
   whether x is 0…255 or 0…1; where a = 1, b does (a mean is taken off).

Once the norms are folded into the convolutions their statistics are gone, and nothing that is left tells 0…1 from −1…1
or ImageNet's: a network answers surest to the range of most contrast, right or not (docs/pictures.md).  Only the order
of the range shows, as a convolution's bias is hardly ever a hundred times smaller, or 30 times larger, than what it is
added to.  Together with what the samples span, that is enough to notice samples of 0…255 where 0…1 was meant, or the
reverse, and for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_layermerge.data._calibration import Calibration
from onnx_layermerge.data._options import ImageOptions
from onnx_layermerge.data._pictures import Pictures
from onnx_layermerge.data._specs import InputSpec, is_float
from onnx_layermerge.graph import Session, extract

__all__ = ["Range", "infer_range", "suspicious_range"]

PROBES = 64  # samples looked at
NEAR_NATS = 1.0
# The runner-up must be this many times, and this much, farther off.
CLEARLY, CLEARLY_NATS = 1.5, 0.1
ORDER_ONE = (0.8, 8.0)  # what a range 0…1, −1…1 or ImageNet's spans, from its least to its largest value
# Off by this much is no other kind of picture any more; 255 is what the usual mistake gives.
MISTAKE = 30.0
# A bias says less than a norm: where the norm's own shift is small, right samples are 75 times as large as it, too.
MISTAKE_BY_BIAS = 100.0

_COLOUR = {
    "imagenet": ImageOptions(preset="imagenet"),
    "inception": ImageOptions(preset="inception"),
    "unit": ImageOptions(preset="unit"),
    "raw": ImageOptions(preset="raw"),
    "caffe": ImageOptions(preset="caffe"),
    "pixels / 255 - 0.5": ImageOptions(scale=1 / 255, mean=0.5),
}
_GREY = {
    "inception": ImageOptions(preset="inception"),
    "unit": ImageOptions(preset="unit"),
    "raw": ImageOptions(preset="raw"),
    "pixels / 255 - 0.5": ImageOptions(scale=1 / 255, mean=0.5),
    "MNIST's mean and deviation": ImageOptions(scale=1 / 255, mean=0.1307, std=0.3081),
}


@dataclass(frozen=True)
class Range:
    """The range of an image input: ``options`` with a preset or a scale, and how that was told (``name``: what it is).

    Without ``options`` it could not be told, and ``why`` says so.
    """

    options: ImageOptions | None
    name: str
    why: str


@dataclass(frozen=True, eq=False)
class _Norm:
    """Statistics that a BatchNormalization holds for the value that it reads; float64 [C]."""

    value: str
    mean: np.ndarray
    variance: np.ndarray


def infer_range(model: ir.Model, spec: InputSpec, options: ImageOptions, pictures: Pictures, seed: int) -> Range:
    """The range of ``model``'s image input, from the model alone; ``options`` may say layout and order of colours.

    ``model`` is as it is in its file: BatchNormalization and constants not yet folded.

    Raises:
        DataError: the input is none of an image.
    """
    if not is_float(spec.dtype):
        return Range(replace(options, preset="raw"), "raw", "it takes whole numbers")
    norm = _first_norm(model)
    if norm is not None:
        found = _by_norm(model, spec, norm, options, pictures, seed)
        if found is not None:
            return found
    shift = _in_front(model, spec, options, pictures, seed)
    if shift is not None:
        return shift
    held = "do not agree with one usual range on natural pictures" if norm else "are folded away or were never there"
    return Range(None, "", f"the statistics of its norms {held}, and no constants stand before its first convolution")


def suspicious_range(original: ir.Model, folded: ir.Model, data: Calibration, batch: int = 8) -> str | None:
    """A sentence where the samples are off by the factor 255 or so of what the model was trained on; else None.

    ``batch`` samples go into the model at once; ``folded`` is the model whose convolutions hold the norms' constants.
    Inputs that no 4-D value comes from, and models whose first convolution has neither norm nor bias, say nothing.
    Nor do whole numbers: a model that takes them brings them into its range itself.
    """
    floats = [spec.name for spec in data.inputs if is_float(spec.dtype) and len(spec.shape) >= 3]
    if not floats:
        return None
    taken = data.take(min(max(PROBES, batch), len(data)))
    names = [spec.name for spec in data.inputs]
    norm = _first_norm(original)
    if norm is not None:
        mean, variance = _moments(original, names, norm.value, taken, batch)
        usable = norm.variance > 1e-12
        # A channel that is off in its mean alone is off, too.
        spread = np.sqrt((variance + (mean - norm.mean) ** 2)[usable] / norm.variance[usable])
        narrow = np.sqrt(variance[usable] / norm.variance[usable])
        large, small = float(np.median(spread)), float(np.median(narrow))
    else:
        found = _first_bias(folded)
        if found is None:
            return None
        value, bias = found
        _, variance = _moments(folded, names, value, taken, batch)
        alive = (variance > 1e-6 * variance.max()) & (bias != 0)
        if alive.sum() < 0.5 * len(bias):
            return None
        ratio = float(np.median(np.sqrt(variance[alive]) / np.abs(bias[alive])))
        span = _span(floats, taken, batch)
        large = ratio if ratio > MISTAKE_BY_BIAS and span >= MISTAKE else 1.0
        small = ratio if ratio < 1 / MISTAKE and span <= ORDER_ONE[1] else 1.0
    if large > MISTAKE:
        return (
            f"Samples of {data.source} give the first convolution values about {large:.0f} times as large as the model "
            "seems to be made for: if it takes 0…1 and these are 0…255, give another --preset or divide them by 255."
        )
    if small < 1 / MISTAKE:
        return (
            f"Samples of {data.source} give the first convolution values that vary about {1 / max(small, 1e-9):.0f} "
            "times less than the model seems to be made for: if it takes 0…255 and these are 0…1, give another "
            "--preset or multiply them by 255."
        )
    return None


# --- norms whose statistics survive --------------------------------------------------------------------------------


def _first_norm(model: ir.Model) -> _Norm | None:
    """The first norm with trained statistics, in the order of the graph."""
    for node in model.graph:
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
            continue
        tensors = [ir.convenience.get_const_tensor(value) for value in node.inputs[3:5] if value is not None]
        if len(tensors) < 2 or any(tensor is None for tensor in tensors):
            continue
        mean, variance = (np.asarray(tensor.numpy(), np.float64) for tensor in tensors if tensor is not None)
        # As they are before training.
        if not mean.any() and (variance == 1).all():
            continue
        return _Norm(str(node.inputs[0].name), mean, variance)
    return None


def _by_norm(
    model: ir.Model, spec: InputSpec, norm: _Norm, options: ImageOptions, pictures: Pictures, seed: int
) -> Range | None:
    def distance(tried: ImageOptions) -> float:
        # A quarter is held out, and what is left has to fill a batch.
        data, _ = pictures.samples(spec, tried, max(PROBES, 2 * batch), seed)
        return _nats(norm, *_moments(model, [spec.name], norm.value, data, batch))

    batch = spec.shape[0] if isinstance(spec.shape[0], int) else 8
    usual = _GREY if _channels(pictures, spec, options) == 1 else _COLOUR
    tried = {name: replace(given, layout=options.layout, color=options.color) for name, given in usual.items()}
    found = {name: distance(given) for name, given in tried.items()}
    best, other = sorted(found, key=lambda name: found[name])[:2]
    if found[best] > NEAR_NATS or found[other] < CLEARLY * found[best] + CLEARLY_NATS:
        return None
    why = f"the statistics of its first norm fit that ({found[best]:.2f} nats off; '{other}': {found[other]:.2f})"
    return Range(tried[best], best, why)


def _nats(norm: _Norm, mean: np.ndarray, variance: np.ndarray) -> float:
    """D of the module's docstring, median over channels that are not dead."""
    alive = norm.variance > 1e-6 * norm.variance.max()
    v, sigma2 = variance[alive] + 1e-12, norm.variance[alive] + 1e-12
    each = 0.5 * (np.log(sigma2 / v) + (v + (mean - norm.mean)[alive] ** 2) / sigma2 - 1)
    return float(np.median(each))


def _moments(
    model: ir.Model, inputs: list[str], value: str, data: Calibration, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel (axis 1) of the named value, float64 [C]."""
    session = None if value in inputs else Session(extract(model, inputs, [value]))
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for feeds in data.batches(batch):
        exact = (feeds if session is None else session.run(feeds))[value].astype(np.float64)
        axes = tuple(axis for axis in range(exact.ndim) if axis != 1)
        count += exact.size // exact.shape[1]
        total, squares = total + exact.sum(axis=axes), squares + (exact**2).sum(axis=axes)
    mean = total / count
    return mean, np.maximum(squares / count - mean**2, 0.0)


def _channels(pictures: Pictures, spec: InputSpec, options: ImageOptions) -> int:
    """1 or 3; DataError where it is neither."""
    data, _ = pictures.samples(spec, replace(options, preset="raw"), 2, 0)
    shape = data.batch([0])[spec.name].shape
    return 1 if 1 in (shape[1], shape[-1]) else 3


# --- constants in front of the first convolution -------------------------------------------------------------------


def _first_conv(model: ir.Model) -> ir.Node | None:
    return next((node for node in model.graph if node.op_type == "Conv" and node.domain in ("", "ai.onnx")), None)


def _in_front(model: ir.Model, spec: InputSpec, options: ImageOptions, pictures: Pictures, seed: int) -> Range | None:
    """By y = a·x + b, found by running what stands before the first convolution on constants."""
    node = _first_conv(model)
    if node is None or node.inputs[0] is None or node.inputs[0].name == spec.name:
        return None
    data, _ = pictures.samples(spec, replace(options, preset="raw"), 2, seed)
    like = data.batch([0])[spec.name]
    fixed = spec.shape[0]
    like = np.repeat(like, fixed, axis=0) if isinstance(fixed, int) else like
    session = Session(extract(model, [spec.name], [str(node.inputs[0].name)]))
    # The middle of the image, as a Pad may stand there, too.
    ys = []
    for level in (0.0, 1.0, 2.0):
        y = session.run({spec.name: np.full_like(like, level)})[str(node.inputs[0].name)]
        if y.ndim != 4 or not np.isfinite(y).all():
            return None
        ys.append(y[0, :, y.shape[2] // 2, y.shape[3] // 2].astype(np.float64))
    a, b = ys[1] - ys[0], ys[0]
    if np.abs(ys[2] - 2 * a - b).max() > 1e-3 * np.abs(ys[2]).max() + 1e-6 or (np.abs(a) < 1e-9).any():
        return None
    if np.allclose(a, 1) and np.allclose(b, 0):
        return None
    name = _range_before(a, b)
    if name is None:
        return None
    middle = f"x·{np.abs(a).mean():.3g}{b.mean():+.3g}"
    return Range(replace(options, preset=name), name, f"it makes {middle} of a pixel before its first convolution")


def _range_before(a: np.ndarray, b: np.ndarray) -> str | None:
    """The preset that a network takes which computes y = a·x + b first: raw, unit or (None) neither."""
    if np.allclose(a, 1):  # only a mean is taken off
        return "raw" if (b < -16).all() and (b > -240).all() else "unit" if (b < 0).all() and (b > -1).all() else None
    for name, most in (("raw", 255.0), ("unit", 1.0)):
        ends = np.stack([b, a * most + b])
        span = np.abs(a) * most
        if ORDER_ONE[0] <= span.min() and span.max() <= ORDER_ONE[1] and np.abs(ends).max() <= ORDER_ONE[1]:
            return name
    return None


# --- the order of a range ------------------------------------------------------------------------------------------


def _span(names: list[str], data: Calibration, batch: int) -> float:
    """From the least to the largest value of the named inputs."""
    least, most = np.inf, -np.inf
    for feeds in data.batches(batch):
        for name in names:
            least, most = min(least, float(feeds[name].min())), max(most, float(feeds[name].max()))
    return most - least


def _first_bias(model: ir.Model) -> tuple[str, np.ndarray] | None:
    """The first convolution's output and its bias, float64 [C]."""
    node = _first_conv(model)
    if node is None or len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    tensor = ir.convenience.get_const_tensor(node.inputs[2])
    if tensor is None:
        return None
    return str(node.outputs[0].name), np.abs(np.asarray(tensor.numpy(), np.float64).reshape(-1))
