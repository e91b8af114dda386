"""Networks over sequences, and the highway network, of PyTorch's own recurrent and transformer modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Last(nn.Module):
    """The state after the last step, of both directions where there are two."""

    def __init__(self, memory: nn.RNNBase) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.memory(x)
        h: Tensor = state[0] if isinstance(state, tuple) else state
        return torch.cat(list(h[-1 - self.memory.bidirectional :]), -1)


def lstm_classifier(units: int) -> nn.Module:
    return nn.Sequential(Last(nn.LSTM(16, units, batch_first=True)), nn.Linear(units, 10))


def gru_classifier(units: int) -> nn.Module:
    memory = nn.GRU(64, units, 2, batch_first=True, bidirectional=True)
    return nn.Sequential(nn.Embedding(1000, 64), Last(memory), nn.Linear(2 * units, 2))


def elman_rnn(units: int) -> nn.Module:
    return nn.Sequential(Last(nn.RNN(16, units, batch_first=True)), nn.Linear(units, 10))


class Sinusoidal(nn.Module):
    """Vaswani et al. 2017, section 3.5, in double whatever the precision of the rest."""

    def forward(self, x: Tensor) -> Tensor:
        time, width = x.shape[1:]
        rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
        angles = torch.arange(time, dtype=torch.float64)[:, None] * rates
        return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(1).to(x.dtype)


class First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def transformer(depth: int, width: int, heads: int, *, pre: bool) -> nn.Module:
    """An encoder over words, read at its first position."""
    blocks = (nn.TransformerEncoderLayer(width, heads, 2048, 0.0, batch_first=True, norm_first=pre) for _ in range(depth))
    norm = [nn.LayerNorm(width)] if pre else []
    return nn.Sequential(nn.Embedding(1000, width), Sinusoidal(), *blocks, *norm, First(), nn.Linear(width, 2))


class Words(nn.Module):
    """[N, width, height, width'] -> [N, height * width', width]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class ClassToken(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1)


class Positions(nn.Module):
    def __init__(self, time: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(time, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


def vit_s(depth: int, width: int, heads: int) -> nn.Module:
    """Dosovitskiy et al. 2021, section 3.1."""
    options: dict[str, Any] = {"activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
    return nn.Sequential(
        *(nn.Conv2d(3, width, 16, 16), Words(), ClassToken(width), Positions(197, width)),
        *(nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, **options) for _ in range(depth)),
        *(nn.LayerNorm(width, 1e-6), First(), nn.Linear(width, 1000)),
    )


class Logits(nn.Module):
    """The logits of one of transformers' models."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, use_cache=False).logits  # type: ignore[no-any-return]


def gpt2(depth: int, width: int, heads: int, time: int, words: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=depth, n_embd=width, n_head=heads, n_positions=time, vocab_size=words)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    config.bos_token_id = config.eos_token_id = None  # theirs are beyond a smaller vocabulary
    return Logits(GPT2LMHeadModel(config))


class HighwayLayer(nn.Module):
    """Srivastava et al. 2015, equation 3: y = T h(x) + (1 - T) x."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(units, units), nn.Linear(units, units)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = torch.tanh(self.transform(x)), torch.sigmoid(self.gate(x))
        return gate * h + (1 - gate) * x


def highway(depth: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 50), nn.Tanh(), *(HighwayLayer(50) for _ in range(depth)), nn.Linear(50, 10))
