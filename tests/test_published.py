"""Numbers of the literature, from the table, the quadrature and the expected tier: docs/theory.md lists them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.expected.cases import dense
from benchmarks.expected.measuring import opened
from vgcompile.analysis.expected import ExpectedTier, expected
from vgcompile.analysis.uses import parameter_layers
from vgcompile.graph.network import Network
from vgcompile.initial import Initial
from vgcompile.ops import NUMPY, OPS
from vgcompile.ops.op import Case, at
from vgcompile.ops.reading import slope
from vgcompile.quadrature import Gaussian, gaussian
from vgcompile.signal import Signal

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Gelu": {"approximate": "none"},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805},
}


def at_nodes(operator: str, variance: float) -> tuple[Gaussian, Any, Any]:
    """The quadrature, and an activation and its slope at its nodes."""
    row, attributes = OPS[operator], DEFAULTS.get(operator, {})
    nodes = gaussian(0.0, variance, at(row.kinks, attributes))
    return nodes, row.numpy(nodes.x, **attributes), slope(NUMPY, row, 0, (nodes.x,), **attributes)  # type: ignore[misc]


def settled(operator: str, weights: float, bias: float) -> tuple[float, float]:
    """The length map's fixed point q*, and chi_1 = sigma_w^2 E[phi'^2] there (Poole 2016, Schoenholz 2017)."""
    q = 1.0
    for _ in range(4000):
        nodes, phi, _ = at_nodes(operator, q)
        before, q = q, weights * nodes.mean(phi * phi) + bias
        if abs(q - before) < 1e-13 * q:
            break
    nodes, _, d = at_nodes(operator, q)
    return q, weights * nodes.mean(d * d)


# E[phi^2], E[phi'^2], 1 / sqrt(Var phi) exactly and as published with NFNets (Brock 2021), a batch-norm net's squared rate.
CONSTANTS = [
    ("Relu", 0.5, 0.5, 1.712859, 1.7139588594436646, 1.4669),
    ("LeakyRelu", 0.50005, 0.50005, 1.704832, 1.70590341091156, 1.4533),
    ("Gelu", 0.425221, 0.455851, 1.700926, 1.7015043497085571, 1.3188),
    ("Swish", 0.355776, 0.379482, 1.787187, 1.7881293296813965, 1.2121),
    ("Elu", 0.644945, 0.668102, 1.270843, 1.2716004848480225, 1.0790),
    ("Selu", 1.0, 1.071575, 1.0, 1.0008515119552612, 1.0716),
    ("Tanh", 0.394294, 0.464403, 1.592537, 1.5939117670059204, 1.1778),
    ("Sigmoid", 0.293379, 0.044836, 4.801313, 4.803835391998291, 1.0336),
    ("Softplus", 0.921246, 0.293379, 1.919126, 1.9203323125839233, 1.0805),
]


@pytest.mark.parametrize(("operator", "square", "slopes", "exact", "published", "rate"), CONSTANTS, ids=[c[0] for c in CONSTANTS])
def test_gains_of_activations(operator: str, square: float, slopes: float, exact: float, published: float, rate: float) -> None:
    """NFNet's gains are sampled estimates: 0.03 to 0.09 % above the integrals."""
    nodes, phi, d = at_nodes(operator, 1.0)
    variance = nodes.mean(phi * phi) - nodes.mean(phi) ** 2
    assert (nodes.mean(phi * phi), nodes.mean(d * d)) == pytest.approx((square, slopes), abs=1.5e-6)
    assert variance**-0.5 == pytest.approx(exact, abs=1e-6)
    assert variance**-0.5 == pytest.approx(published, rel=1e-3)
    assert nodes.mean(d * d) / variance == pytest.approx(rate, abs=1e-4)


PHASES = [  # sigma_w^2, sigma_b^2, q*, chi_1
    (1.0, 0.05, 0.193593, 0.759032),
    (1.3, 0.05, 0.315316, 0.880164),
    (1.5, 0.05, 0.418037, 0.938636),
    (1.760955, 0.05, 0.570048, 1.0),
    (2.5, 0.05, 1.063958, 1.133516),
    (4.0, 0.05, 2.195494, 1.342402),
    (1.05, 2.01e-5, 0.025921, 1.0),  # Pennington 2017, Xiao 2018
    (3.0, 0.0, 1.345393, 1.238797),
    (1.189190, 1e-3, None, 1.0),
    (1.424205, 0.01, None, 1.0),
    (1.986073, 0.1, None, 1.0),
    (2.505127, 0.3, None, 1.0),
]


@pytest.mark.parametrize(("weights", "bias", "length", "chi"), PHASES)
def test_phases_of_tanh(weights: float, bias: float, length: float | None, chi: float) -> None:
    """Schoenholz 2017: the critical line, and both sides of it."""
    found = settled("Tanh", weights, bias)
    assert found[1] == pytest.approx(chi, abs=2e-6)
    if length is not None:
        assert found[0] == pytest.approx(length, abs=2e-6)


SIGMOIDS = [
    (1 / 3, 0.14145),
    (1, 0.23605),
    (2, 0.31777),
    (4, 0.41422),
    (8, 0.51982),
    (16, 0.63157),
    (32, 0.75311),
    (103.008, 1.0),
]


@pytest.mark.parametrize(("weights", "rate"), SIGMOIDS)
def test_rates_of_sigmoid(weights: float, rate: float) -> None:
    """The rate is sigma_w sqrt(E[phi'^2]), not 0.25."""
    assert math.sqrt(settled("Sigmoid", weights, 0.0)[1]) == pytest.approx(rate, abs=1e-5)


