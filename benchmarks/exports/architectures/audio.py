"""Sound: one-dimensional convolutions, gates, spectra."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


def waves(channels: int, samples: int, grow: int = 16):
    def draw(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"wave": torch.randn(batch, channels, samples + grow * batch, generator=generator)}

    return draw


class Gated(nn.Module):
    """Convolution, group normalization, GLU, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 2 * channels, 5, padding=2)
        self.norm = nn.GroupNorm(2, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.glu(self.norm(self.conv(x)), 1)


def keywords() -> nn.Module:
    """A keyword spotter."""
    body = [nn.Conv1d(1, 4, 8, 4), nn.ELU(), Gated(4), nn.MaxPool1d(2), Gated(4), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, 5))


class Dilated(nn.Module):
    """A layer of WaveNet: a causal dilated convolution, tanh times sigmoid, a residual and a skip."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.residual, self.skip = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.conv(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        h = torch.tanh(a) * torch.sigmoid(b)
        return x + self.residual(h), self.skip(h)


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 4, 1)
        self.layers = nn.ModuleList(Dilated(4, 2**i) for i in range(4))
        self.out1, self.out2 = nn.Conv1d(4, 6, 1), nn.Conv1d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, total = self.stem(x), 0.0
        for layer in self.layers:
            h, skip = layer(h)
            total = total + skip
        return self.out2(F.relu(self.out1(F.relu(total))))


class Spectral(nn.Module):
    """A learned mask on a spectrum: STFT, magnitudes, two dense layers over frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.gain = nn.Parameter(torch.ones(1))
        self.wide, self.head = nn.Linear(9, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(self.gain * x[:, 0], 16, 8, window=self.window, center=False, return_complex=False, onesided=True)
        power = torch.log1p((spectrum**2).sum(-1))
        return self.head(F.softplus(self.wide(power.transpose(1, 2))).mean(1))


ARCHITECTURES = (
    Architecture("keywords", "1-D convolution", keywords, waves(1, 64), "cross_entropy", opset=17),
    Architecture("keywords_dynamo", "1-D convolution", keywords, waves(1, 64), "cross_entropy", DYNAMO, 21),
    Architecture("wavenet", "WaveNet", WaveNet, waves(1, 24), "cross_entropy", opset=13),
    Architecture("wavenet_dynamo", "WaveNet", WaveNet, waves(1, 24), "cross_entropy", DYNAMO, 18, form=SEED),
    Architecture("spectral", "STFT", Spectral, waves(1, 64, 0), "cross_entropy", opset=17),
)
