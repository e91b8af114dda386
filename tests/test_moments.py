"""What the table says of random tensors: moments against Monte Carlo, and the constants of mean-field theory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.one_node import ROWS, OneNode, case_in, over, samples, stream
from vgcompile.interval import WHOLE
from vgcompile.ops import NUMPY, OPS
from vgcompile.ops.moments import Reduced
from vgcompile.ops.op import Case, Op, at
from vgcompile.ops.reading import slope, slope_range
from vgcompile.quadrature import gaussian
from vgcompile.signal import Signal, constant

DRAWN = Signal(0.3, 0.3**2 + 0.8**2, 0.3**2, 0.3**2)  # independent normal draws


def signals_of(one: OneNode) -> list[Signal | None]:
    literals = [
        None if i in one.drawn or np.asarray(given).dtype.kind != "f" else given for i, given in enumerate(one.sample.shapes)
    ]
    known = [None if given is None else constant(float(np.mean(given)), float(np.mean(given * given))) for given in literals]
    return [DRAWN if i in one.drawn else signal for i, signal in enumerate(known)]


@over([row for row in ROWS if row.moments is not None and (row.elementwise or isinstance(row.moments, Reduced))])
def test_moments_agree_with_monte_carlo(row: Op) -> None:
    """Mean and mean square of the value, and the adjoint's mean square, where the formula is exact at any width."""
    rng, n, trials = stream(row), 4, 400
    for one in samples(row):
        case, signals = replace(case_in(one, {}), batch=n), signals_of(one)
        try:
            forward = row.moments.forward(case, signals)
            backward = [row.moments.backward(case, i, Signal(0.0, 1.0, 0.0, 0.0), signals).square for i in one.adjoints]
        except NotImplementedError:
            continue
        found, adjoints = [], []
        for _ in range(trials):
            x = {i: rng.normal(DRAWN.mean, DRAWN.variance**0.5, one.shape(i, n)) for i in one.drawn}
            y = one.run_forward(x)[0]
            found.append((np.mean(y), np.mean(y * y)))
            adjoints.append([np.mean(a * a) for a in one.run_gradient(x, {0: rng.normal(size=np.shape(y))}).values()])
        assert [forward.mean, forward.square] == pytest.approx(list(np.mean(found, axis=0)), rel=0.15, abs=0.06), one.sample
        assert backward == pytest.approx(list(np.mean(adjoints, axis=0)), rel=0.15), one.sample


# E[phi^2] and E[phi'^2] for a standard normal, and the least and the greatest slope; closed forms where there are any.
CONSTANTS = [
    ("Relu", {}, 0.5, 0.5, 0.0, 1.0),
    ("LeakyRelu", {"alpha": 0.01}, 0.50005, 0.50005, 0.01, 1.0),
    ("Gelu", {"approximate": "none"}, 0.425221, 0.455851, -0.128904, 1.128904),
    ("Elu", {"alpha": 1.0}, 0.644945, 0.668102, 0.0, 1.0),
    ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}, 1.0, 1.071575, 0.0, 1.758099),
    ("Tanh", {}, 0.394294, 0.464403, 0.0, 1.0),
    ("Erf", {}, 0.464559, 0.569410, 0.0, 2.0 / math.sqrt(math.pi)),
    ("Sigmoid", {}, 0.293379, 0.044836, 0.0, 0.25),
    ("Softplus", {}, 0.921246, 0.293379, 0.0, 1.0),
]


@pytest.mark.parametrize(
    ("name", "attributes", "square", "slope_square", "least", "greatest"), CONSTANTS, ids=[c[0] for c in CONSTANTS]
)
def test_constants_of_mean_field_theory(
    name: str, attributes: Any, square: float, slope_square: float, least: float, greatest: float
) -> None:
    row = OPS[name]
    normal = gaussian(0.0, 1.0, at(row.kinks, attributes))
    assert normal.mean(row.numpy(normal.x, **attributes) ** 2) == pytest.approx(square, abs=1e-6)
    assert normal.mean(slope(NUMPY, row, 0, (normal.x,), **attributes) ** 2) == pytest.approx(slope_square, abs=1e-6)
    bound = slope_range(NUMPY, row, 0, Case(attributes, ranges=(WHOLE,)))
    assert (float(bound.lo), float(bound.hi)) == pytest.approx((least, greatest), abs=1e-6)
