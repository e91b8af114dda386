"""Sequences read step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


def series(width: int, time: int = 4):
    """Real sequences [batch, time, width], longer in a bigger batch, so that time becomes dynamic."""

    def draw(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"series": torch.randn(batch, time + 2 * batch, width, generator=generator)}

    return draw


class Recurrent(nn.Module):
    """A stack of recurrent layers, the mean of its states classified."""

    def __init__(self, cell: type[nn.RNNBase], layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.body = cell(3, 4, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(8 if bidirectional else 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0].mean(1))


class StateSpace(nn.Module):
    """A selective state space (Mamba): gated, a short causal convolution, and a scan h_t = a_t h_{t-1} + b_t x_t that is written
    as a cumulative sum of logarithms, so that no loop is needed."""

    def __init__(self, width: int = 4, state: int = 3) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.short = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.select = nn.Linear(width, 2 * state + width)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(width, 1))
        self.skip, self.state = nn.Parameter(torch.ones(width)), state

    def forward(self, u: Tensor) -> Tensor:
        x, gate = self.inside(u).chunk(2, -1)
        x = F.silu(self.short(x.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2))
        b, c, step = self.select(x).split([self.state, self.state, x.shape[-1]], -1)
        step = F.softplus(step)
        decay = torch.cumsum(-step[..., None] * torch.exp(self.log_decay), 1)  # log of the product of a_t
        drive = torch.cumsum(torch.exp(-decay) * (step * x)[..., None] * b[:, :, None, :], 1)
        y = (torch.exp(decay) * drive * c[:, :, None, :]).sum(-1) + self.skip * x
        return u + self.outside(y * F.silu(gate))


class Scanned(StateSpace):
    """The same, step by step: a loop over a fixed number of steps, as a tracing exporter unrolls it."""

    def forward(self, u: Tensor) -> Tensor:
        x, gate = self.inside(u).chunk(2, -1)
        b, c, step = self.select(x).split([self.state, self.state, x.shape[-1]], -1)
        step = F.softplus(step)
        h = torch.zeros_like(x[:, 0, :, None]) * self.log_decay
        outputs = []
        for t in range(6):
            h = h * torch.exp(-step[:, t, :, None] * torch.exp(self.log_decay)) + (step * x)[:, t, :, None] * b[:, t, None, :]
            outputs.append((h * c[:, t, None, :]).sum(-1))
        return self.outside((torch.stack(outputs, 1) + self.skip * x) * F.silu(gate))


class Classified(nn.Module):
    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


def state_spaces() -> nn.Module:
    return Classified(nn.Sequential(StateSpace(), StateSpace()), 4)


def steps(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"series": torch.randn(batch, 6, 4, generator=generator)}


ARCHITECTURES = (
    Architecture("lstm", "LSTM", lambda: Recurrent(nn.LSTM, 2, True), series(3), "cross_entropy", opset=14),
    Architecture("gru", "GRU", lambda: Recurrent(nn.GRU, 2, True), series(3), "cross_entropy", opset=11, form=SEED),
    Architecture("rnn", "RNN", lambda: Recurrent(nn.RNN, 1, False), series(3), "cross_entropy", opset=9, form=SEED),
    Architecture("lstm_dynamo", "LSTM", lambda: Recurrent(nn.LSTM, 1, False), series(3), "cross_entropy", DYNAMO, 18),
    Architecture("state_space", "Mamba", state_spaces, series(4), "cross_entropy", opset=17, folding=False),
    Architecture("state_space_loop", "Mamba", lambda: Classified(Scanned(), 4), steps, "cross_entropy", opset=17),
)
