"""Attacks on the sound tier: small graphs on which a careless bound is too small, run at the input and adjoint that show it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from vgcompile import spec
from vgcompile.analysis import Analysis, Options, analyze
from vgcompile.analysis.bounds.logs import combine
from vgcompile.analysis.measured import Measured, Meter
from vgcompile.analysis.selfcheck import float32_bounds, self_check
from vgcompile.analysis.sound import sound
from vgcompile.build import build
from vgcompile.graph.load import load
from vgcompile.graph.network import Network
from vgcompile.interval import interval
from vgcompile.ops import OPS
from vgcompile.ops.op import Case

Array = np.ndarray[Any, Any]
HEADER = '<ir_version: 10, opset_import: ["": 21]> g '


def network(folder: Path, text: str, **options: str) -> Network:
    """A graph in ONNX's text form, loaded as a foreign file."""
    model = onnx.parser.parse_model(HEADER + text)
    onnx.save(model, folder / "g.onnx")
    return load(folder / "g.onnx", **options)


def attack(folder: Path, text: str, **arrays: Array) -> Analysis:
    """Measure on these inputs and, where there is no loss, the adjoints ``adj_<output>``; no edge may leave its bounds."""
    given = {
        name.replace("adj_", "adj."): array if array.dtype.kind == "i" else array.astype(np.float32)
        for name, array in arrays.items()
    }
    np.savez(folder / "data.npz", **given)
    opened = network(folder, text)
    seeded = any(name.startswith("adj.") for name in given)
    found = analyze(opened, Options(data=str(folder / "data.npz"), tiers=("sound", "measured"), seed_input=seeded))
    assert found.self_check.violations == ()
    assert not any(math.isnan(end) for bounds in sound(opened, "everywhere").gain.values() for end in bounds)
    assert any(edge.gain.measured is not None for edge in found.edges)
    return found


