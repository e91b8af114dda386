"""Certified norms and ranges of recurrent operators, against PyTorch's Jacobians in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from vgcompile import spec
from vgcompile.analysis import Options, analyze
from vgcompile.analysis.sound import sound
from vgcompile.build import build
from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops import OPS
from vgcompile.ops.matrix_ball import MatrixBall, scaled_rows
from vgcompile.ops.op import Array, Case
from vgcompile.ops.recurrent_jacobian import Outputs, Recurrence, norm_over_steps

X, W, R, B, H, C = 0, 1, 2, 3, 5, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}  # of PyTorch's gates in ONNX's order
NEAR = {0.01: 1.3, 0.3: 4.0, 2.0: 80.0}  # bound over the greatest norm found, by the radius of the box
KINDS = [(name, ways) for name in GATES for ways in (1, 2)]
ATTRIBUTES = {
    "activations": None,
    "activation_alpha": None,
    "activation_beta": None,
    "clip": None,
    "layout": 0,
    "input_forget": 0,
    "linear_before_reset": 1,
}


@dataclass(frozen=True)
class Net:
    """A recurrence of PyTorch's with its weights as ONNX has them."""

    name: str
    module: torch.nn.RNNBase
    weights: Mapping[int, Array]
    ways: int

    def case(self, x: Interval, h: Interval, c: Interval, steps: int | str = 4, outputs: int = 3) -> Case:
        hidden = self.module.hidden_size
        states = 2 if self.name == "LSTM" else 1
        shapes = ((steps, 1, self.module.input_size), *(self.weights[i].shape for i in (W, R, B)), None)
        shapes = (*shapes, *[(self.ways, 1, hidden)] * states)
        made = ((steps, self.ways, 1, hidden), *[(self.ways, 1, hidden)] * states)
        direction = "bidirectional" if self.ways == 2 else "forward"
        return Case(
            {**ATTRIBUTES, "direction": direction, "hidden_size": hidden},
            shapes,
            tuple(dims if k < outputs else None for k, dims in enumerate(made)),
            (x, *(point(self.weights[i]) for i in (W, R, B)), None, *(h, c)[:states]),
            (None, *(self.weights[i] for i in (W, R, B)), None, *[None] * states),
            data=frozenset([X, H, C]),
        )

    def jacobian(self, x: Array, h: Array, c: Array, position: int) -> Array:
        """Of all outputs, flattened."""
        given = {X: torch.tensor(x), H: torch.tensor(h), C: torch.tensor(c)}

        def run(moved: torch.Tensor) -> torch.Tensor:
            use = {**given, position: moved}
            states = (use[H], use[C]) if self.name == "LSTM" else use[H]
            y, last = self.module(use[X], states)
            return torch.cat([y.ravel(), *(s.ravel() for s in (last if isinstance(last, tuple) else (last,)))])

        found = torch.autograd.functional.jacobian(run, given[position])
        return np.asarray(found.reshape(found.shape[0], -1).numpy())


def net(name: str, ways: int, rng: np.random.Generator, size: float, hidden: int = 4, features: int = 3) -> Net:
    torch.manual_seed(int(rng.integers(2**31)))
    module = getattr(torch.nn, name)(features, hidden, bidirectional=ways == 2, dtype=torch.float64)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=size)
    named = {key: value.detach().numpy() for key, value in module.named_parameters()}

    def stacked(part: str) -> Array:
        found = [named[f"{part}_l0{suffix}"] for suffix in ("", "_reverse")[:ways]]
        return np.stack([np.concatenate([np.split(x, GATES[name])[k] for k in ORDER[name]]) for x in found])

    bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=-1)
    return Net(name, module, {W: stacked("weight_ih"), R: stacked("weight_hh"), B: bias}, ways)


def hi(case: Case, name: str, position: int) -> float:
    norms = OPS[name].norms
    assert norms is not None
    lo, most = norms(case, position)
    assert lo == 0.0
    return float(most)


