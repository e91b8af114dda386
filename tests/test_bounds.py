"""The sound tier's domains: attacked, compared with exact gains, with published closed forms, and broken on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.sound.attack import attack
from benchmarks.sound.families import FAMILIES, random_model
from vgcompile import spec
from vgcompile.analysis import Options, analyze
from vgcompile.analysis.bounds import ellipsoid, enclosure, latents, points, region, zonotope
from vgcompile.analysis.bounds.ellipsoid import Followed
from vgcompile.analysis.bounds.enclosure import enclose
from vgcompile.analysis.bounds.factors import factors
from vgcompile.analysis.bounds.sweep import backward
from vgcompile.analysis.sound import _seeds, sound
from vgcompile.build import build
from vgcompile.errors import UserError
from vgcompile.graph.network import Network
from vgcompile.interval import Interval
from vgcompile.norms import largest_eigenvalue

Array = np.ndarray[Any, Any]
FORMS = ("everywhere", "range", "ball:0.1", "ball:0.05@linf", "ball:0.01@linf")


def net(layers: str, width: int, init: str = "{kind: normal, sd: 0.125}", box: str = "[-1, 1]", seed: int = 0) -> Network:
    return build(
        spec.loads(
            f"name: n\ninputs:\n  x: {{shape: [batch, {width}], range: {box}}}\n"
            f"init: {{weight: {init}, bias: zeros}}\nlayers:\n{layers}\nseed: {seed}\n"
        )
    )


def chain(depth: int, width: int, activation: str, **facts: Any) -> Network:
    layers = "\n".join(f"  - {{kind: dense, units: {width}, activation: {activation}}}" for _ in range(depth))
    return net(layers, width, **facts)


def residual(depth: int, width: int, share: float) -> Network:
    small = f"{{weight: {{kind: normal, sd: {0.125 * share}}}}}"
    block = f"[{{kind: dense, units: {width}, activation: tanh}}, {{kind: dense, units: {width}, init: {small}}}]"
    return net("\n".join(f"  - {{kind: residual, layers: {block}}}" for _ in range(depth)), width)


def at_input(network: Network, form: str, x: Array | None = None) -> tuple[float, float]:
    """Bounds of the gain from the output to the input, as numbers."""
    (value,) = [v for v in network.model.graph.inputs if v.name == "x"]
    lo, hi = sound(network, region.region(network, form, None if x is None else {"x": x})).total[value]
    return 10.0**lo, 10.0**hi


def matrices(network: Network) -> list[Array]:
    return [v.astype(np.float64) for v in network.parameter_values().values() if v.ndim == 2]


# ------------------------------------------------------------------------------------------------------------------ the region


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bal:0.1", "did you mean 'ball'"),
        ("xyz", "it takes everywhere, range, ball:RADIUS"),
        ("ball:", "as in ball:0.1"),
        ("ball:-1", "not negative"),
        ("ball:inf", "not negative"),
        ("ball:0.1@max", "l2 and linf"),
        ("range:3", "did you mean 'range'"),
    ],
)
def test_a_region_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match="--region") as caught:
        region.parse(text)
    assert said in str(caught.value)


def test_a_ball_needs_a_centre() -> None:
    network = build(spec.loads("name: n\ninputs:\n  x: {shape: [batch, 2]}\nlayers:\n  - {kind: dense, units: 1}\n"))
    with pytest.raises(UserError, match="neither data nor a range"):
        region.region(network, "ball:1")


def test_region_says_what_it_is() -> None:
    network = chain(2, 3, "tanh")
    assert region.region(network, "ball:0.5").text == "ball: l2 distance 0.5 around the centre of the declared range"
    found = analyze(network, Options(region="ball:0.25@linf", batch=5))
    assert found.region == "ball: linf distance 0.25 around each of 5 samples"
    assert found.provenance["data_inside_region"] is True
    assert found.self_check.violations == ()


def test_many_samples_share_one_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a piece for each sample costs too much, one box around all of them still holds what each of them does."""
    network = chain(2, 3, "tanh")
    where = region.region(network, "ball:0.1", {"x": np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)})
    (x,) = [v for v in network.model.graph.inputs if v.name == "x"]
    apart = sound(network, where).total[x]
    monkeypatch.setattr("vgcompile.analysis.sound.MOST_NODES", 1)
    together = sound(network, where).total[x]
    assert together[0] <= apart[0]
    assert apart[1] <= together[1]


