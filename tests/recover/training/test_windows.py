"""Convolutions, pooling and resizing with random sizes, pads, strides and dilations, in one to three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="fine-tuning is an extra: torch is not installed")

from tests.recover.training.running import agree, draw  # noqa: E402

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
AUTO = st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])


@st.composite
def windows(draws: Any, *, dilated: bool = True, most_pad: int = 2) -> dict[str, Any]:
    """Kernel, strides, dilations and pads (or auto_pad) of one to three axes, with the input's sizes."""
    rank = draws(st.integers(1, 3))
    lists = {
        name: draws(st.lists(st.integers(low, high), min_size=rank, max_size=rank))
        for name, low, high in (("kernel", 1, 3), ("strides", 1, 3), ("dilations", 1, 2 if dilated else 1))
    }
    sizes = draws(st.lists(st.integers(6, 9), min_size=rank, max_size=rank))
    auto = draws(AUTO)
    pads = draws(st.lists(st.integers(0, most_pad), min_size=2 * rank, max_size=2 * rank))
    given = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    return {"sizes": sizes, **lists, "given": given, "auto": auto}


@QUICK
@given(windows(), st.sampled_from([(4, 6, 1), (4, 6, 2), (4, 8, 4)]), st.booleans())
def test_convolutions(at: dict[str, Any], channels: tuple[int, int, int], bias: bool) -> None:
    wide, out, group = channels
    inputs = [draw(2, wide, *at["sizes"]), draw(out, wide // group, *at["kernel"])]
    if bias:
        inputs.append(draw(out))
    # onnxruntime takes SAME together with a dilation for what no exporter writes.
    assume(not at["auto"].startswith("SAME") or set(at["dilations"]) == {1})
    agree("Conv", inputs, group=group, strides=at["strides"], dilations=at["dilations"], **at["given"])


@QUICK
@given(windows(most_pad=1), st.sampled_from([(4, 6, 1), (4, 6, 2)]), st.booleans(), st.integers(0, 1))
def test_transposed_convolutions(
    at: dict[str, Any], channels: tuple[int, int, int], bias: bool, more: int
) -> None:
    wide, out, group = channels
    assume(not at["auto"].startswith("SAME") or set(at["dilations"]) == {1})
    extra = [more if stride > 1 else 0 for stride in at["strides"]]
    # What comes out must not be cut away whole.
    assume(all(k >= 2 for k in at["kernel"]))
    inputs = [draw(2, wide, *at["sizes"]), draw(wide, out // group, *at["kernel"])]
    if bias:
        inputs.append(draw(out))
    words = dict(at["given"]) | ({"output_padding": extra} if any(extra) and at["auto"] == "NOTSET" else {})
    agree("ConvTranspose", inputs, group=group, strides=at["strides"], dilations=at["dilations"], **words)


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_a_transposed_convolution_may_be_given_its_output_shape(auto: str) -> None:
    inputs = [draw(1, 3, 5, 6), draw(3, 2, 3, 4), draw(2)]
    agree("ConvTranspose", inputs, strides=[2, 2], output_shape=[10, 13], auto_pad=auto)


@QUICK
@given(windows(), st.booleans())
def test_max_pooling(at: dict[str, Any], ceil: bool) -> None:
    words = _pooling(at, ceil)
    agree("MaxPool", [draw(2, 3, *at["sizes"])], dilations=at["dilations"], **words)


@QUICK
@given(windows(dilated=False), st.booleans(), st.booleans())
def test_average_pooling(at: dict[str, Any], ceil: bool, with_pads: bool) -> None:
    words = _pooling(at, ceil)
    agree("AveragePool", [draw(2, 3, *at["sizes"])], count_include_pad=int(with_pads), opset=19, **words)


def _pooling(at: dict[str, Any], ceil: bool) -> dict[str, Any]:
    """Pads smaller than the kernel, as the runtime wants them."""
    if at["auto"] == "NOTSET":
        most = [size - 1 for size in at["kernel"]] * 2
        at["given"]["pads"] = [min(pad, top) for pad, top in zip(at["given"]["pads"], most, strict=True)]
    assume(not at["auto"].startswith("SAME") or (set(at["dilations"]) == {1} and not ceil))
    return {"kernel_shape": at["kernel"], "strides": at["strides"], "ceil_mode": int(ceil), **at["given"]}


TRANSFORMS = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(TRANSFORMS),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.tuples(st.integers(1, 11), st.integers(1, 11)),
    st.booleans(),
)
def test_resizing(mode: str, transform: str, rounding: str, sizes: tuple[int, int], scaled: bool) -> None:
    x = draw(2, 3, 5, 6)
    words = {"mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": rounding}
    if scaled:
        scales = np.array([1, 1, sizes[0] / 5, sizes[1] / 6], np.float32)
        assume(all(int(np.floor(size * scale)) > 0 for size, scale in zip((5, 6), scales[2:], strict=True)))
        agree("Resize", [x, None, scales], **words)
    else:
        agree("Resize", [x, None, None, np.array([2, 3, *sizes], np.int64)], **words)


@pytest.mark.parametrize(
    "words",
    [
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        {"mode": "linear", "axes": [3, 2], "opset": 18},
        {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger", "opset": 18},
        {"mode": "nearest", "axes": [2, 3], "keep_aspect_ratio_policy": "not_smaller", "opset": 18},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric", "axes": [2, 3], "opset": 19},
    ],
    ids=str,
)
def test_resizing_in_its_rarer_forms(words: dict[str, Any]) -> None:
    wanted = [9, 7] if "axes" in words else [2, 3, 9, 7]
    agree("Resize", [draw(2, 3, 5, 6), None, None, np.array(wanted, np.int64)], **words)


def test_resizing_in_one_and_three_dimensions() -> None:
    agree("Resize", [draw(1, 2, 5), None, np.array([1, 1, 2.5], np.float32)], mode="linear")
    agree("Resize", [draw(1, 2, 3, 4, 5), None, np.array([1, 1, 2, 2, 2], np.float32)], mode="linear")
