"""Other ways to bound the spectral norm of a Jacobian over a region: published closed forms, and auto_LiRPA where it is there.

All read the same weights. The closed forms get the slope extrema of each layer that our own forward ranges give, so that only
the way of multiplying is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.sound.nets import Activation, Net

Array = np.ndarray[Any, Any]
Slopes = Sequence[tuple[Array, Array]]  # lo and hi of each unit, layer by layer


def _norm(a: Array) -> float:
    return float(np.linalg.norm(a, 2))


def norm_product(weights: Sequence[Array], slopes: Slopes) -> float:
    """prod ||W|| max |slope|."""
    most = [float(np.maximum(abs(lo), abs(hi)).max()) for lo, hi in slopes]
    return float(np.prod([_norm(w) for w in weights]) * np.prod(most))


def interval_jacobian(weights: Sequence[Array], slopes: Slopes) -> float:
    """Elementwise intervals, backwards."""
    lo = hi = weights[-1]
    for w, (a, b) in zip(weights[-2::-1], reversed(slopes), strict=True):
        ends = np.stack([lo * a[:, None], lo * b[:, None], hi * a[:, None], hi * b[:, None]])
        lo, hi = ends.min(axis=0), ends.max(axis=0)
        plus, minus = np.maximum(w, 0.0), np.minimum(w, 0.0)
        lo, hi = plus @ lo + minus @ hi, plus @ hi + minus @ lo
    return _of_interval(lo, hi)


def _of_interval(lo: Array, hi: Array) -> float:
    """A bound of the spectral norm over an interval matrix: of the greatest magnitudes, or of middle and half width."""
    return min(_norm(np.maximum(abs(lo), abs(hi))), _norm(0.5 * (lo + hi)) + _norm(0.5 * (hi - lo)))


def liplt(weights: Sequence[Array], slopes: Slopes) -> float:
    """The loop transformation (Fazlyab et al. 2023, arXiv:2310.00116): slope = centre + remainder, recursively."""
    middle = [0.5 * (lo + hi) for lo, hi in slopes]
    rest = [float((0.5 * (hi - lo)).max()) for lo, hi in slopes]
    bounds: list[float] = []
    for end in range(len(weights)):
        total, product = 0.0, weights[end]
        for start in range(end - 1, -1, -1):
            total += _norm(product) * rest[start] * bounds[start]
            product = (weights[start] * middle[start]) @ product
        bounds.append(total + _norm(product))
    return bounds[-1]


def eclipse_fast(weights: Sequence[Array], slopes: Slopes) -> float:
    """ECLipsE-Fast's closed form (Xu and Sivaranjani 2024), one slope sector a layer; loosened to start at 0 as it asks."""
    y = weights[-1] @ weights[-1].T
    for w, (_, hi) in zip(weights[-2::-1], reversed(slopes), strict=True):
        m = 0.5 * float(hi.max())
        scale = 1.0 / (2.0 * m * m * _norm(y))
        y = w @ np.linalg.inv(scale * np.eye(len(y)) - (scale * m) ** 2 * y) @ w.T
    return _norm(y) ** 0.5


def centre_and_ball(weights: Sequence[Array], slopes: Slopes) -> float:
    """The exact centre product and one scalar error."""
    centre, error = weights[-1], 0.0
    for w, (lo, hi) in zip(weights[-2::-1], reversed(slopes), strict=True):
        c, root = 0.5 * (lo + hi), np.sqrt(0.5 * (hi - lo))
        error = _norm(w * root) * _norm(root[:, None] * centre) + _norm(w * np.maximum(abs(lo), abs(hi))) * error
        centre = (w * c) @ centre
    return _norm(centre) + error


CLOSED_FORMS: dict[str, Callable[[Sequence[Array], Slopes], float]] = {
    "norm product": norm_product,
    "interval": interval_jacobian,
    "LipLT": liplt,
    "ECLipsE-Fast": eclipse_fast,
    "centre + ball": centre_and_ball,
}


def has_lirpa() -> bool:
    return find_spec("auto_LiRPA") is not None and find_spec("torch") is not None


def lirpa(net: Net, weights: Sequence[Array], x: Array, radius: float) -> float:
    """auto_LiRPA's relaxed elementwise Jacobian over an l-infinity ball."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    from auto_LiRPA.jacobian import JacobianOP

    layers: list[torch.nn.Module] = []
    for index, w in enumerate(weights):
        linear = torch.nn.Linear(*w.shape, bias=False)
        linear.weight.data = torch.tensor(w.T, dtype=torch.float32)
        layers += [linear] if index == len(weights) - 1 else [linear, _activation(net.activation)]

    class Jacobian(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chain = torch.nn.Sequential(*layers)

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return JacobianOP.apply(self.chain(given), given)  # type: ignore[no-any-return]

    point = torch.tensor(x[None], dtype=torch.float32)
    model = BoundedModule(Jacobian(), point, bound_opts={"optimize_bound_args": {"iteration": 1}})
    ball = BoundedTensor(point, PerturbationLpNorm(norm=np.inf, eps=radius))
    lower, upper = model.compute_jacobian_bounds(ball, optimize=False)
    lo, hi = (end.detach().numpy().reshape(len(x), -1).astype(np.float64) for end in (lower, upper))
    return _of_interval(lo, hi)


def _activation(name: Activation) -> Any:
    import torch

    return {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[name]()
