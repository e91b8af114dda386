"""Images: convolutional nets of the last decades, and those that do without convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


def images(channels: int, height: int, width: int, grow: bool = False):
    """Real images; with ``grow`` height and width depend on the batch, so that they become dynamic."""

    def draw(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        h, w = (height + 4 * batch, width + 8 * batch) if grow else (height, width)
        return {"image": torch.randn(batch, channels, h, w, generator=generator)}

    return draw


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 12),
        nn.Tanh(),
        nn.Linear(12, 10),
    )


def vgg() -> nn.Module:
    stages: list[nn.Module] = []
    for inside, outside in ((3, 6), (6, 8), (8, 8)):
        stages += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU()]
        stages += [nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 5)]
    return nn.Sequential(*stages, *head)


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        same = inside == outside and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(inside, outside, 1, stride), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 6, 7, 2, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    body = [Residual(6, 6, 1), Residual(6, 8, 2), Residual(8, 8, 1)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(8, 5))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)


class Inverted(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        wide = 3 * inside
        self.body = nn.Sequential(
            nn.Conv2d(inside, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            SqueezeExcite(wide),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet() -> nn.Module:
    body = [Inverted(6, 6, 1, nn.ReLU6), Inverted(6, 8, 2, nn.Hardswish), Inverted(8, 8, 1, nn.Hardswish)]
    stem = [nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.Hardswish()]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


class Modern(nn.Module):
    """A block of ConvNeXt: depthwise 7x7, LayerNorm over channels last, two dense layers with GELU, a scale, a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.5 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.blocks = nn.Sequential(Modern(6), Modern(6))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class UNet(nn.Module):
    """Down twice, up once by a transposed convolution and once by bilinear resizing, with what was there joined in."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._pair(2, 4), self._pair(4, 6), self._pair(6, 8)
        self.up2, self.join2 = nn.ConvTranspose2d(8, 6, 2, 2), self._pair(12, 6)
        self.join1, self.out = self._pair(10, 4), nn.Conv2d(4, 3, 1)

    @staticmethod
    def _pair(inside: int, outside: int) -> nn.Module:
        first, second = nn.Conv2d(inside, outside, 3, padding=1), nn.Conv2d(outside, outside, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.LeakyReLU(0.1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.join2(torch.cat([b, self.up2(c)], 1))
        up = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(self.join1(torch.cat([a, up], 1)))


class Dense(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def densenet() -> nn.Module:
    blocks = [Dense(4, 3), Dense(7, 3), Dense(10, 3), nn.Conv2d(13, 6, 1), nn.AvgPool2d(2), Dense(6, 3), Dense(9, 3)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


class Mixing(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix_in, self.mix_out = (nn.Parameter(0.3 * torch.randn(s)) for s in ((tokens, 12), (12, tokens)))
        self.wide, self.narrow = nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("btc,th->bhc", self.norm1(x), self.mix_in)
        x = x + torch.einsum("bhc,ht->btc", F.gelu(y, approximate="tanh"), self.mix_out)
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(Mixing(16, 8), Mixing(16, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


ARCHITECTURES = (
    Architecture("lenet", "LeNet", lenet, images(1, 14, 14), "cross_entropy", opset=9, form=SEED),
    Architecture("vgg", "VGG", vgg, images(3, 16, 16), "cross_entropy", opset=11, form=SEED),
    Architecture("resnet", "ResNet", resnet, images(3, 32, 32, True), "cross_entropy", opset=17, folding=False),
    Architecture("resnet_training", "ResNet", resnet, images(3, 32, 32, True), "cross_entropy", training=True, batches=(2, 5)),
    Architecture("mobilenet", "MobileNet", mobilenet, images(3, 16, 16), "cross_entropy", opset=14, folding=False),
    Architecture("mobilenet_dynamo", "MobileNet", mobilenet, images(3, 16, 16), "cross_entropy", DYNAMO, 18, folding=False),
    Architecture("convnext", "ConvNeXt", ConvNext, images(3, 16, 16, True), "cross_entropy", DYNAMO, 18),
    Architecture("convnext_torchscript", "ConvNeXt", ConvNext, images(3, 16, 16, True), "cross_entropy", opset=17),
    Architecture("unet", "U-Net", UNet, images(2, 8, 8, True), "cross_entropy", opset=16),
    Architecture("densenet", "DenseNet", densenet, images(3, 12, 12), "cross_entropy", opset=13, folding=False, form=SEED),
    Architecture("mixer", "MLP-Mixer", Mixer, images(3, 16, 16), "cross_entropy", DYNAMO, 18),
    Architecture("mixer_torchscript", "MLP-Mixer", Mixer, images(3, 16, 16), "cross_entropy", opset=12, form=SEED),
)
