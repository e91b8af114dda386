"""Networks over images as plain PyTorch, written from their papers; ``depth`` counts units of each stage, as in our files.

Learned numbers stand in modules of their own, so that a parameter's place is where its module is called.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """after(shortcut(x) + scale(branch(x)))."""

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None = None,
        scale: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut or nn.Identity()
        self.scale, self.after = scale or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        around: Tensor = self.shortcut(x)
        return self.after(around + self.scale(y))  # type: ignore[no-any-return]


class Shift(nn.Module):
    """x + b for one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b


class Scale(nn.Module):
    """x times one learned number."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Widened(nn.Module):
    """Option A of He et al. 2016: every other position, and as many channels of zeros again."""

    def forward(self, x: Tensor) -> Tensor:
        near = x[:, :, ::2, ::2]
        return torch.cat([near, torch.zeros_like(near)], 1)


class Grown(nn.Module):
    """Its input, and what the layer makes of it, as channels of one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(x)], 1)


def conv(before: int, after: int, kernel: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=bias)


def averaged(channels: int) -> list[nn.Module]:
    """From the last map to ten classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def stages(depth: int) -> list[tuple[int, bool, int]]:
    """(filters, whether it is the first of its stage, stride) of each unit of a residual net for CIFAR."""
    firsts = [(filters, i == 0) for filters in (16, 32, 64) for i in range(depth)]
    return [(filters, first, 2 if first and filters > 16 else 1) for filters, first in firsts]


def lenet5() -> nn.Module:
    """LeCun et al. 1998, C3 joined to all of S2, mean pools without weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def vgg16(size: int) -> nn.Module:
    """Simonyan and Zisserman 2014, table 1, configuration D, for images of ``size``."""
    layers: list[nn.Module] = []
    before = 3
    for filters, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            layers += [conv(before, filters, 3, bias=True), nn.ReLU()]
            before = filters
        layers.append(nn.MaxPool2d(2))
    flat = 512 * (size // 32) ** 2
    dense = [nn.Linear(flat, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def resnet110(depth: int) -> nn.Module:
    """He et al. 2016 (Deep Residual Learning), section 4.2, shortcuts of option A."""
    layers, before = [conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()], 16
    for filters, _, stride in stages(depth):
        first = [conv(before, filters, 3, stride), nn.BatchNorm2d(filters), nn.ReLU()]
        branch = nn.Sequential(*first, conv(filters, filters, 3), nn.BatchNorm2d(filters))
        layers.append(Residual(branch, Widened() if stride == 2 else None, after=nn.ReLU()))
        before = filters
    return nn.Sequential(*layers, *averaged(64))


def preact_resnet(depth: int) -> nn.Module:
    """He et al. 2016 (Identity Mappings), figure 1b, bottlenecks."""
    layers: list[nn.Module] = [conv(3, 16, 3)]
    before = 16
    for filters, first, stride in stages(depth):
        wide = 4 * filters
        branch = nn.Sequential(
            *(nn.BatchNorm2d(before), nn.ReLU(), conv(before, filters, 1, stride)),
            *(nn.BatchNorm2d(filters), nn.ReLU(), conv(filters, filters, 3)),
            *(nn.BatchNorm2d(filters), nn.ReLU(), conv(filters, wide, 1)),
        )
        layers.append(Residual(branch, conv(before, wide, 1, stride) if first else None))
        before = wide
    return nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU(), *averaged(before))


def fixup(depth: int) -> nn.Module:
    """Zhang et al. 2019, figure 1, right: numbers in the places of a norm's shifts and scales. As in the authors' code, the first
    shift stands before the narrowing shortcut too."""
    layers, before = [conv(3, 16, 3), Shift(), nn.ReLU()], 16
    for filters, _, stride in stages(depth):
        shift = Shift()
        first = [shift, conv(before, filters, 3, stride), Shift(), nn.ReLU()]
        branch = nn.Sequential(*first, Shift(), conv(filters, filters, 3), Scale(1.0), Shift())
        shortcut = nn.Sequential(shift, Widened()) if stride == 2 else None
        layers.append(Residual(branch, shortcut, after=nn.ReLU()))
        before = filters
    pool, flat, dense = averaged(64)
    return nn.Sequential(*layers, pool, flat, Shift(), dense)


def skipinit(depth: int) -> nn.Module:
    """De and Smith 2020, section 3: a learned number behind each branch of a pre-activation net without norms."""
    layers: list[nn.Module] = [conv(3, 16, 3, bias=True)]
    before = 16
    for filters, first, stride in stages(depth):
        branch = nn.Sequential(
            *(nn.ReLU(), conv(before, filters, 3, stride, bias=True)),
            *(nn.ReLU(), conv(filters, filters, 3, bias=True)),
        )
        project = conv(before, filters, 1, stride, bias=True) if first and filters > 16 else None
        layers.append(Residual(branch, project, Scale(0.0)))
        before = filters
    return nn.Sequential(*layers, nn.ReLU(), *averaged(64))


def densenet_bc(depth: int, growth: int) -> nn.Module:
    """Huang et al. 2017, section 3: bottlenecks of four times the growth, compression by one half."""
    channels = 2 * growth
    layers: list[nn.Module] = [conv(3, channels, 3)]
    for block in range(3):
        for _ in range(depth):
            first = [nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, 4 * growth, 1)]
            second = [nn.BatchNorm2d(4 * growth), nn.ReLU(), conv(4 * growth, growth, 3)]
            layers.append(Grown(nn.Sequential(*first, *second)))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < 2:
            layers += [conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, *averaged(channels))


class UNet(nn.Module):
    """Ronneberger et al. 2015, figure 1, with padded convolutions."""

    def __init__(self) -> None:
        super().__init__()
        wide = [64, 128, 256, 512, 1024]
        self.down = nn.ModuleList(_pair(before, after) for before, after in zip([1, *wide], wide, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, 2) for n in wide[-2::-1])
        self.level = nn.ModuleList(_pair(2 * n, n) for n in wide[-2::-1])
        self.logits = nn.Conv2d(64, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for down in self.down:
            x = down(x if not kept else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, level, skip in zip(self.up, self.level, kept[-2::-1], strict=True):
            x = level(torch.cat([skip, up(x)], 1))
        return self.logits(x)  # type: ignore[no-any-return]


def _pair(before: int, after: int) -> nn.Module:
    return nn.Sequential(conv(before, after, 3, bias=True), nn.ReLU(), conv(after, after, 3, bias=True), nn.ReLU())