N, T = 7, 5
ONES = np.ones
COUPLED = {
    "bias over a symbolic axis": (
        "(float[N,T,3] x) => (float[N,T,3] y) <float[3] b = {1,2,3}> { y = Add(x, b) }",
        {"x": ONES((N, T, 3)), "adj_y": ONES((N, T, 3))},
    ),
    "data over a symbolic axis": (
        "(float[N,1,3] x, float[N,T,3] z) => (float[N,T,3] y) { a = Tanh(x) b = Tanh(z) y = Add(a, b) }",
        {"x": ONES((N, 1, 3)), "z": ONES((N, T, 3)), "adj_y": ONES((N, T, 3))},
    ),
    "a transposed weight": (
        "(float[N,3] x) => (float[N,3] y) <float[3,3] w = {1,2,0,-1,1,0.5,2,0,1}> "
        "{ a = Tanh(x) n = Neg(w) t = Transpose(n) y = MatMul(a, t) }",
        {"x": 99 * ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a prepared bias": (
        "(float[N,3] x) => (float[N,3] y) <float[3] b = {1,2,3}> { a = Tanh(b) y = Add(x, a) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a prepared bias, expanded": (
        "(float[N,3] x) => (float[N,3] y) <float[3] b = {1,2,3}> { a = Tanh(b) s = Shape(x) e = Expand(a, s) y = Add(x, e) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a Gram matrix": (
        "(float[N,3] x) => (float[N,N] y) { t = Transpose(x) y = MatMul(x, t) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, N))},
    ),
    "similarities of two embeddings": (
        "(float[N,3] x, float[N,3] z) => (float[N,N] y) { a = Tanh(x) b = Tanh(z) t = Transpose(b) y = MatMul(a, t) }",
        {"x": ONES((N, 3)), "z": ONES((N, 3)), "adj_y": ONES((N, N))},
    ),
    "the mean of a batch": (
        "(float[N,3] x) => (float[N,3] y) <int64[1] zero = {0}> "
        "{ m = ReduceMean<keepdims = 1>(x, zero) a = Tanh(m) y = Sub(x, a) }",
        {"x": 0.01 * ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "the mean of a batch, against a matrix": (
        "(float[N,3] x) => (float[N,3] y) <int64[1] zero = {0}> "
        "{ m = ReduceMean<keepdims = 0>(x, zero) a = Tanh(m) e = Unsqueeze(a, zero) t = Transpose(e) "
        "d = MatMul(t, e) b = Tanh(x) y = MatMul(b, d) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "time first": (
        "(float[T,N,3] x) => (float[1,N,3] y) <float[3,3] w = {1,2,0,-1,1,0.5,2,0,1}, int64[1] zero = {0}> "
        "{ a = ReduceMax<keepdims = 0>(x, zero) t = Tanh(a) m = MatMul(t, w) y = Unsqueeze(m, zero) }",
        {"x": 99 * ONES((1, N, 3)), "adj_y": ONES((1, N, 3))},
    ),
    "samples and positions in one axis, dense": (
        "(float[N,4,3] x) => (float[N,4,3] y) "
        "<float[3,3] w = {1,2,0,-1,1,0.5,2,0,1}, int64[2] s = {-1,3}, int64[3] r = {-1,4,3}> "
        "{ a = Reshape(x, s) b = Tanh(a) c = MatMul(b, w) y = Reshape(c, r) }",
        {"x": 99 * ONES((N, 4, 3)), "adj_y": ONES((N, 4, 3))},
    ),
    "samples and positions in one axis, convolution": (
        "(float[N,4,1,3] x) => (float[N,4,1,3] y) "
        "<float[1,1,1] w = {2}, float[1] b = {1}, int64[3] s = {-1,1,3}, int64[4] r = {-1,4,1,3}> "
        "{ c = Softsign(x) a = Reshape(c, s) d = Sigmoid(a) e = Conv(d, w, b) y = Reshape(e, r) }",
        {"x": 100 * ONES((N, 4, 1, 3)), "adj_y": ONES((N, 4, 1, 3))},
    ),
    "a convolution's bias over a symbolic axis": (
        "(float[N,1,T] x) => (float[N,1,T] y) <float[1,1,1] w = {2}, float[1] b = {1}> { y = Conv(x, w, b) }",
        {"x": ONES((N, 1, T)), "adj_y": ONES((N, 1, T))},
    ),
    "samples looked up": (
        "(float[N,3] x, int64[N] i) => (float[N,3] y) { a = Tanh(x) y = Gather(a, i) }",
        {"x": ONES((N, 3)), "i": np.zeros(N, np.int64), "adj_y": ONES((N, 3))},
    ),
    "positions looked up by the batch": (
        "(float[N,4] x, int64[N] i) => (float[N,N] y) { a = Tanh(x) y = Gather<axis = 1>(a, i) }",
        {"x": ONES((N, 4)), "i": np.zeros(N, np.int64), "adj_y": ONES((N, N))},
    ),
    "elements of samples looked up": (
        "(float[N,1] x, int64[N,1] i) => (float[N,1] y) { a = Tanh(x) y = GatherElements<axis = 0>(a, i) }",
        {"x": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": ONES((N, 1))},
    ),
    "slices of samples looked up": (
        "(float[N,1] x, int64[N,1] i) => (float[N,1] y) { a = Tanh(x) y = GatherND(a, i) }",
        {"x": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": ONES((N, 1))},
    ),
    "samples added up": (
        "(float[N,1] x, float[N,1] u, int64[N,1] i) => (float[N,1] y) "
        '{ a = Tanh(x) b = Tanh(u) y = ScatterElements<axis = 0, reduction = "add">(a, i, b) }',
        {"x": ONES((N, 1)), "u": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": np.eye(N, 1)},
    ),
    "two outputs": (
        "(float[N,3] x) => (float[N,3] y, float[N,3] z) { a = Tanh(x) y = Neg(a) z = Neg(a) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3)), "adj_z": 0.01 * ONES((N, 3))},
    ),
    "statistics of a normalization": (
        "(float[N,3] x) => (float[N,3] y, float[N,1] m, float[N,1] v) <float[3] s = {1,1,1}> "
        "{ a = Tanh(x) y, m, v = LayerNormalization<epsilon = 0.01>(a, s) }",
        {"x": np.tile([0.0, 0.1, -0.1], (N, 1)), "adj_y": np.zeros((N, 3)), "adj_m": np.zeros((N, 1)), "adj_v": ONES((N, 1))},
    ),
    "whole numbers": (
        "(float[N,1] x, int64[N,1] k) => (float[N,1] y) <float[1] h = {1.5}> "
        "{ s = Sigmoid(x) a = Add(s, h) c = CastLike(a, k) f = Cast<to = 1>(c) b = Tanh(x) y = Mul(b, f) }",
        {"x": -9 * ONES((N, 1)), "k": np.full((N, 1), 3), "adj_y": ONES((N, 1))},
    ),
    "without epsilon": (
        "(float[N,3] x) => (float[N,3] y) <float[3] s = {1,1,1}> { y = LayerNormalization<epsilon = 0.0>(x, s) }",
        {"x": np.tile([1.0, 2.0, 0.5], (N, 1)), "adj_y": ONES((N, 3)) * np.arange(3)},
    ),
    "unbounded after dead": (
        "(float[N,3] x) => (float[N,3] y) { e = Exp(x) n = Neg(e) r = Relu(n) "
        "a = Mul(x, x) b = Mul(a, r) c = Add(a, b) y = Mul(c, c) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_no_bound_is_too_small(name: str, tmp_path: Path) -> None:
    text, arrays = COUPLED[name]
    attack(tmp_path, text, **arrays)


def gains(opened: Network, region: str = "everywhere") -> dict[str, tuple[float, float]]:
    return {f"{node.op_type}#{position}": bounds for (node, position), bounds in sound(opened, region).gain.items()}


def relative(opened: Network, value: str, reference: str) -> tuple[float, float]:
    """Bounds of ||adjoint of value|| / ||adjoint of reference||."""
    named = {v.name: v for node in opened.model.graph for v in node.outputs} | {v.name: v for v in opened.model.graph.inputs}
    return sound(opened, "everywhere").relative_to(named[reference])[named[value]]


AROUND = {
    "another output of the same node": "(float[N,4] x) => (float[N,2] y) <int64[2] s = {2,2}> "
    "{ v = Neg(x) a, b = Split<axis = 1>(v, s) r = Tanh(a) y = Add(r, b) }",
    "an output on the way": "(float[N,2] x) => (float[N,2] y, float[N,2] v) { v = Neg(x) a = Neg(v) r = Tanh(a) y = Neg(r) }",
    "a skip": "(float[N,2] x) => (float[N,2] y) { v = Neg(x) a = Neg(v) r = Tanh(a) y = Add(r, v) }",
}


@pytest.mark.parametrize("text", AROUND.values(), ids=AROUND)
def test_a_way_around_the_reference_counts(text: str, tmp_path: Path) -> None:
    """Where tanh saturates nothing passes through the reference, and all of it around."""
    opened = network(tmp_path, text)
    assert relative(opened, "v", "a")[1] == math.inf
    assert relative(opened, "a", "r") == pytest.approx((-math.inf, 0.0), abs=1e-10)


def test_a_way_around_the_outputs_counts(tmp_path: Path) -> None:
    """The loss reads a hidden value beside its output: dL/dy bounds nothing above that value."""
    text = (
        "(float[N,2] x, float[N,2] t) => (float loss, float[N,2] y) <float[2] b = {1,2}> "
        "{ h = Add(x, b) u = Neg(h) y = Neg(u) d = Sub(y, t) p = Mul(h, d) e = Add(d, p) loss = ReduceMean<keepdims = 0>(e) }"
    )
    opened = network(tmp_path, text)
    assert opened.outputs == ("y",)
    found = {f"{node.name}#{position}": bounds for (node, position), bounds in sound(opened, "everywhere").gain.items()}
    assert found["/Neg/2#0"] == pytest.approx((0.0, 0.0), abs=1e-9)
    assert found["/Add/0#1"][1] == math.inf


def test_what_the_loss_does_not_read_changes_nothing(tmp_path: Path) -> None:
    text = (
        "(float[N,2] x, float[N,2] t) => (float loss, float[N,2] y, float[N,2] z) <float[2] b = {1,2}> "
        "{ h = Add(x, b) y = Neg(h) z = Tanh(h) d = Sub(y, t) p = Mul(d, d) loss = ReduceMean<keepdims = 0>(p) }"
    )
    assert gains(network(tmp_path, text))["Add#1"][1] == pytest.approx(0.0, abs=1e-9)


def test_a_small_part_may_cancel_the_least_of_a_large_one() -> None:
    """1 + 1e-17 is 1 in a double, and yet 1e-17 may cancel 1e-40."""
    assert combine([(-40.0, 0.0), (-math.inf, -17.0)])[0] == -math.inf
    assert combine([(-40.0, 0.0), (-math.inf, -41.0)])[0] == pytest.approx(math.log10(0.9e-40))


def test_a_sum_keeps_what_its_partial_sums_round_away(tmp_path: Path) -> None:
    """1e16 + 1 - 1e16 is 1, not the 0 that doubles give."""
    text = "(float[N,1] x) => (float[N,1] y) { y = Sum(x, x, x) }"
    (node,) = network(tmp_path, text).model.graph
    case = Case(ranges=(interval(1e16, 1e16), interval(1.0, 1.0), interval(-1e16, -1e16)))
    assert OPS[node.op_type].range(case).contains(np.ones(()))


def test_side_by_side_is_no_sum(tmp_path: Path) -> None:
    """A tensor cut into pieces gets all of its adjoint back, and no more: not the root of 2 that each piece alone allows."""
    text = "(float[N,4] x) => (float[N,4] y) { v = Neg(x) a, b = Split<axis = 1, num_outputs = 2>(v) y = Concat<axis = 1>(a, b) }"
    assert gains(network(tmp_path, text))["Neg#0"] == pytest.approx((0.0, 0.0), abs=1e-9)


# ------------------------------------------------------------------------------------------------------- tight where it can be


def chain(depth: int, width: int, activation: str, *, weight: str, bias: str = "zeros", box: str = "[-1, 1]") -> str:
    return (
        f"name: chain\ninputs:\n  x: {{shape: [batch, {width}], range: {box}}}\n  t: {{shape: [batch, {width}]}}\n"
        f"init: {{weight: {weight}, bias: {bias}}}\nlayers:\n"
        f"  - {{kind: block, name: h, repeat: {depth}, layers: [{{kind: dense, units: {width}{activation}}}]}}\n"
        f"  - {{kind: dense, name: out, units: {width}}}\nloss: {{kind: mse, input: out, target: t}}\n"
    )


def test_orthogonal_chain_has_no_slack() -> None:
    """Every gain is 1, from above and from below, however deep; a parameter's bound is reached at a corner of the box."""
    opened = build(spec.loads(chain(50, 4, "", weight="orthogonal")))
    for (_, position), (lo, hi) in sound(opened, "range").gain.items():
        if position == 0:
            assert lo == pytest.approx(0.0, abs=1e-6)
            assert hi == pytest.approx(0.0, abs=1e-6)
    first = next(node for node in opened.model.graph)
    bound = sound(opened, "range").gain[first, 1][1]
    meter = Meter(replace(opened, loss=None))
    x = ONES((N, 4), np.float32)
    run = meter.measure({"x": x, "t": x, f"adj.{opened.outputs[0]}": x})
    assert math.log10(run.parts[f"{first.name}#1"] / (math.sqrt(N) * run.norm)) == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_weights_of_any_size(scale: float, tmp_path: Path) -> None:
    """Two singular values, both reached by an adjoint along them."""
    text = f"(float[N,2] x) => (float[N,2] y) <float[2,2] w = {{{3 * scale},0,0,{-2 * scale}}}> {{ a = Neg(x) y = MatMul(a, w) }}"
    lo, hi = gains(network(tmp_path, text))["Neg#0"]
    assert (10**lo, 10**hi) == pytest.approx((2 * scale, 3 * scale), rel=1e-6)
    for direction in np.eye(2):
        attack(tmp_path, text, x=ONES((N, 2)), adj_y=np.tile(direction, (N, 1)))


def test_rank_deficient_weight_has_no_least_gain(tmp_path: Path) -> None:
    text = "(float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,2,4}> { a = Neg(x) y = MatMul(a, w) }"
    lo, hi = gains(network(tmp_path, text))["MatMul#0"]
    assert lo < -12.0
    assert 10**hi == pytest.approx(5.0)
    attack(tmp_path, text, x=ONES((1, 2)), adj_y=np.array([[2.0, -1.0]]))


# ------------------------------------------------------------------------------------------------ the self-check is no excuse


@pytest.mark.parametrize("depth", [50, 200])
@pytest.mark.parametrize("shift", [1.001, 1 / 1.001])
def test_self_check_sees_one_part_in_a_thousand(depth: int, shift: float) -> None:
    """In an orthogonal net every measured gain is 1: one that is off by a thousandth is a violation on every edge."""
    opened = build(spec.loads(chain(depth, 4, "", weight="orthogonal")))
    found = analyze(opened, Options(tiers=("sound", "measured"), batch=2))
    assert found.self_check.violations == ()
    edges = [e for e in found.edges if e.role == "activation" and e.gain.measured is not None and e.target.startswith("/h/")]
    shifted = [replace(e, gain=replace(e.gain, measured=e.gain.measured + math.log10(shift))) for e in edges]
    run = Measured(1.0, {e.id: 1.0 for e in edges}, {}, {}, {}, None, {})
    judged = self_check(shifted, [run], True, lambda: float32_bounds(opened, "range"))
    assert len(judged.violations) == len(edges)


def test_self_check_sees_a_gradient_that_is_not_there() -> None:
    opened = build(spec.loads(chain(2, 4, "", weight="orthogonal")))
    (edge, *_) = analyze(opened, Options(tiers=("sound", "measured"), batch=2)).edges
    silent = replace(edge, gain=replace(edge.gain, measured=None, why={"measured": "zero"}))
    run = Measured(1.0, {edge.id: 0.0}, {}, {}, {}, None, {})
    assert self_check([silent], [run], True, lambda: float32_bounds(opened, "range")).violations


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "silu", "mish", "elu", "softsign"])
def test_saturated_float32_is_no_violation(activation: str) -> None:
    """Where an activation is flat, float32 may have no correct digit of its slope; the stated set is almost a point."""
    for seed in range(3):
        text = chain(
            20, 1, f", activation: {activation}", weight="{kind: normal, sd: 3}", bias="{kind: normal, sd: 3}", box="[3, 3.001]"
        )
        assert (
            analyze(build(spec.loads(text), seed=seed), Options(tiers=("sound", "measured"), batch=4)).self_check.violations == ()
        )


@pytest.mark.parametrize(("activation", "seed"), [("silu", 1), ("gelu", 11)])
def test_a_value_of_cancelled_terms_is_no_violation(activation: str, seed: int) -> None:
    """At -14 a float32 sigmoid has two correct digits, for a runtime computes 1/2 + r(x); so has what the next layer reads."""
    spread = "{kind: normal, sd: 3}"
    text = chain(20, 1, f", activation: {activation}", weight=spread, bias=spread, box="[3, 3.001]")
    options = Options(tiers=("sound", "measured"), batch=4, region="range")
    assert analyze(build(spec.loads(text), seed=seed), options).self_check.violations == ()


@pytest.mark.parametrize(("depth", "activation", "weight"), [(200, "", "orthogonal"), (200, ", activation: relu", "he_normal")])
def test_deep_float32_is_no_violation(depth: int, activation: str, weight: str) -> None:
    text = chain(depth, 32, activation, weight=weight, box="[1, 1.001]")
    assert analyze(build(spec.loads(text)), Options(tiers=("sound", "measured"), batch=4)).self_check.violations == ()


def test_bounds_are_not_held_against_other_weights() -> None:
    """A run with parameters drawn anew says nothing of the bounds for these."""
    opened = build(spec.loads(chain(3, 2, "", weight="{kind: normal, sd: 1}")))
    assert analyze(opened, Options(tiers=("sound", "measured"), seed=opened.seed + 1)).self_check.violations == ()