def points(one: Net, rng: np.random.Generator, steps: int = 4) -> dict[int, Array]:
    hidden = one.module.hidden_size
    shapes = {X: (steps, 1, one.module.input_size), H: (one.ways, 1, hidden), C: (one.ways, 1, hidden)}
    return {position: 0.5 * rng.normal(size=shape) for position, shape in shapes.items()}


def positions(name: str) -> tuple[int, ...]:
    return (X, H, C) if name == "LSTM" else (X, H)


@pytest.mark.parametrize(("name", "ways"), KINDS)
@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_no_jacobian_exceeds_the_bound(name: str, ways: int, radius: float) -> None:
    """Nor is the bound far from the greatest one where weights are small."""
    rng = np.random.default_rng(int(100 * radius) + ways)
    for size in (0.2, 1.0):
        one = net(name, ways, rng, size)
        middle = points(one, rng)
        case = one.case(*(interval(v - radius, v + radius) for v in middle.values()))
        for position in positions(name):
            bound, most = hi(case, name, position), 0.0
            for _ in range(8):
                x = {i: v + radius * rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], size=v.shape) for i, v in middle.items()}
                most = max(most, float(np.linalg.norm(one.jacobian(x[X], x[H], x[C], position), 2)))
            assert most <= bound * (1.0 + 1e-9), f"input {position}"
            if size == 0.2:
                assert bound <= NEAR[radius] * most, f"input {position}"


@pytest.mark.parametrize(("name", "ways"), KINDS)
def test_at_a_point_the_bound_is_the_norm(name: str, ways: int) -> None:
    """Of both directions together it is the root of both squares, which may be more."""
    rng = np.random.default_rng(5)
    one = net(name, ways, rng, 0.7)
    x = points(one, rng)
    case = one.case(*(point(v) for v in x.values()))
    for position in positions(name):
        exact = float(np.linalg.norm(one.jacobian(x[X], x[H], x[C], position), 2))
        bound = hi(case, name, position)
        assert exact <= bound * (1.0 + 1e-9)
        assert bound <= exact * (1.0 + 1e-6 if ways == 1 or position != X else math.sqrt(2.0))


@pytest.mark.parametrize(("name", "ways"), KINDS)
def test_values_lie_in_their_ranges(name: str, ways: int) -> None:
    rng = np.random.default_rng(7)
    one = net(name, ways, rng, 0.8)
    middle = points(one, rng)
    for steps in (4, "T"):
        hull = interval(middle[X].min() - 0.2, middle[X].max() + 0.2) if steps == "T" else None
        x = hull or interval(middle[X] - 0.2, middle[X] + 0.2)
        case = one.case(x, *(interval(middle[i] - 0.1, middle[i] + 0.1) for i in (H, C)), steps=steps)
        found = OPS[name].range(case)
        assert isinstance(found, tuple)
        assert all(bound.bounded for bound in found[: 2 if steps == "T" else 3])
        for _ in range(30):
            moved = {i: v + rng.uniform(-1, 1, v.shape) * (0.2 if i == X else 0.1) for i, v in middle.items()}
            states = [torch.tensor(moved[i]) for i in (H, C)]
            y, last = one.module(torch.tensor(moved[X]), tuple(states) if name == "LSTM" else states[0])
            y = y.detach().numpy().reshape(4, 1, ways, -1).transpose(0, 2, 1, 3)
            ends = [s.detach().numpy() for s in (last if isinstance(last, tuple) else (last,))]
            for bound, value in zip(found, (y, *ends), strict=True):
                assert bound.contains(value)


