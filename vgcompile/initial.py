"""Initial values: the distribution that a parameter is drawn from, its moments, and its draw.

Each parameter's random stream is keyed by seed and parameter name, so that adding a layer changes no other weight.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from vgcompile.errors import UserError

Array = np.ndarray[Any, Any]
Kind = Literal["normal", "truncated_normal", "uniform", "orthogonal", "identity", "constant"]
CUT = 2.0  # standard deviations of a normal distribution that a truncated one keeps, as in JAX and Keras
FARTHEST = 10.0  # standard deviations: a normal number beyond has a probability of 2e-23
PIECE = 2**20  # numbers that are drawn at once
LARGEST = float(np.finfo(np.float32).max)


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one named thing: no other name's stream, and no other thing's presence, has a part in it."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))


@dataclass(frozen=True)
class Initial:
    """What a parameter of one shape is drawn from.

    ``normal`` (mean, sd); ``truncated_normal``, of standard deviation ``sd`` after the cut, at ``cut`` standard deviations of the
    normal that it is cut from; ``uniform`` on [mean - sqrt(3) sd, mean + sqrt(3) sd]; ``constant`` (mean). Of the matrix
    [shape[0], the rest], whose rows are those of ``parts`` matrices one behind another: ``orthogonal`` has in each orthonormal
    rows or columns, whichever are fewer, times sd sqrt(max(rows, columns)); entries of an orthonormal vector of length n have
    mean square 1/n, so that these have standard deviation ``sd`` (Saxe et al. 2013). ``identity`` has in each the same number on
    the diagonal, at the middle tap of a kernel, and 0 elsewhere; ``mean`` and ``sd`` are those of its entries.
    """

    kind: Kind
    shape: tuple[int, ...]
    mean: float = 0.0
    sd: float = 0.0
    cut: float = CUT
    parts: int = 1

    @property
    def reach(self) -> float:
        """No entry is larger in magnitude; of a normal number it is as good as certain."""
        far = {"normal": FARTHEST, "uniform": math.sqrt(3.0), "constant": 0.0}.get(self.kind, math.inf)
        if self.kind == "truncated_normal":
            far = self.cut / left_by_cut(self.cut)
        if self.kind == "orthogonal":
            far = math.sqrt(max(self.shape[0] // self.parts, math.prod(self.shape[1:])))
        return self._diagonal if self.kind == "identity" else abs(self.mean) + far * self.sd

    @property
    def _diagonal(self) -> float:
        return self.square / self.mean if self.mean else 0.0

    @property
    def square(self) -> float:
        """E[w^2]."""
        return self.mean**2 + (0.0 if self.kind == "constant" else self.sd**2)

    def draw(self, name: str, seed: int) -> Array:
        """A float32 array of ``shape``: the same for the same name and seed, on every machine with the same NumPy.

        An orthogonal one may differ in its last bits where the linear algebra library differs. Raises UserError where it is
        larger than the machine's memory.
        """
        size = 4 * math.prod(self.shape)
        if size > _memory():
            raise UserError(f"the {size / 2**30:,.1f} GB of {name} do not fit into memory; make its layer narrower")
        if self.kind == "constant":
            return np.full(self.shape, self.mean, np.float32)
        return self._identity() if self.kind == "identity" else self._drawn(stream(seed, name))

    def _drawn(self, rng: np.random.Generator) -> Array:
        if self.kind == "normal":
            return self._in_pieces(partial(self._normal, rng))
        if self.kind == "uniform":
            half = math.sqrt(3.0) * self.sd
            return self._in_pieces(lambda count: rng.uniform(self.mean - half, self.mean + half, count))
        if self.kind == "truncated_normal":
            parent = self.sd / left_by_cut(self.cut)
            return (self.mean + parent * _cut_normal(rng, self.cut, self.shape)).astype(np.float32)
        rows, columns = self.shape[0] // self.parts, math.prod(self.shape[1:])
        matrices = [_orthonormal(rng, rows, columns) for _ in range(self.parts)]
        return (np.concatenate(matrices) * (self.sd * math.sqrt(max(rows, columns)))).reshape(self.shape).astype(np.float32)

    def _normal(self, rng: np.random.Generator, count: int) -> Array:
        found = rng.standard_normal(count)
        found *= self.sd
        found += self.mean
        return found

    def _in_pieces(self, draw: Callable[[int], Array]) -> Array:
        """The same numbers as in one go, without all of them in double at once."""
        array = np.empty(math.prod(self.shape), np.float32)
        for start in range(0, array.size, PIECE):
            piece = array[start : start + PIECE]
            piece[:] = draw(piece.size)
        return array.reshape(self.shape)

    def _identity(self) -> Array:
        array = np.zeros(self.shape, np.float32)
        rows, columns = self.shape[0] // self.parts, self.shape[1]
        middle = tuple(extent // 2 for extent in self.shape[2:])
        for part in range(self.parts):
            for index in range(min(rows, columns)):
                array[(part * rows + index, index, *middle)] = self._diagonal
        return array

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    @lru_cache(maxsize=256)  # of the layers of a deep net many are drawn alike
    def from_json(cls, text: str) -> Initial:
        fields = json.loads(text)
        return cls(**{**fields, "shape": tuple(fields["shape"])})


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A matrix with orthonormal rows or columns, whichever are fewer, uniform over all of them (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def _memory() -> float:
    """Bytes of memory that the machine has, as far as its system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def left_by_cut(cut: float) -> float:
    """The standard deviation that a standard normal distribution keeps within +-cut: sqrt(1 - 2 c phi(c) / (2 Phi(c) - 1))."""
    density = math.exp(-cut * cut / 2.0) / math.sqrt(2.0 * math.pi)
    return math.sqrt(1.0 - 2.0 * cut * density / math.erf(cut / math.sqrt(2.0)))


def _cut_normal(rng: np.random.Generator, cut: float, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, drawn again and again where they lie beyond the cut."""
    drawn = rng.normal(size=shape)
    while (beyond := np.abs(drawn) > cut).any():
        drawn[beyond] = rng.normal(size=int(beyond.sum()))
    return drawn
