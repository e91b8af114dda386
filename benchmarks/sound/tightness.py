"""Bounds of the spectral norm of a Jacobian over a region, over the greatest value that an attack finds, and their time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.sound import peers
from benchmarks.sound.nets import SLOPES, Net, jacobian, matrices, value_and_slope
from vgcompile.analysis.bounds.domains import Domain
from vgcompile.analysis.bounds.region import Region, region
from vgcompile.analysis.sound import SoundTier, sound
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]
OURS = "vgcompile"
QUICK: dict[str, tuple[Domain, ...]] = {
    "its zonotope, centre": ("product", "zonotope", "centre"),
    "its centre": ("product", "centre"),
}
LIRPA = "auto_LiRPA"
STARTS, STEPS = 12, 24  # of the attack
RUNS, LONG = 5, 0.5  # of a method that is timed, and the seconds after which it is not run again


@dataclass(frozen=True)
class Row:
    """One net and region: each method's bound over the attacked maximum, and its seconds of CPU."""

    net: Net
    form: str
    attacked: float
    ratios: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lower: float = math.nan  # our lower bound over the least singular value at the centre

    @property
    def _others(self) -> list[str]:
        return [name for name in self.ratios if name != OURS and name not in QUICK]

    @property
    def ahead_of_all(self) -> bool:
        return all(self.ratios[OURS] <= self.ratios[name] * (1.0 + 1e-6) for name in self._others)

    @property
    def ahead_at_equal_time(self) -> bool:
        """Of all methods that take no longer than ours."""
        rivals = [name for name in self._others if self.seconds[name] <= self.seconds[OURS]]
        return all(self.ratios[OURS] <= self.ratios[name] * (1.0 + 1e-6) for name in rivals)


def rows(quick: bool) -> list[tuple[Net, str]]:
    """The settings of tables 2.1 and 7 of the notes on derivative bounds."""
    whole = [(Net(phi, 64, depth), "everywhere") for phi in SLOPES for depth in ((5,) if quick else (5, 10, 20))]
    tight = [(Net("tanh", 64, depth, weight="orthogonal"), "everywhere") for depth in ((5,) if quick else (5, 20, 50))]
    near = [
        (Net("sigmoid", 64, depth), f"ball:{eps}@linf") for eps in (0.01, 0.001) for depth in ((5,) if quick else (5, 10, 20))
    ]
    lirpa = [(Net("tanh", 32, depth), f"ball:{eps}@linf") for depth in ((3,) if quick else (3, 5, 8)) for eps in (0.01, 0.1, 1)]
    relu = [] if quick else [(Net("relu", 32, 8), f"ball:{eps}@linf") for eps in (0.01, 0.1, 1)]
    depth = 20 if quick else 100
    stacks = [(Net("tanh", 64, depth, share=1.0 / depth), form) for form in ("ball:0.01", "ball:0.1")]
    return [*whole, *tight, *near, *lirpa, *relu, *stacks]


def warm() -> None:
    """Import what an analysis needs, which is no part of its time."""
    sound(Net("tanh", 4, 2).network(), "everywhere")


def measured(net: Net, form: str, seed: int = 0, with_lirpa: bool = False) -> Row:
    """Every method that takes this net and region."""
    network = net.network(seed)
    weights, x = matrices(network), np.random.default_rng(seed).normal(size=net.width)
    where = region(network, form, {"x": x[None].astype(np.float32)})
    x = x.astype(np.float32).astype(np.float64)
    best = attacked(net, weights, x, where, seed)
    made = Row(net, form, best)
    tier = _timed(made, OURS, lambda: sound(network, where))
    (value,) = [v for v in network.model.graph.inputs if v.name == "x"]
    lo, hi = tier.total[value]
    made.ratios[OURS] = 10.0**hi / best
    for name, domains in QUICK.items():
        few = _timed(made, name, lambda domains=domains: sound(network, where, domains=domains))  # type: ignore[misc]
        made.ratios[name] = 10.0 ** few.total[value][1] / best
    least = np.linalg.svd(jacobian(net, weights, x), compute_uv=False)[-1]
    if not net.share:
        slopes = _slopes(net, network, tier)
        for name, method in peers.CLOSED_FORMS.items():
            made.ratios[name] = _timed(made, name, lambda method=method: method(weights, slopes)) / best  # type: ignore[misc]
    if with_lirpa and not net.share and form.endswith("@linf") and net.width * net.depth <= 512:
        radius = float(form.partition(":")[2].partition("@")[0])
        made.ratios[LIRPA] = _timed(made, LIRPA, lambda: peers.lirpa(net, weights, x, radius)) / best
    return Row(net, form, best, made.ratios, made.seconds, 10.0**lo / least if lo > -300 else 0.0)


