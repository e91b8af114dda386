"""Positive matrices that are no less than what they stand for, rounding included, and what is computed of them."""

from __future__ import annotations

import math

import numpy as np

from vgcompile.interval import EPSILON, Array

STEPS = 4  # of the power method, where an estimate will do


def placed(n: int, rows: Array, start: int) -> Array:
    """The map of numbers ``start``, ``start`` + 1, ... to these rows of n."""
    found = np.zeros((n, start + len(rows)))
    found[rows, start + np.arange(len(rows))] = 1.0
    return found


def padded(matrix: Array, room: float) -> Array:
    """A symmetric matrix, ``room`` added to its diagonal."""
    found = np.asarray(0.5 * (matrix + matrix.T))
    np.einsum("ii->i", found)[...] += room
    return found


def root_of(sigma: Array) -> Array:
    """L with L L^T no less than a positive matrix: its Cholesky factor, which is one of a matrix within (n + 1) u tr of it
    (Higham 2002, theorem 10.3), or where rounding has left it none, that of its eigenvectors."""
    n = len(sigma)
    grown = padded(sigma, 4.0 * (n + 8) * EPSILON * float(np.trace(sigma)))
    try:
        return np.linalg.cholesky(grown)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(sigma)
        room = 64.0 * n * EPSILON * float(np.linalg.norm(sigma))
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0) + room))


def estimate(a: Array, sigma: Array) -> float:
    """About ||a Sigma a^T||^1/2, by the power method."""
    x = np.cos(np.arange(1.0, len(a) + 1.0))
    length = 0.0
    for _ in range(STEPS):
        x = x / max(float(np.linalg.norm(x)), 1e-300)
        x = a @ (sigma @ (a.T @ x))
        length = float(np.linalg.norm(x))
    return math.sqrt(length)
