"""Linear maps of the vectors of a sequence, and rotations of their pairs, read off the values that a graph makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.importing.trial import Array
from vgcompile.layers.positions import Rotary

Map = Callable[[Array], Array | None]
_USUAL = {name: field.default for name, field in Rotary.model_fields.items()}
_EXACT, _ROUNDED = 1e-9, 1e-3  # of the l2 norm: of sums in float64, of sines and cosines that a file holds in float32


@dataclass(frozen=True)
class Affine:
    """x -> x W + b of rows: ``weight`` [features, units], ``bias`` [units]."""

    weight: Array
    bias: Array

    def __call__(self, rows: Array) -> Array:
        return rows @ self.weight + self.bias


def affine(run: Map, features: int) -> Affine | None:
    """The map of rows [n, features] that ``run`` is, where it is affine and the same for every row."""
    draws = np.random.default_rng(0).normal(size=(3, features))
    made = run(np.concatenate([np.zeros((1, features)), np.eye(features), draws]))
    if made is None:
        return None
    found = Affine(made[1 : features + 1] - made[0], made[0])
    return found if alike(made[features + 1 :], found(draws), _EXACT) else None


def alike(a: Array, b: Array, tolerance: float = _EXACT) -> bool:
    return a.shape == b.shape and bool(np.linalg.norm(a - b) <= tolerance * max(float(np.linalg.norm(b)), 1e-12))


def rotation(still: Array, turned: Array) -> dict[str, Any] | None:
    """The fields of the rotary positions that make ``turned`` of ``still``, both [time, vectors, head size], ``still`` the same
    at all times; None where no such rotation does."""
    time, _, size = still.shape
    moved = np.flatnonzero(np.abs(turned - still).max((0, 1)) > 1e-7 * np.abs(still).max())
    rotated = int(moved[-1]) + 1 if len(moved) else 0
    rotated += rotated % 2
    if not rotated or rotated > size:
        return None
    for interleaved in (False, True):
        angles = _angles(still[1], turned[1], rotated, interleaved=interleaved)
        base = _base(angles)
        places = np.arange(time)[:, None] * base ** (-np.arange(0, rotated, 2) / rotated)
        if alike(_turned(still, places, interleaved=interleaved), turned, _ROUNDED):
            fields = {"base": base, "fraction": rotated / size, "interleaved": interleaved}
            return {name: value for name, value in fields.items() if value != _USUAL[name]}
    return None


def _pairs(x: Array, rotated: int, *, interleaved: bool) -> tuple[Array, Array]:
    if interleaved:
        return x[..., 0:rotated:2], x[..., 1:rotated:2]
    return x[..., : rotated // 2], x[..., rotated // 2 : rotated]


def _angles(still: Array, turned: Array, rotated: int, *, interleaved: bool) -> Array:
    """By how much each pair is turned from one position to the next."""
    (a, b), (p, q) = (_pairs(x, rotated, interleaved=interleaved) for x in (still, turned))
    return np.arctan2((a * q - b * p).sum(0), (a * p + b * q).sum(0))  # type: ignore[no-any-return]


def _turned(still: Array, places: Array, *, interleaved: bool) -> Array:
    made, places = still.copy(), places[:, None, :]
    rotated = 2 * places.shape[-1]
    a, b = _pairs(still, rotated, interleaved=interleaved)
    p, q = _pairs(made, rotated, interleaved=interleaved)
    p[...], q[...] = a * np.cos(places) - b * np.sin(places), b * np.cos(places) + a * np.sin(places)
    return made


def _base(angles: Array) -> float:
    """From base^(-2i / rotated), of which the last one is told best by float32."""
    pairs = len(angles)
    return 10_000.0 if pairs < 2 else base_of(float(angles[-1]), (pairs - 1) / pairs)


def base_of(frequency: float, share: float) -> float:
    """The base of which ``frequency`` is the -share-th power, in the fewest digits that a frequency of float32 tells."""
    if not 0.0 < frequency < 1.0:
        return 10_000.0
    return float(f"{frequency ** (-1.0 / share):.5g}")