# -------------------------------------------------------------------------------------------------------------------- soundness


@pytest.mark.parametrize("seed", range(2 * len(FAMILIES)))
def test_no_attack_leaves_the_bounds(seed: int) -> None:
    """A hundredth of what `python -m benchmarks.sound attack` runs."""
    family, text = random_model(seed)
    assert attack(family, text, FORMS[seed // len(FAMILIES) % len(FORMS)], 200, seed, steps=4).violations == ()


@pytest.mark.parametrize("seed", range(6))
def test_every_pattern_of_a_relu_net_is_inside(seed: int) -> None:
    """Of a net without biases each pattern is met somewhere or not; those that points in all directions meet are exact."""
    network = net("  - {kind: dense, units: 4, activation: relu}\n" * 2, 2, "{kind: normal, sd: 1}", seed=seed)
    first, second = matrices(network)
    angles = np.linspace(0.0, 2.0 * np.pi, 2001)
    gains = []
    for x in np.stack([np.cos(angles), np.sin(angles)], axis=1):
        a = (x @ first > 0.0).astype(float)
        b = ((np.maximum(x @ first, 0.0) @ second) > 0.0).astype(float)
        gains.append(np.linalg.norm((first * a) @ (second * b), 2))
    lo, hi = at_input(network, "everywhere")
    every = [np.linalg.norm((first * a) @ (second * b), 2) for a in product([0, 1], repeat=4) for b in product([0, 1], repeat=4)]
    assert lo <= min(gains)
    assert max(gains) <= hi <= 1.5 * max(every)


@pytest.mark.parametrize("seed", range(len(FAMILIES)))
@pytest.mark.parametrize("form", ["everywhere", "ball:0.1"])
def test_never_looser_than_the_product(seed: int, form: str) -> None:
    """Of every use, against the product of the same factors alone."""
    network = build(spec.loads(random_model(seed)[1]))
    where = region.region(network, form)
    known = enclose(network, where.pieces[0], 0.0)
    alone = backward(network, factors(network, known, 0.0), _seeds(network), Followed({}, {}))
    for use, (lo, hi) in sound(network, where).gain.items():
        assert alone.gain[use][0] <= lo + 1e-9
        assert hi <= alone.gain[use][1] + 1e-9


# -------------------------------------------------------------------------------------------------------------- exact answers


def scalar_slopes(weights: list[float], x: float) -> float:
    gain = 1.0
    for w in weights:
        y = math.tanh(w * x)
        gain, x = gain * w * (1.0 - y * y), y
    return gain


def scalar_chain() -> tuple[Network, list[float]]:
    network = chain(6, 1, "tanh", init="{kind: uniform, range: [0.9, 1.4]}", box="[0.2, 0.6]")
    return network, [float(w[0, 0]) for w in matrices(network)]


def scalar_oracle(room: float = 1e-6) -> None:
    """All slopes fall where all values grow: both ends of the bounds are met at ends of the interval."""
    network, weights = scalar_chain()
    for form in ("range", "ball:0.2", "ball:0.2@linf"):
        lo, hi = at_input(network, form)
        least, most = scalar_slopes(weights, 0.6), scalar_slopes(weights, 0.2)
        assert lo * (1.0 - 1e-9) <= least
        assert most <= hi * (1.0 + 1e-9)
        assert hi <= most * (1.0 + room) or room < 0.0


def vector_oracle() -> None:
    """Gains at points of the region, of a chain and of a residual stack whose bounds are within a few percent of them."""
    rng = np.random.default_rng(0)
    for network, form, radius in (
        (chain(3, 8, "tanh", init="orthogonal"), "ball:0.3", 0.3),
        (residual(4, 8, 4.0), "ball:0.5", 0.5),
    ):
        centre = 0.5 * rng.normal(size=(1, 8)).astype(np.float32)
        lo, hi = at_input(network, form, centre)
        for _ in range(300):
            step = rng.normal(size=8)
            values = np.linalg.svd(jacobian(network, centre[0] + radius * step / np.linalg.norm(step)), compute_uv=False)
            assert values[0] <= hi
            assert lo <= values[-1]


def range_oracle() -> None:
    """Values lie in their ranges: where each unit of the first layer is greatest, and at both ends of a scalar net."""
    network = chain(3, 8, "tanh", init="{kind: normal, sd: 0.5}")
    centre = 0.3 * np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
    for form, radius in (("ball:0.2", 0.2), ("ball:0.1@linf", 0.1)):
        steps = [np.sign(w) if "linf" in form else w / np.linalg.norm(w) for w in matrices(network)[0].T]
        inside(
            network,
            region.region(network, form, {"x": centre}),
            [centre[0] + radius * s * step for step in steps for s in (-1, 1)],
        )
    scalar, _ = scalar_chain()
    for form in ("range", "ball:0.2"):
        inside(scalar, region.region(scalar, form), [np.array([0.2]), np.array([0.6])])


def point_oracle() -> None:
    """Values that are known as points with radii: all functions rise, so that the ends of a narrow interval go to the ends."""
    ends = 0.2, 0.2 + 6e-11
    narrow = chain(6, 1, "tanh", init="{kind: uniform, range: [0.9, 1.4]}", box=f"[{ends[0]!r}, {ends[1]!r}]")
    inside(narrow, region.region(narrow, "range"), [np.array([end]) for end in ends])


def inside(network: Network, where: region.Region, points: list[Array]) -> None:
    ranges = sound(network, where).ranges
    made = [v for node in network.model.graph for v in node.outputs]
    for x in points:
        for index, w in enumerate(matrices(network)):
            z, x = x @ w, np.tanh(x @ w)
            for v, value in ((made[2 * index], z), (made[2 * index + 1], x)):
                assert (ranges[v].lo <= value + 1e-12).all()
                assert (value - 1e-12 <= ranges[v].hi).all()


def jacobian(network: Network, x: Array) -> Array:
    """d output / d input [n, m] of a chain or a residual stack of tanh."""
    found, weights = np.eye(len(x)), matrices(network)
    if "Add" not in {node.op_type for node in network.model.graph if not node.name.endswith("bias")}:
        for w in weights:
            z = x @ w
            found, x = found @ (w * (1.0 - np.tanh(z) ** 2)), np.tanh(z)
        return found
    for w, v in zip(weights[::2], weights[1::2], strict=True):
        z = x @ w
        found, x = found @ (np.eye(len(x)) + (w * (1.0 - np.tanh(z) ** 2)) @ v), x + np.tanh(z) @ v
    return found


ORACLES: dict[str, Callable[[], None]] = {
    "scalar": scalar_oracle,
    "vector": vector_oracle,
    "range": range_oracle,
    "point": point_oracle,
}


@pytest.mark.parametrize("oracle", ORACLES)
def test_exact_answers(oracle: str) -> None:
    ORACLES[oracle]()


# ----------------------------------------------------------------------------------------------------- broken on purpose


def scaled(f: Callable[..., Any], factor: float) -> Callable[..., Any]:
    return lambda *a, **k: f(*a, **k) * factor


def _narrow(bound: Interval) -> tuple[Array, Array]:
    middle, radius = zonotope.middle_and_radius(bound)
    return middle, 0.5 * radius


AT_CENTRE = zonotope.Step.at_centre


def _beside(step: zonotope.Step, centres: Any) -> Any:
    found = AT_CENTRE(step, centres)
    return found and (found[0] + 0.05, found[1])


BROKEN: dict[str, tuple[Any, str, Any]] = {
    "slopes of adjoints": (ellipsoid, "middle_and_radius", _narrow),
    "largest eigenvalue": (latents, "largest_eigenvalue", scaled(largest_eigenvalue, 0.9)),
    "what a zonotope may be": (zonotope.Zonotopes, "radius", scaled(zonotope.Zonotopes.radius, 0.8)),
    "slopes of a zonotope": (zonotope, "middle_and_radius", lambda bound: (bound.lo, 0.0 * bound.lo)),
    "extent of an ellipsoid": (latents.Latents, "extent", scaled(latents.Latents.extent, 0.8)),
    "rows of the centre": (latents.Latents, "deviations", lambda self, v: np.zeros(len(v.map))),
    "distance from the centre": (latents.Latents, "deviation", lambda self, v: 0.0),
    "values at the centre": (zonotope.Step, "at_centre", _beside),
    "norms of a point": (enclosure, "_norm", scaled(enclosure._norm, 0.8)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, instead = BROKEN[name]
    monkeypatch.setattr(where, attribute, instead)
    seen = 0
    for oracle in ORACLES.values():
        try:
            oracle()
        except AssertionError:
            seen += 1
    assert seen


# --------------------------------------------------------------------------------------------------------------- tightness


def test_what_contracts_to_a_point_stays_one() -> None:
    """Where nothing is left of the input, slopes are known to the end, however deep the network is."""
    network = chain(120, 16, "tanh", init="{kind: normal, sd: 0.1}", box="[-3, 3]")
    network.model.graph.initializers["dense_60/bias"].const_value = ir.Tensor(np.linspace(-0.5, 0.5, 16, dtype=np.float32))
    tier = sound(network, "range")
    made = [node for node in network.model.graph if node.op_type == "Tanh"]
    widths = [float((tier.ranges[node.outputs[0]].hi - tier.ranges[node.outputs[0]].lo).max()) for node in made]
    assert widths[0] > 0.5
    assert max(widths[40:]) < points.KEPT
    for node in made[40:]:
        lo, hi = tier.ranges[node.inputs[0]].lo, tier.ranges[node.inputs[0]].hi
        slopes = 1.0 - np.tanh(0.5 * (lo + hi)) ** 2
        assert tier.local[node, 0] == pytest.approx((math.log10(slopes.min()), math.log10(slopes.max())), abs=1e-8)


def test_a_point_meets_what_is_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of a value that is a point by now and of the input is bounded as if no value were a point."""
    deep = ", ".join("{kind: dense, units: 8, activation: tanh}" for _ in range(25))
    head = "  - {kind: dense, units: 8, activation: tanh}\n  - {kind: dense, units: 8}"
    network = net(f"  - {{kind: residual, layers: [{deep}]}}\n{head}", 8, init="{kind: normal, sd: 0.15}")
    last = network.model.graph[-1].outputs[0]
    found = sound(network, "range").ranges[last]
    monkeypatch.setattr(points.Points, "step", lambda *_: None)
    without = sound(network, "range").ranges[last]
    assert found.lo == pytest.approx(without.lo, abs=1e-7)
    assert found.hi == pytest.approx(without.hi, abs=1e-7)


def test_sigmoid_chain_near_a_point() -> None:
    """The reference's 5 x 64 at l-infinity radius 0.01: within 1.1 of the gain at the centre, from above."""
    network = chain(5, 64, "sigmoid")
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    found, point = np.eye(64), x[0].astype(np.float64)
    for w in matrices(network):
        y = 1.0 / (1.0 + np.exp(-(point @ w)))
        found, point = found @ (w * y * (1.0 - y)), y
    assert np.linalg.norm(found, 2) <= at_input(network, "ball:0.01@linf", x)[1] <= 1.1 * np.linalg.norm(found, 2)


def test_residual_stack_near_a_point() -> None:
    """Branches of 1 / L: I + J together, from above and from below."""
    network = residual(20, 16, 0.4)
    x = np.random.default_rng(0).normal(size=(1, 16)).astype(np.float32)
    values = np.linalg.svd(jacobian(network, x[0].astype(np.float64)), compute_uv=False)
    lo, hi = at_input(network, "ball:0.1", x)
    assert values[0] <= hi <= 1.1 * values[0]
    assert 0.6 * values[-1] <= lo <= values[-1]


@pytest.mark.parametrize(("activation", "most"), [("sigmoid", 0.25), ("tanh", 1.0)])
def test_closed_form_of_slopes_that_start_at_zero(activation: str, most: float) -> None:
    """ECLipsE-Fast: X = lambda I - (lambda m)^2 Y, lambda = 1 / (2 m^2 ||Y||), Y' = W X^-1 W^T, for slopes in [0, 2 m]."""
    network = chain(5, 12, activation, init="{kind: normal, sd: 0.3}")
    weights, m = matrices(network), most / 2.0
    y = np.eye(12)
    for w in reversed(weights):
        scale = 1.0 / (2.0 * m * m * np.linalg.norm(y, 2))
        y = w @ np.linalg.inv(scale * np.eye(12) - (scale * m) ** 2 * y) @ w.T
    assert at_input(network, "everywhere")[1] <= math.sqrt(np.linalg.norm(y, 2)) * (1.0 + 1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu"])
def test_bounds_grow_with_the_region(activation: str) -> None:
    network = chain(4, 6, activation, init="he_normal")
    x = np.random.default_rng(3).normal(size=(1, 6)).astype(np.float32)
    ends = [at_input(network, form, x) for form in ("ball:0", "ball:0.01", "ball:0.1", "ball:1", "everywhere")]
    assert all(a[1] <= b[1] * (1.0 + 1e-6) and b[0] <= a[0] * (1.0 + 1e-6) for a, b in pairwise(ends))
    assert ends[0][0] <= ends[0][1]


def test_scaling_the_weights_scales_the_bounds() -> None:
    """Of a ReLU net without biases, three times each weight is 3^L times each bound."""
    one, three = (chain(3, 5, "relu", init=f"{{kind: normal, sd: {sd}}}") for sd in (0.5, 1.5))
    assert at_input(three, "everywhere")[1] == pytest.approx(27.0 * at_input(one, "everywhere")[1], rel=1e-5)


@pytest.mark.parametrize(("activation", "init"), [("sigmoid", "pytorch_default"), ("tanh", "{kind: normal, sd: 8}")])
@pytest.mark.parametrize("form", ["everywhere", "ball:0.1"])
def test_what_has_vanished_or_exploded_keeps_its_bound(activation: str, init: str, form: str) -> None:
    """Squares of 1e-200 are 0 in a double, and those of 1e200 infinite: bounds are neither, and above the gain at a point."""
    network = chain(300, 3, activation, init=init)
    (value,) = [v for v in network.model.graph.inputs if v.name == "x"]
    lo, hi = sound(network, region.region(network, form)).total[value]
    x, found, log = np.zeros(3), np.eye(3), 0.0
    for w in matrices(network):
        z = x @ w
        x = np.tanh(z) if activation == "tanh" else 1.0 / (1.0 + np.exp(-z))
        found = found @ (w * (1.0 - x * x if activation == "tanh" else x * (1.0 - x)))
        size = np.linalg.norm(found, 2)
        found, log = found / size, log + math.log10(size)
    assert lo <= log <= hi < math.inf
    assert log < -100.0 or activation == "tanh"
