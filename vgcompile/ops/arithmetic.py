"""Arithmetic of two and more tensors, comparisons and selection by a condition."""

from __future__ import annotations

import numpy as np

from vgcompile.ops.families import blocked, broadcasting
from vgcompile.ops.op import sample

PAIRS = (sample(("N", 3), ("N", 3)), sample(("N", 3), (3,)), sample((2, 1, 3), ("N", 1)))

Add = broadcasting(
    "Add",
    "a + b.",
    numpy=np.add,
    derivatives=(lambda op, a, b, y: 1.0, lambda op, a, b, y: 1.0),
    linear=True,
    samples=PAIRS,
)

Sub = broadcasting(
    "Sub",
    "a - b.",
    numpy=np.subtract,
    derivatives=(lambda op, a, b, y: 1.0, lambda op, a, b, y: -1.0),
    vjp=lambda op, g, y, a, b: (g, op.Neg(g)),
    linear=True,
    samples=PAIRS,
)

Mul = broadcasting(
    "Mul",
    "a * b.",
    numpy=np.multiply,
    derivatives=(lambda op, a, b, y: b, lambda op, a, b, y: a),
    samples=PAIRS,
)

Neg = broadcasting(
    "Neg", "-x.", numpy=np.negative, derivatives=(lambda op, x, y: -1.0,), vjp=lambda op, g, y, x: (op.Neg(g),), linear=True,
    samples=(sample(("N", 3)),),
)

Greater = blocked(
    "Greater", "a > b.", "a comparison is a step: its slope is 0 wherever it has one", numpy=np.greater, samples=PAIRS
)

Where = broadcasting(
    "Where",
    "a where the condition holds, b elsewhere.",
    numpy=np.where,
    derivatives=(None, lambda op, c, a, b, y: op.Where(c, 1.0, 0.0), lambda op, c, a, b, y: op.Where(c, 0.0, 1.0)),
    vjp=lambda op, g, y, c, a, b: (None, op.Where(c, g, 0.0), op.Where(c, 0.0, g)),
    samples=(sample(np.array([[True], [False]]), (2, 3), (3,)),),
)

ROWS = (Add, Sub, Mul, Neg, Greater, Where)
