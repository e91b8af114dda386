"""Functions of one number. Formulas by their usual names; turning points of slopes to the last digit of a double."""

from __future__ import annotations

import numpy as np
from scipy import special

from vgcompile.ops.families import elementwise, piecewise

Sigmoid = elementwise(
    "Sigmoid",
    "1 / (1 + exp(-x)): squashes every number into (0, 1).",
    numpy=special.expit,
    derivative=lambda op, x, y: y * (1.0 - y),
    turns=[0.0],
)

Tanh = elementwise(
    "Tanh",
    "The hyperbolic tangent: squashes every number into (-1, 1).",
    numpy=np.tanh,
    derivative=lambda op, x, y: 1.0 - y * y,
    turns=[0.0],
)

Relu = piecewise(
    "Relu",
    "max(x, 0); the slope at 0 is taken as 0.",
    numpy=lambda x: np.maximum(x, 0.0),
    condition=lambda op, x, y: op.Greater(x, 0.0),
    then=lambda op, x, y: 1.0,
    otherwise=lambda op, x, y: 0.0,
    kinks=[0.0],
)

Exp = elementwise("Exp", "The exponential function.", numpy=np.exp, derivative=lambda op, x, y: y)

ROWS = (Sigmoid, Tanh, Relu, Exp)
