"""Initial values: the distribution that a parameter is drawn from, its moments, and its draw.

Each parameter's random stream is keyed by seed and parameter name, so that adding a layer changes no other weight.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Kind = Literal["normal", "uniform", "orthogonal", "constant"]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one named thing: no other name's stream, and no other thing's presence, has a part in it."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))


@dataclass(frozen=True)
class Initial:
    """What a parameter of one shape is drawn from.

    ``normal`` (mean, sd); ``uniform`` on [mean - sqrt(3) sd, mean + sqrt(3) sd]; ``constant`` (mean); or ``orthogonal``: the
    matrix [shape[0], the rest] has orthonormal rows or columns, whichever are fewer, times sd sqrt(max(rows, columns)). Entries
    of an orthonormal vector of length n have mean square 1/n, so that these have standard deviation ``sd`` (Saxe et al. 2013).
    """

    kind: Kind
    shape: tuple[int, ...]
    mean: float = 0.0
    sd: float = 0.0

    @property
    def square(self) -> float:
        """E[w^2]."""
        return self.mean**2 + (0.0 if self.kind == "constant" else self.sd**2)

    def draw(self, name: str, seed: int) -> Array:
        """A float32 array of ``shape``: the same for the same name and seed, on every machine with the same NumPy.

        An orthogonal one may differ in its last bits where the linear algebra library differs.
        """
        rng = stream(seed, name)
        if self.kind == "constant":
            return np.full(self.shape, self.mean, np.float32)
        if self.kind == "normal":
            return rng.normal(self.mean, self.sd, self.shape).astype(np.float32)
        if self.kind == "uniform":
            half = math.sqrt(3.0) * self.sd
            return rng.uniform(self.mean - half, self.mean + half, self.shape).astype(np.float32)
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        matrix = _orthonormal(rng, rows, columns) * (self.sd * math.sqrt(max(rows, columns)))
        return matrix.reshape(self.shape).astype(np.float32)

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Initial:
        fields = json.loads(text)
        return cls(**{**fields, "shape": tuple(fields["shape"])})


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A matrix with orthonormal rows or columns, whichever are fewer, uniform over all of them (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T