@pytest.mark.parametrize("name", GATES)
def test_any_number_of_steps(name: str) -> None:
    """A contraction has one bound for all lengths, no less than that of each; where nothing contracts there is none."""
    rng = np.random.default_rng(11)
    for size, ends in ((0.08, True), (3.0, False)):
        one = net(name, 1, rng, size)
        box = interval(-1.0, 1.0)
        state = interval(-0.1, 0.1)
        for position in (X, H):
            bound = hi(one.case(box, state, state, steps="T"), name, position)
            assert math.isfinite(bound) == ends
            for steps in (1, 2, 5, 12):
                x = points(one, rng, steps)
                exact = one.jacobian(np.clip(x[X], -1, 1), np.clip(x[H], -0.1, 0.1), np.clip(x[C], -0.1, 0.1), position)
                assert np.linalg.norm(exact, 2) <= bound * (1.0 + 1e-9)
        assert hi(one.case(box, state, state, steps="T"), name, W) == math.inf


@pytest.mark.parametrize("name", GATES)
def test_what_is_not_read_adds_nothing(name: str) -> None:
    """The last state alone hears less than all states."""
    rng = np.random.default_rng(13)
    one = net(name, 1, rng, 0.5)
    case = one.case(interval(-0.1, 0.1), point(0.0), point(0.0), steps=8)
    all_of_them, last = hi(case, name, X), hi(replace(case, unread=frozenset([0, 2])), name, X)
    assert last < 0.8 * all_of_them
    assert hi(replace(case, unread=frozenset(range(3))), name, X) == 0.0


def test_everywhere_a_gated_cell_is_bounded() -> None:
    """Of nothing known of x, the functions' own ranges and the number of steps are left."""
    rng = np.random.default_rng(17)
    for name in GATES:
        one = net(name, 1, rng, 0.5)
        assert math.isfinite(hi(one.case(WHOLE, point(0.0), point(0.0)), name, X))
        assert hi(one.case(WHOLE, point(0.0), point(0.0)), name, W) == math.inf


@pytest.mark.parametrize("name", GATES)
def test_weights_collect_from_all_steps_and_samples(name: str) -> None:
    """PyTorch's gradient of a batch of 3 by each weight, for adjoints along it, against sqrt(3) times the bound."""
    rng = np.random.default_rng(19)
    one = net(name, 1, rng, 0.5)
    middle, zero = rng.uniform(-1, 1, (4, 1, 3)), point(0.0)
    x = torch.tensor(middle + rng.uniform(-0.05, 0.05, (4, 3, 3)))
    case = one.case(interval(middle - 0.05, middle + 0.05), zero, zero, outputs=1)
    case = replace(case, shapes=((4, "N", 3), *case.shapes[1:]))
    parts = {W: ["weight_ih_l0"], R: ["weight_hh_l0"], B: ["bias_ih_l0", "bias_hh_l0"]}
    for position, names in parts.items():
        given = [dict(one.module.named_parameters())[key].detach().clone() for key in names]

        def run(*moved: torch.Tensor, names: list[str] = names) -> torch.Tensor:
            found = torch.func.functional_call(one.module, dict(zip(names, moved, strict=True)), (x,))
            return found[0].ravel()

        found = torch.autograd.functional.jacobian(run, tuple(given))
        whole = np.concatenate([j.reshape(j.shape[0], -1).numpy() for j in found], axis=1)
        bound = math.sqrt(3.0) * hi(case, name, position)
        assert np.linalg.norm(whole, 2) <= bound * (1.0 + 1e-9)
        assert bound <= 8.0 * np.linalg.norm(whole, 2)
        assert hi(replace(case, data=frozenset(range(8))), name, position) == math.inf


def test_a_network_over_steps_has_a_bound_at_its_input() -> None:
    """The last state of a bidirectional stack, through all layers of it."""
    text = "name: n\ninputs:\n  x: {shape: [batch, 6, 3], range: [-1, 1]}\nlayers:\n" + "".join(
        f"  - {{kind: {kind}, units: 4, bidirectional: true, layers: 2, output: {output}}}\n"
        for kind, output in (("gru", "sequence"), ("rnn", "sequence"), ("lstm", "last"))
    )
    network = build(spec.loads(text))
    tier = sound(network, "range")
    (x,) = [v for v in network.model.graph.inputs if v.name == "x"]
    assert math.isfinite(tier.total[x][1])


# ------------------------------------------------------------------------------------------------------- balls of matrices


