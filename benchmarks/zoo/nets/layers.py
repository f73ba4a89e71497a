"""What the families share: a convolution with its norm, squeeze-excite, and weights that a folding has to respect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm)
LINEARS = (*CONVS, nn.Linear, nn.ConvTranspose2d)


def conv_norm(
    c_in: int,
    c_out: int,
    kernel: int | tuple[int, ...] = 3,
    stride: int | tuple[int, ...] = 1,
    *,
    groups: int = 1,
    padding: int | tuple[int, ...] | None = None,
    act: Activation | None = nn.ReLU,
    epsilon: float = 1e-5,
    rank: int = 2,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, activation (None: none); ``padding`` None keeps the size at stride 1."""
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)
    conv = CONVS[rank - 1](c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
    norm = NORMS[rank - 1](c_out, eps=epsilon)
    return nn.Sequential(conv, norm, *([] if act is None else [act()]))


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8 that does not lose a tenth, as the mobile families count channels."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class SqueezeExcite(nn.Module):
    """x · gate(W₂ act(W₁ mean(x)))."""

    def __init__(self, channels: int, squeezed: int, act: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


def head(channels: int, classes: int = 1000, rank: int = 2) -> nn.Sequential:
    """Mean over the image, then the classifier."""
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1](1)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels, classes))


def settle(net: nn.Module, example: Sequence[Tensor], seed: int) -> nn.Module:
    """``net`` in eval mode with seeded weights, its BatchNorms neither trivial nor far from what reaches them.

    While ``example`` passes once, each BatchNorm takes running statistics from the power p = mean(x²) that it sees:
    means in ±.5 √p, variances in [.5, 1.5] p. So folding has something to fold, yet values stay near 1 at any depth.
    (The true mean is not taken off: in deep random nets of ReLUs that makes rounding errors grow in every layer, and
    no two sound float32 programs would agree.) Scales lie in [.5, 1.5], shifts and biases in ±.5.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    @torch.no_grad()
    def measure(norm: nn.Module, seen: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(seen[0].dim()) if axis != 1]
        power = seen[0].pow(2).mean(axes).clamp_min(0.1)
        norm.running_mean.copy_(power.sqrt() * uniform(power, -0.5, 0.5))
        norm.running_var.copy_(power * uniform(power, 0.5, 1.5))

    hooks = []
    with torch.no_grad():
        for module in net.eval().modules():
            if isinstance(module, LINEARS):
                fan_in = module.weight[0].numel()
                if isinstance(module, nn.ConvTranspose2d):
                    fan_in = module.in_channels
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            elif isinstance(module, (*NORMS, *OTHER_NORMS)):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
            if isinstance(module, (*LINEARS, *NORMS, *OTHER_NORMS)) and module.bias is not None:
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
            if isinstance(module, NORMS):
                hooks.append(module.register_forward_pre_hook(measure))
        net(*example)
    for hook in hooks:
        hook.remove()
    return net
