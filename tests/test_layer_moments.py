"""Statistics of layers over random parameters: Monte Carlo through the operator itself, and closed forms of the literature."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.one_node import OneNode, one_node
from vgcompile.graph.case import case_of
from vgcompile.ops import OPS
from vgcompile.ops.moments import largest_of
from vgcompile.ops.op import Case
from vgcompile.signal import Signal, constant

MEAN, SD, BATCH, TRIALS = 0.3, 0.8, 4, 300
SQUARE = MEAN**2 + SD**2
DATA, PARAMETER = Signal(MEAN, SQUARE, MEAN**2, MEAN**2), constant(MEAN, SQUARE)


def signal_of(given: Any) -> Signal | None:
    """Data where the batch is symbolic, else a parameter: independent draws."""
    if isinstance(given, tuple):
        return DATA if given[:1] == ("N",) or "N" in given else PARAMETER
    if given is None or given.dtype.kind != "f":
        return None
    return constant(float(given.mean()), float((given * given).mean()))


def only_batch_is_symbolic(one: OneNode) -> bool:
    dims = [dim for given in one.sample.shapes if isinstance(given, tuple) for dim in given]
    return "N" in dims and {dim for dim in dims if isinstance(dim, str)} == {"N"}


ROWS = [
    "MatMul",
    "Gemm",
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalMaxPool",
    "GlobalAveragePool",
    "Split",
    "Slice",
    "Tile",
]
ROWS += ["Expand", "Concat"]


@pytest.mark.parametrize("name", ROWS)
def test_value_and_adjoints_agree_with_monte_carlo(name: str) -> None:
    """Mean and mean square of the value, and the mean square of each operand's adjoint, for adjoints of unit variance."""
    row, rng = OPS[name], np.random.default_rng(0)
    assert row.moments is not None
    for index in range(len(row.samples)):
        one = one_node(name, index)
        if not only_batch_is_symbolic(one):
            continue
        case = replace(case_of(one.node), batch=BATCH)
        signals = [signal_of(given) for given in one.sample.shapes]
        made = row.moments.forward(case, signals)
        y = made[0] if isinstance(made, tuple) else made
        adjoints = {i: row.moments.backward(case, i, Signal(0.0, 1.0, 0.0, 0.0), signals).square for i in one.adjoints}
        values, squares = [], []
        for _ in range(TRIALS):
            x = {i: rng.normal(MEAN, SD, one.shape(i, BATCH)) for i in one.drawn}
            found = one.run_forward(x)
            seeds = {k: rng.normal(size=found[k].shape) if k == 0 else np.zeros(found[k].shape) for k in one.seeds}
            values.append((found[0].mean(), (found[0] ** 2).mean()))
            squares.append([(a * a).mean() for a in one.run_gradient(x, seeds).values()])
        found = np.mean(values, axis=0)
        assert (y.mean, y.square) == pytest.approx(found, rel=0.2, abs=0.05 * math.sqrt(found[1])), one.sample
        assert list(adjoints.values()) == pytest.approx(np.mean(squares, axis=0), rel=0.2, abs=0.01), one.sample


def batch_norm_case(batch: int, features: int = 8) -> Case:
    shapes = (("N", features), (features,), (features,), (features,), (features,))
    attributes = {"training_mode": 1, "epsilon": 0.0, "momentum": 0.9}
    return Case(attributes, shapes, (("N", features),), (None,) * 5, (None,) * 5, batch)


UNIT = (constant(1.0, 1.0), constant(0.0, 0.0))


@pytest.mark.parametrize("batch", [4, 8, 64, 256])
def test_linear_batch_norm_net_explodes_at_the_published_rate(batch: int) -> None:
    """Squared rate (B - 2) / (B - 3) a layer (Yang et al. 2019), independent samples and adjoints."""
    moments = OPS["BatchNormalization"].moments
    assert moments is not None
    x = Signal(0.0, 1.0, 1.0, 0.0)
    adjoint = moments.backward(batch_norm_case(batch), 0, Signal(0.0, 1.0, 1.0, 0.0), (x, *UNIT, None, None))
    assert adjoint.square == pytest.approx((batch - 2) / (batch - 3), rel=1e-12)


def test_relu_batch_norm_net_explodes_at_the_published_rate() -> None:
    """pi / (pi - 1) = 1.46694 a layer for large batches: E[phi'^2] / Var[phi] of ReLU at N(0, 1)."""
    moments = OPS["BatchNormalization"].moments
    assert moments is not None
    mean = 1.0 / math.sqrt(2.0 * math.pi)
    x = Signal(mean, 0.5, 0.5, mean**2)
    adjoint = moments.backward(batch_norm_case(10**7), 0, Signal(0.0, 1.0, 1.0, 0.0), (x, *UNIT, None, None))
    assert 0.5 * adjoint.square == pytest.approx(math.pi / (math.pi - 1.0), rel=1e-5)