def predicted(text: str, batch: int) -> tuple[Network, ExpectedTier]:
    network = opened(text)
    return network, expected(network, batch, {"x": Signal(0.0, 1.0, 0.0, 0.0)})


def hidden(network: Network, tier: ExpectedTier) -> list[float]:
    """Natural logs of the predicted gains of the hidden pre-activations, from the input on."""
    logs = [tier.total[layer.value].mean for layer in parameter_layers(network)[:-1] if layer.linear]
    assert all(log is not None for log in logs)
    return [math.log(10.0) * float(log or 0.0) for log in logs]


@pytest.mark.parametrize("ratio", [0.065741 / 0.309218, 0.011838 / 0.059965, 0.059965 / 0.283142])
def test_nielsens_network(ratio: float) -> None:
    """Nielsen, ch. 5: norms of neighbouring layers' gradients before training, widths of 30, sigma_w = sigma_b = 1."""
    network, tier = predicted(dense("nielsen", 4, "sigmoid", 1.0, "{kind: normal, sd: 1.0}", width=30), 64)
    logs = hidden(network, tier)
    assert math.exp(logs[1] - logs[2]) == pytest.approx(0.20484, rel=0.02)
    assert math.exp(logs[1] - logs[2]) == pytest.approx(ratio, rel=0.06)


CHAINS = [("sigmoid", 1.0, 1.090e-12, 1.052e-12), ("tanh", 1.0, 0.1946, 0.1927), ("relu", 1.0, 1.376e-3, 1.501e-3)]


@pytest.mark.parametrize(("activation", "weights", "theory", "simulated"), CHAINS, ids=[c[0] for c in CHAINS])
def test_chains_of_twenty_layers(activation: str, weights: float, theory: float, simulated: float) -> None:
    """First against last pre-activation, width 256; eight simulated initializations scatter by a tenth behind ReLU."""
    network, tier = predicted(dense("chain", 20, activation, weights), 32)
    logs = hidden(network, tier)
    assert math.exp(logs[0] - logs[-1]) == pytest.approx(theory, rel=0.05)
    assert math.exp(logs[0] - logs[-1]) == pytest.approx(simulated, rel=0.1)


@pytest.mark.parametrize(("width", "depth", "published"), [(50, 10, 1.0), (50, 50, 5.0), (20, 10, 2.5)])
def test_finite_width_of_relu(width: int, depth: int, published: float) -> None:
    """Hanin 2018, Hanin and Nica 2020: E of the squared gain is 1 at He's initial values, Var ln = 5 sum 1 / n."""
    network, tier = predicted(dense("hanin", depth + 1, "relu", 2.0, width=width), 1)
    first, *_, last = (layer.value for layer in parameter_layers(network)[:-1])
    a, b = tier.total[first], tier.total[last]
    assert a.sd is not None and b.sd is not None and a.mean is not None and b.mean is not None
    variance = (2.0 * math.log(10.0)) ** 2 * (a.sd**2 - b.sd**2)
    assert variance == pytest.approx(published, rel=0.01)
    assert 2.0 * math.log(10.0) * (a.mean - b.mean) + variance / 2.0 == pytest.approx(0.0, abs=0.01)


def batch_norm_rate(operator: str, batch: int) -> float:
    """The squared rate of one layer: slopes times what batch normalization divides by."""
    moments = OPS["BatchNormalization"].moments
    assert moments is not None
    nodes, phi, d = at_nodes(operator, 1.0)
    mean, square = nodes.mean(phi), nodes.mean(phi * phi)
    one, zero = (Signal(x, x, x, x) for x in (1.0, 0.0))
    shapes, attributes = (("N", 8), *((8,),) * 4), {"training_mode": 1, "epsilon": 0.0, "momentum": 0.9}
    case = Case(attributes, shapes, (("N", 8),), (None,) * 5, (None,) * 5, batch)
    adjoint = moments.backward(
        case, 0, Signal(0.0, 1.0, 1.0, 0.0), (Signal(mean, square, square, mean**2), one, zero, None, None)
    )
    return nodes.mean(d * d) * adjoint.square


def test_batch_normalization_explodes() -> None:
    """Yang et al. 2019: pi / (pi - 1) for ReLU in a large batch, (B - 2) / (B - 3) for a linear net."""
    assert batch_norm_rate("Relu", 10**7) == pytest.approx(math.pi / (math.pi - 1.0), rel=1e-5)
    assert math.sqrt(batch_norm_rate("Relu", 10**7)) == pytest.approx(1.21117, abs=1e-5)
    for batch in (8, 256):
        assert batch_norm_rate("Identity", batch) == pytest.approx((batch - 2) / (batch - 3), rel=1e-9)


@pytest.mark.parametrize(("kind", "published"), [("glorot", 8.0 / (3.0 * math.pi)), ("standard", 0.49007)])
def test_singular_values_of_glorots_layers(kind: str, published: float) -> None:
    """Glorot and Bengio 2010, sec. 4.2: mean singular value 0.85 (about 0.8) for theirs, 0.49 (about 0.5) for 1/sqrt(n)."""
    n = 500
    sd = math.sqrt(1.0 / n) if kind == "glorot" else math.sqrt(1.0 / (3.0 * n))
    weights = Initial("uniform", (n, n), sd=sd).draw("w", 0)
    assert np.linalg.svd(weights, compute_uv=False).mean() == pytest.approx(published, rel=0.005)


def test_softmax_halves_at_most() -> None:
    """arXiv 2510.23012: the Lipschitz constant of softmax is 1/2."""
    norms = OPS["Softmax"].norms
    assert norms is not None
    assert norms(Case({"axis": -1}, ((2, 5),), ((2, 5),), (None,), (None,)), 0)[1] == 0.5