def drawn(d: list[Interval], m: list[Interval], rng: np.random.Generator) -> Array:
    inside = [[x.lo + rng.choice([0.0, 1.0, rng.uniform()], size=x.lo.shape) * (x.hi - x.lo) for x in each] for each in (d, m)]
    return np.asarray(sum(a[..., None] * b for a, b in zip(*inside, strict=True)))


def uncertain(shape: tuple[int, ...], rng: np.random.Generator, width: float) -> Interval:
    ends = rng.normal(size=shape)
    return interval(ends, ends + width * rng.uniform(size=shape))


@pytest.mark.parametrize("width", [0.0, 0.1, 1.0])
def test_balls_hold_sums_and_products(width: float) -> None:
    rng = np.random.default_rng(23)
    terms = [[(uncertain((2, 4), rng, width), uncertain((4, 4), rng, width * share)) for _ in range(3)] for share in (0.0, 0.5)]
    a, b = (scaled_rows(each) for each in terms)
    for _ in range(40):
        x, y = (drawn([d for d, _ in each], [m for _, m in each], rng) for each in terms)
        for ball, value in ((a, x), (b, y), (a + b, x + y), (a @ b, x @ y)):
            assert (np.linalg.norm(value - ball.middle, 2, axis=(-2, -1)) <= ball.radius).all()
            assert (np.linalg.norm(value, 2, axis=(-2, -1)) <= ball.norm).all()


def ball(matrix: Array, radius: float) -> MatrixBall:
    norm = np.linalg.norm(matrix, 2, axis=(-2, -1)) + radius
    return MatrixBall(matrix, np.full(len(matrix), radius), norm * (1.0 + 1e-12))


@pytest.mark.parametrize("radius", [0.0, 1e-3, 0.1])
def test_the_map_of_a_recurrence(radius: float) -> None:
    """Matrices drawn from the balls, the whole map built from them block by block."""
    rng = np.random.default_rng(29)
    steps, n, m = 5, 3, 2
    a, b = 0.4 * rng.normal(size=(steps, n, n)), rng.normal(size=(steps, n, m))
    recurrence, entering = Recurrence([[ball(a, radius)]], steps), [ball(b, radius)]
    for outputs in (Outputs(True, False, False), Outputs(False, True, False), Outputs(True, True, False)):
        bound = norm_over_steps(recurrence, entering, outputs)
        most = 0.0
        for _ in range(60):
            x, y = (c + radius * _unit(rng, c.shape) for c in (a, b))
            rows, reach = [], np.zeros((n, steps * m))
            for t in range(steps):
                reach = x[t] @ reach
                reach[:, t * m : (t + 1) * m] = y[t]
                rows.append(reach)
            whole = [*(rows if outputs.sequence else []), *(rows[-1:] if outputs.state else [])]
            most = max(most, float(np.linalg.norm(np.concatenate(whole), 2)))
        assert most <= bound * (1.0 + 1e-12)
        assert bound <= most * (1.0 + 1e-9 + 20.0 * radius)


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of each matrix a direction of norm 1."""
    drawn_: Any = rng.normal(size=shape)
    return np.asarray(drawn_ / np.linalg.norm(drawn_, 2, axis=(-2, -1), keepdims=True))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("box", ["[-1, 1]", "[3, 3.001]"])
def test_saturated_float32_is_no_violation(kind: str, box: str) -> None:
    """Where a gate is flat, float32 may have no correct digit of its slope."""
    text = (
        f"name: n\ninputs:\n  x: {{shape: [batch, 8, 3], range: {box}}}\ninit: {{weight: {{kind: normal, sd: 8}}, bias: zeros}}\n"
        f"layers:\n  - {{kind: {kind}, units: 4, layers: 2, output: last}}\n  - {{kind: dense, units: 2}}\n"
    )
    options = Options(tiers=("sound", "measured"), batch=4, region="range")
    assert analyze(build(spec.loads(text)), options).self_check.violations == ()