def _timed(row: Row, name: str, method: Callable[[], Any]) -> Any:
    """What a method finds; its seconds are the median of several runs, of one where that is long."""
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < LONG:
        start = time.process_time()
        found = method()
        taken.append(time.process_time() - start)
    row.seconds[name] = statistics.median(taken)
    return found


def _slopes(net: Net, network: Network, tier: SoundTier) -> peers.Slopes:
    """The extremes of each unit's slope on its range; both activations turn at 0, where the slope is greatest."""
    found = []
    for node in network.model.graph:
        if len(node.inputs) != 1 or node.inputs[0] is None:
            continue
        bound = tier.ranges[node.inputs[0]]
        lo, hi = (np.broadcast_to(end, (1, net.width))[0] for end in (bound.lo, bound.hi))
        with np.errstate(over="ignore"):
            ends = [value_and_slope(net.activation, end)[1] for end in (lo, hi)]
        least, most = np.minimum(*ends), np.maximum(*ends)
        most = np.where((lo <= 0.0) & (hi >= 0.0), SLOPES[net.activation][1], most)
        found.append((np.nan_to_num(least), np.nan_to_num(most)))
    return found


def attacked(net: Net, weights: Sequence[Array], x: Array, where: Region, seed: int) -> float:
    """The greatest spectral norm that gradient ascent finds inside the region."""
    import torch

    rng = np.random.default_rng(seed)
    (known,) = [piece["x"] for piece in where.pieces]
    tensors = [torch.tensor(w) for w in weights]
    best = float(np.linalg.norm(jacobian(net, weights, x), 2))
    for start in range(STARTS):
        point = torch.tensor(_start(rng, known.ball, x, start), requires_grad=True)
        for step in range(STEPS):
            norm = _norm_at(net, tensors, point)
            best = max(best, float(norm))
            if not norm.requires_grad:
                break
            (slope,) = torch.autograd.grad(norm, point)
            moved = _moved(point.detach().numpy(), slope.numpy(), known.ball, 0.5 ** (step // 6))
            point = torch.tensor(moved, requires_grad=True)
    return best


def _start(rng: np.random.Generator, ball: Any, x: Array, start: int) -> Array:
    if ball is None:
        return np.asarray(rng.normal(size=len(x)) * 10.0 ** rng.uniform(-3, 1)) if start else np.zeros(len(x))
    step = rng.normal(size=len(x))
    return np.asarray(x + ball.radius * (np.sign(step) if ball.norm == "linf" else step / np.linalg.norm(step)))


def _moved(point: Array, slope: Array, ball: Any, rate: float) -> Array:
    size = np.linalg.norm(slope) or 1.0
    if ball is None:
        return np.asarray(point + rate * slope / size)
    if ball.norm == "linf":
        return np.asarray(
            np.clip(point + rate * ball.radius * np.sign(slope), ball.centre[0] - ball.radius, ball.centre[0] + ball.radius)
        )
    away = point + rate * ball.radius * slope / size - ball.centre[0]
    return np.asarray(ball.centre[0] + away * min(1.0, ball.radius / max(float(np.linalg.norm(away)), 1e-300)))


def _norm_at(net: Net, weights: Sequence[Any], x: Any) -> Any:
    import torch

    found = torch.eye(len(x), dtype=torch.float64)
    phi = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[net.activation]
    slope = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y, "relu": lambda y: (y > 0).double()}[net.activation]
    if net.share:
        for w, v in zip(weights[::2], weights[1::2], strict=True):
            y = phi(x @ w)
            found, x = found + (found @ (w * slope(y))) @ v, x + y @ v
        return torch.linalg.matrix_norm(found, 2)
    for w in weights[:-1]:
        x = phi(x @ w)
        found = found @ (w * slope(x))
    return torch.linalg.matrix_norm(found @ weights[-1], 2)


def table(found: Sequence[Row]) -> str:
    """One line for each net and region: bound over attacked maximum, and milliseconds."""
    names = [OURS, *QUICK, *peers.CLOSED_FORMS, LIRPA]
    head = ["net", "region", *names, "lower / least"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in found:
        cells = [f"{row.ratios[name]:.4g} ({1000 * row.seconds[name]:.0f} ms)" if name in row.ratios else "-" for name in names]
        lines.append(f"| {row.net.name} | {row.form} | " + " | ".join(cells) + f" | {row.lower:.3g} |")
    ahead, fair = sum(row.ahead_of_all for row in found), sum(row.ahead_at_equal_time for row in found)
    lines.append(f"\n{OURS} is the tightest in {ahead} of {len(found)} rows, and in {fair} against all that take no longer.")
    return "\n".join(lines)
