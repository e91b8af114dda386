"""Nets that make images or codes, and one on a graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.exports.architectures.vision import images
from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


def noise(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"noise": torch.randn(batch, 6, generator=generator)}


def generator_net() -> nn.Module:
    """The generator of a DCGAN."""
    return nn.Sequential(
        nn.Linear(6, 32),
        nn.Unflatten(1, (8, 2, 2)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 3, 2, 1, output_padding=1),
        nn.Tanh(),
    )


class Unpooling(nn.Module):
    """An autoencoder that puts each maximum back to where it was (SegNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        code, places = self.pool(F.relu(self.encode(x)))
        spread = torch.zeros_like(x[:, :1].flatten(2)).expand(-1, 4, -1)  # exporters refuse MaxUnpool2d
        return self.decode(spread.scatter(2, places.flatten(2), code.flatten(2)).reshape(-1, 4, 8, 8))


class Variational(nn.Module):
    """A variational autoencoder with its noise as an input: what it gives back, beside the code's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.log_var = nn.Linear(10, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.decode, self.out = nn.Linear(3, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor, draw: Tensor) -> Tensor:
        h = F.silu(self.encode(x))
        mean, log_var = self.mean(h), self.log_var(h)
        back = torch.sigmoid(self.out(F.selu(self.decode(mean + draw * torch.exp(0.5 * log_var)))))
        return torch.cat([back, mean, log_var], 1)


def coded(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, 10, generator=generator), "draw": torch.randn(batch, 3, generator=generator)}


class Messages(nn.Module):
    """Two rounds of messages along edges: gathered at their sources, summed at their targets, a mean over nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(7, 4)
        self.message, self.update, self.head = nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, kinds: Tensor, source: Tensor, target: Tensor) -> Tensor:
        h = self.kinds(kinds)
        for _ in range(2):
            sent = F.mish(self.message(torch.cat([h[source], h[target]], 1)))
            received = torch.zeros_like(h).scatter_add(0, target[:, None].expand(-1, 4), sent)
            h = h + torch.tanh(self.update(received))
        return self.head(h)


def edges(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    nodes, count = batch + 3, 3 * batch + 4
    ends = torch.randint(0, nodes, (2, count), generator=generator)
    return {"kinds": torch.randint(0, 7, (nodes,), generator=generator), "source": ends[0], "edge_target": ends[1]}


class Factorized(nn.Module):
    """A recommender: embeddings of user and item, their product and a small net (neural collaborative filtering)."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(9, 4), nn.Embedding(11, 4)
        self.tower, self.out = nn.Sequential(nn.Linear(8, 6), nn.PReLU(), nn.Linear(6, 4), nn.Softsign()), nn.Linear(8, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u, v = self.user(user), self.item(item)
        return self.out(torch.cat([u * v, self.tower(torch.cat([u, v], -1))], -1)).squeeze(-1)


def pairs(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    draw = lambda top: torch.randint(0, top, (batch,), generator=generator)  # noqa: E731
    return {"user": draw(9), "item": draw(11)}


ARCHITECTURES = (
    Architecture("gan", "GAN generator", generator_net, noise, "mse", opset=13, training=True, batches=(2, 5)),
    Architecture("gan_inference", "GAN generator", generator_net, noise, "mse", DYNAMO, 18, folding=False, form=SEED),
    Architecture("unpooling", "SegNet", Unpooling, images(2, 8, 8), "mse", opset=11),
    Architecture("variational", "VAE", Variational, coded, "mse", DYNAMO, 20),
    Architecture("messages", "graph net", Messages, edges, "cross_entropy", opset=16),
    Architecture("messages_dynamo", "graph net", Messages, edges, "cross_entropy", DYNAMO, 18),
    Architecture("recommender", "matrix factorization", Factorized, pairs, "mse", opset=12, form=SEED),
)
