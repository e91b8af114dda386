"""Expectations under a Gaussian, against closed forms and published constants."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vgcompile.interval import WHOLE
from vgcompile.ops import NUMPY, OPS
from vgcompile.ops.op import Case, at
from vgcompile.ops.reading import slope, slope_range
from vgcompile.quadrature import gaussian

# Second moments of phi and phi' under N(0, 1), as published with the mean-field literature.
CONSTANTS = {
    "Relu": (0.5, 0.5),
    "Gelu": (0.425221, 0.455851),
    "Elu": (0.644945, 0.668102),
    "Selu": (1.0, 1.071575),  # gamma^2 (1/2 + alpha^2 e^2 Phi(-2))
    "Tanh": (0.394294, 0.464403),
    "Erf": (0.464559, 0.569410),
    "Sigmoid": (0.293379, 0.044836),
    "Softplus": (0.921246, 0.293379),
}


@pytest.mark.parametrize("operator", CONSTANTS)
def test_moments_of_activations(operator: str) -> None:
    row = OPS[operator]
    attributes = DEFAULTS.get(operator, {})
    nodes = gaussian(0.0, 1.0, at(row.kinks, attributes))
    phi = row.numpy(nodes.x, **attributes)
    dphi = slope(NUMPY, row, 0, (nodes.x,), **attributes)
    assert nodes.mean(phi**2) == pytest.approx(CONSTANTS[operator][0], abs=1.5e-6)
    assert nodes.mean(dphi**2) == pytest.approx(CONSTANTS[operator][1], abs=1.5e-6)


DEFAULTS = {
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Gelu": {"approximate": "none"},
}


def test_gelu_slope_is_negative_somewhere() -> None:
    """An analysis that took every slope to lie in [0, 1] would be unsound."""
    slopes = slope_range(NUMPY, OPS["Gelu"], 0, Case(DEFAULTS["Gelu"], ranges=(WHOLE,)))
    assert slopes.lo == pytest.approx(-0.128904, abs=1e-6)
    assert slopes.hi == pytest.approx(1.128904, abs=1e-6)


@pytest.mark.parametrize("rho", [-0.7, -0.1, 0.0, 0.3, 0.9, 1.0])
def test_relu_pair_is_the_arc_cosine_kernel(rho: float) -> None:
    """Cho and Saul 2009, order 1: E[relu(u) relu(v)] = (sqrt(1 - rho^2) + rho (pi - acos rho)) / 2 pi."""
    nodes = gaussian(0.0, 1.0, (0.0,))
    expected = (math.sqrt(1 - rho * rho) + rho * (math.pi - math.acos(rho))) / (2 * math.pi)
    assert nodes.pair(np.maximum(nodes.x, 0.0), rho) == pytest.approx(expected, abs=2e-5)


def test_relu_length_map_is_neutral() -> None:
    nodes = gaussian(0.0, 3.0, (0.0,))
    assert nodes.pairs(np.maximum(nodes.x, 0.0)).sensitivity == pytest.approx(1.0, abs=1e-9)
