"""Every row says how it moves statistics, or why the expected tier does without: and what it says agrees with Monte Carlo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vgcompile import special
from vgcompile.ops import OPS
from vgcompile.ops.concentration import concentration
from vgcompile.ops.op import Case
from vgcompile.signal import Signal, constant

FLOWS = [row for row in OPS.values() if not row.blocked and not row.uncovered]


@pytest.mark.parametrize("row", FLOWS, ids=lambda row: row.name)
def test_a_row_has_moments_or_says_why_not(row: Any) -> None:
    """One of them: an elementwise row is read at quadrature nodes, and needs neither."""
    if row.elementwise:
        assert not row.unpredicted
    else:
        assert (row.moments is None) == bool(row.unpredicted)
        assert not row.unpredicted.endswith(".")


@pytest.mark.parametrize("variance", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("keys", [1, 3, 40])
def test_concentration_of_a_softmax(variance: float, keys: int) -> None:
    """E sum p^2, and what of an independent adjoint passes, for Gaussian scores."""
    z = np.random.default_rng(0).normal(size=(20000, keys)) * variance**0.5
    p = special.softmax(z, axis=1)
    focus = (p * p).sum(1)
    found = concentration(variance, np.array([keys]))
    assert found.focus[0] == pytest.approx(focus.mean(), rel=0.02)
    assert found.passed[0] == pytest.approx((p * p * (1.0 - 2.0 * p + focus[:, None])).sum(1).mean(), rel=0.03, abs=1e-12)


def attended(q: Any, k: Any, v: Any, g: Any, scale: float, hidden: Any) -> dict[int | str, Any]:
    """Attention and its adjoints in NumPy."""
    scores = np.where(hidden, -np.inf, scale * q @ k.swapaxes(-1, -2))
    p = special.softmax(scores, axis=-1)
    y = p @ v
    ds = p * (g @ v.swapaxes(-1, -2) - (g * y).sum(-1, keepdims=True))
    return {"y": y, 0: scale * ds @ k, 1: scale * ds.swapaxes(-1, -2) @ q, 2: p.swapaxes(-1, -2) @ g}


def correlated(rng: Any, shape: tuple[int, ...], square: float, within: float) -> Any:
    """Tokens [N, T, d] of one mean square, of which two share ``within``."""
    common = rng.normal(size=(shape[0], 1, shape[2])) * within**0.5
    return common + rng.normal(size=shape) * (square - within) ** 0.5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sharpness", [0.3, 2.0])
def test_attention_agrees_with_monte_carlo(causal: bool, sharpness: float) -> None:
    """Value and adjoints of queries, keys and values that correlate between positions, for small and for large scores."""
    rng, n, t, d = np.random.default_rng(0), 400, 12, 48
    signals = [Signal(0.0, sharpness, 0.3 * sharpness, 0.0)] * 2 + [Signal(0.0, 1.0, 0.4, 0.0)]
    g = Signal(0.0, 1.0, 0.5, 0.0)
    hidden = np.triu(np.ones((t, t), bool), 1) if causal else np.zeros((t, t), bool)
    shapes = ((n, t, d), (n, t, d), (n, t, d), None, (t, t))
    attributes = {"scale": d**-0.5, "softcap": 0.0, "fill": -np.inf}
    case = Case(attributes, shapes, ((n, t, d),), (None,) * 5, (None,) * 4 + (hidden,), n)
    moments = OPS["ScaledDotProductAttention"].moments
    assert moments is not None
    drawn = [correlated(rng, (n, t, d), s.square, s.within) for s in (*signals, g)]
    found = attended(*drawn, d**-0.5, hidden)
    y = moments.forward(case, (*signals, None, None))
    assert isinstance(y, Signal)
    assert y.square == pytest.approx((found["y"] ** 2).mean(), rel=0.05)
    for position in range(3):
        adjoint = moments.backward(case, position, g, (*signals, None, None))
        assert adjoint.square == pytest.approx((found[position] ** 2).mean(), rel=0.06), position


def case_of(shape: tuple[int, ...], **attributes: Any) -> Case:
    return Case(attributes, (shape,), (shape,), (None,), (None,), shape[0])


@pytest.mark.parametrize(("name", "function"), [("Softmax", special.softmax), ("LogSoftmax", special.log_softmax)])
def test_softmaxes_agree_with_monte_carlo(name: str, function: Any) -> None:
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 20000, 12)) * np.array([0.8, 1.0])[:, None, None]
    y = function(x, axis=-1)
    dx = y * (g - (g * y).sum(-1, keepdims=True)) if name == "Softmax" else g - np.exp(y) * g.sum(-1, keepdims=True)
    moments = OPS[name].moments
    assert moments is not None
    signals, case = (Signal(0.0, 0.64, 0.64, 0.0),), case_of((20000, 12), axis=-1)
    found = moments.forward(case, signals)
    assert isinstance(found, Signal)
    assert (found.mean, found.square) == pytest.approx((y.mean(), (y * y).mean()), rel=0.02)
    assert moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 0.0), signals).square == pytest.approx((dx**2).mean(), rel=0.03)


def test_a_gated_linear_unit_agrees_with_monte_carlo() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 200000)) * np.array([[1.3], [0.7]])
    case = Case({"alpha": 1.0}, (("N", 4), ("N", 4)), (("N", 4),), (None,) * 2, (None,) * 2, 8)
    signals = [Signal(0.0, 1.69, 1.69, 0.0), Signal(0.0, 0.49, 0.49, 0.0)]
    moments = OPS["SwiGLU"].moments
    assert moments is not None
    s = special.expit(a)
    y = moments.forward(case, signals)
    assert isinstance(y, Signal)
    assert y.square == pytest.approx(((a * s * b) ** 2).mean(), rel=0.05)
    one = Signal(0.0, 1.0, 1.0, 0.0)
    slope = s + a * s * (1.0 - s)
    assert moments.backward(case, 0, one, signals).square == pytest.approx(((slope * b) ** 2).mean(), rel=0.02)
    assert moments.backward(case, 1, one, signals).square == pytest.approx(((a * s) ** 2).mean(), rel=0.02)


def test_a_root_mean_square_norm_loses_one_direction() -> None:
    """(n - 1) / (n s^2) for given s; over Gaussian rows E[1/s^2] = n / (n - 2)."""
    n, rng = 16, np.random.default_rng(0)
    x, g = rng.normal(size=(2, 40000, n))
    r = np.sqrt((x * x).mean(1, keepdims=True))
    z = x / r
    dx = (g - z * (g * z).mean(1, keepdims=True)) / r
    case = Case({"axis": -1, "epsilon": 0.0}, (("N", n), (n,)), (("N", n),), (None,) * 2, (None,) * 2, 1)
    moments = OPS["RMSNormalization"].moments
    assert moments is not None
    found = moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 0.0), (Signal(0.0, 1.0, 1.0, 0.0), constant(1.0, 1.0)))
    assert found.square == pytest.approx((dx**2).mean(), rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_extreme_of_several_features(sign: int) -> None:
    x = np.random.default_rng(0).normal(0.3, 0.8, size=(100000, 6))
    y = x.max(1) if sign > 0 else x.min(1)
    case = Case({"keepdims": 0, "noop_with_empty_axes": 0}, (("N", 6), (1,)), (("N",),), (None,) * 2, (None, np.array([1])), 4)
    moments = OPS["ReduceMax" if sign > 0 else "ReduceMin"].moments
    assert moments is not None
    signals = (Signal(0.3, 0.73, 0.73, 0.09), None)
    found = moments.forward(case, signals)
    assert isinstance(found, Signal)
    assert (found.mean, found.square) == pytest.approx((y.mean(), (y * y).mean()), rel=0.02)
    assert moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 0.0), signals).square == pytest.approx(1.0 / 6.0)


def test_a_part_of_the_positions_has_fewer_pairs() -> None:
    """One position of twelve read: no pair of positions has an adjoint in common."""
    moments = OPS["Gather"].moments
    assert moments is not None
    case = Case({"axis": 1}, ((4, 12, 8), ()), ((4, 8),), (None,) * 2, (None, np.array(0)), 4)
    x = Signal(0.0, 1.0, 0.2, 0.1)
    found = moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 0.3), (x, None))
    assert found == replace(found, square=pytest.approx(1.0 / 12.0), within=0.0, across=pytest.approx(0.3 / 12.0))


def test_no_two_samples_share_more_than_one_has() -> None:
    """Averaged, the same pixel of two pictures is no more alike than a picture is to itself."""
    moments = OPS["AveragePool"].moments
    assert moments is not None
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 0, "pads": [0] * 4, "dilations": [1, 1]}
    case = Case({**attributes, "auto_pad": "NOTSET", "ceil_mode": 0}, ((4, 3, 8, 8),), ((4, 3, 4, 4),), (None,), (None,), 4)
    found = moments.forward(case, (Signal(0.0, 1.0, 0.3, 0.9),))
    assert isinstance(found, Signal)
    assert 0.0 < found.across <= found.square
