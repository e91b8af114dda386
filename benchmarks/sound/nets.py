"""The nets that tightness is measured on: weights of variance 1 / n, no biases, in the form of each tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vgcompile import spec
from vgcompile.build import build
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]
Activation = Literal["sigmoid", "tanh", "relu"]
SLOPES: dict[Activation, tuple[float, float]] = {"sigmoid": (0.0, 0.25), "tanh": (0.0, 1.0), "relu": (0.0, 1.0)}


@dataclass(frozen=True)
class Net:
    """A chain of dense layers with an activation between them, or (``share``) a stack of x + share W2 tanh(W1 x)."""

    activation: Activation
    width: int
    depth: int
    weight: str = ""
    share: float = 0.0

    @property
    def name(self) -> str:
        kind = "residual" if self.share else "orthogonal " + self.activation if self.weight else self.activation
        return f"{kind} {self.depth}x{self.width}"

    def network(self, seed: int = 0) -> Network:
        gain = 2.0 if self.activation == "relu" else 1.0
        weight = self.weight or f"{{kind: normal, sd: {(gain / self.width) ** 0.5}}}"
        unit = f"{{kind: dense, units: {self.width}, activation: {self.activation}}}"
        lines = [unit] * (self.depth - 1) + [f"{{kind: dense, units: {self.width}}}"]
        if self.share:
            small = f"{{weight: {{kind: normal, sd: {self.share / self.width**0.5}}}}}"
            lines = [f"{{kind: residual, layers: [{unit}, {{kind: dense, units: {self.width}, init: {small}}}]}}"] * self.depth
        body = "\n".join(f"  - {line}" for line in lines)
        return build(
            spec.loads(
                f"name: net\ninputs:\n  x: {{shape: [batch, {self.width}]}}\ninit: {{weight: {weight}, bias: zeros}}\n"
                f"layers:\n{body}\nseed: {seed}\n"
            )
        )


def matrices(network: Network) -> list[Array]:
    """The weights, rows against columns as x @ W reads them."""
    return [v.astype(np.float64) for v in network.parameter_values().values() if v.ndim == 2]


def value_and_slope(activation: Activation, z: Array) -> tuple[Array, Array]:
    if activation == "sigmoid":
        y = 1.0 / (1.0 + np.exp(-z))
        return y, y * (1.0 - y)
    if activation == "tanh":
        y = np.tanh(z)
        return y, 1.0 - y * y
    return np.maximum(z, 0.0), (z > 0.0).astype(np.float64)


def jacobian(net: Net, weights: Sequence[Array], x: Array) -> Array:
    """d output / d input at one point, [n, m]."""
    found = np.eye(len(x))
    if net.share:
        for w, v in zip(weights[::2], weights[1::2], strict=True):
            y, d = value_and_slope(net.activation, x @ w)
            found, x = found + (found @ (w * d)) @ v, x + y @ v
        return found
    for w in weights[:-1]:
        x, d = value_and_slope(net.activation, x @ w)
        found = found @ (w * d)
    return np.asarray(found @ weights[-1])
