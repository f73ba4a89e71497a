"""Inverted residuals: MobileNetV2 (any width), MobileNetV3-Large, EfficientNet-B0."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import Activation, SqueezeExcite, conv_norm, head, round_to_8


class Inverted(nn.Module):
    """1×1 up, depthwise, squeeze-excite where ``squeezed`` says so, 1×1 down without activation."""

    def __init__(
        self,
        c_in: int,
        inner: int,
        c_out: int,
        kernel: int,
        stride: int,
        act: Activation,
        squeezed: int = 0,
        squeeze_act: Activation = nn.ReLU,
        gate: Activation = nn.Sigmoid,
    ) -> None:
        super().__init__()
        layers = [] if inner == c_in else [conv_norm(c_in, inner, 1, act=act)]
        layers.append(conv_norm(inner, inner, kernel, stride, groups=inner, act=act))
        if squeezed:
            layers.append(SqueezeExcite(inner, squeezed, squeeze_act, gate))
        self.body = nn.Sequential(*layers, conv_norm(inner, c_out, 1, act=None))
        self.skips = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


def mobilenet_v2(width: float = 1.0) -> nn.Module:
    c_in = round_to_8(32 * width)
    layers: list[nn.Module] = [conv_norm(3, c_in, 3, 2, act=nn.ReLU6)]
    steps = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for times, wide, depth, stride in steps:
        for number in range(depth):
            c_out = round_to_8(wide * width)
            layers.append(Inverted(c_in, c_in * times, c_out, 3, stride if number == 0 else 1, nn.ReLU6))
            c_in = c_out
    last = round_to_8(1280 * max(1.0, width))
    return nn.Sequential(*layers, conv_norm(c_in, last, 1, act=nn.ReLU6), nn.Dropout(), head(last))


def mobilenet_v2_14() -> nn.Module:
    return mobilenet_v2(1.4)


# kernel, inner channels, channels out, squeeze-excite, HardSwish instead of ReLU, stride
_V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def mobilenet_v3_large() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 16, 3, 2, act=nn.Hardswish, epsilon=1e-3)]
    c_in = 16
    for kernel, inner, c_out, squeezes, swish, stride in _V3_LARGE:
        act = nn.Hardswish if swish else nn.ReLU
        squeezed = round_to_8(inner / 4) if squeezes else 0
        layers.append(Inverted(c_in, inner, c_out, kernel, stride, act, squeezed, nn.ReLU, nn.Hardsigmoid))
        c_in = c_out
    layers += [conv_norm(c_in, 960, 1, act=nn.Hardswish, epsilon=1e-3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(), nn.Linear(1280, 1000))


# expansion, channels out, blocks, stride of the first, kernel
_B0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5))


def efficientnet_b0() -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, act=nn.SiLU, epsilon=1e-3)]
    c_in = 32
    for times, c_out, depth, stride, kernel in (*_B0, (6, 320, 1, 1, 3)):
        for number in range(depth):
            step = stride if number == 0 else 1
            squeezed = max(1, c_in // 4)
            layers.append(Inverted(c_in, c_in * times, c_out, kernel, step, nn.SiLU, squeezed, nn.SiLU))
            c_in = c_out
    layers.append(conv_norm(c_in, 1280, 1, act=nn.SiLU, epsilon=1e-3))
    return nn.Sequential(*layers, nn.Dropout(), head(1280))