def test_batch_norm_gives_out_unit_variance_and_no_batch_mean() -> None:
    moments = OPS["BatchNormalization"].moments
    assert moments is not None
    for batch in (2, 5, 100):
        y = moments.forward(batch_norm_case(batch), (Signal(2.0, 7.0, 7.0, 4.5), *UNIT, None, None))
        assert isinstance(y, Signal)
        assert (y.mean, y.square) == pytest.approx((0.0, 1.0))
        assert y.square + (batch - 1) * y.across == pytest.approx(0.0, abs=1e-12)


def test_tiny_batches_are_refused() -> None:
    """With 2 samples 1/s^2 has no mean."""
    moments = OPS["BatchNormalization"].moments
    assert moments is not None
    with pytest.raises(NotImplementedError, match="larger batch"):
        moments.backward(batch_norm_case(2), 0, Signal(0.0, 1.0, 1.0, 0.0), (Signal(0.0, 1.0, 1.0, 0.0), *UNIT, None, None))


@pytest.mark.parametrize("features", [16, 64])
def test_layer_normalization_gain(features: int) -> None:
    """(n - 2) / (n s^2) for given s; over Gaussian rows E[1/s^2] = n / (n - 3), simulated."""
    moments = OPS["LayerNormalization"].moments
    assert moments is not None
    shapes = (("N", features), (features,), (features,))
    case = Case({"axis": -1, "epsilon": 0.0}, shapes, (("N", features),), (None,) * 3, (None,) * 3, 1)
    predicted = moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 0.0), (Signal(0.0, 1.0, 1.0, 0.0), *UNIT)).square
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 40000, features))
    z = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    dx = (g - g.mean(1, keepdims=True) - z * (g * z).mean(1, keepdims=True)) / x.std(1, keepdims=True)
    assert predicted == pytest.approx((dx**2).mean(), rel=0.01)


def test_largest_of_normals() -> None:
    """Known order statistics: E max of 2 is 1/sqrt(pi), of 4 it is 1.02938; variances 1 - 1/pi and 0.49172."""
    assert largest_of(1) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert largest_of(2) == pytest.approx((1.0 / math.sqrt(math.pi), 1.0 - 1.0 / math.pi), rel=1e-9)
    assert largest_of(4) == pytest.approx((1.02937537, 0.49171524), rel=1e-7)


@pytest.mark.parametrize("classes", [3, 10])
def test_cross_entropy_adjoint(classes: int) -> None:
    """Correlation across samples and E[cos^2] of softmax(z) - onehot, for small random scores with a common part."""
    moments = OPS["SoftmaxCrossEntropyLoss"].moments
    assert moments is not None
    z = Signal(0.0, 0.2, 0.2, 0.1)
    case = Case({"reduction": "mean"}, (("N", classes), ("N",)), ((),), (None, None), (None, None), 2)
    found = moments.backward(case, 0, Signal(0.0, 1.0, 1.0, 1.0), (z, None))
    rng, n = np.random.default_rng(0), 200000
    shared = rng.normal(size=(n, 1, classes)) * math.sqrt(0.1)
    scores = shared + rng.normal(size=(n, 2, classes)) * math.sqrt(0.1)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    g = p - np.eye(classes)[rng.integers(classes, size=(n, 2))]
    across = (g[:, 0] * g[:, 1]).mean() / (g * g).mean()
    cosine = (g[:, 0] * g[:, 1]).sum(-1) / np.sqrt((g[:, 0] ** 2).sum(-1) * (g[:, 1] ** 2).sum(-1))
    assert found.across == pytest.approx(across, rel=0.25, abs=0.003)
    assert found.alignment == pytest.approx((cosine**2).mean(), rel=0.12)


def test_dropout_keeps_products_and_scales_squares() -> None:
    moments = OPS["Dropout"].moments
    assert moments is not None
    case = Case({}, (("N", 4), (), ()), (("N", 4),), (None,) * 3, (None, np.asarray(0.25), np.asarray(True)))
    x = Signal(0.5, 1.0, 0.6, 0.3)
    assert moments.forward(case, (x, None, None)) == replace(x, square=1.0 / 0.75)
    assert moments.backward(case, 0, x, (x, None, None)) == replace(x, square=1.0 / 0.75)
