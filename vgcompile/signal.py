"""Second-moment statistics of a tensor over random initializations: what the expected tier carries along the graph.

For a value x of shape [batch, features, positions...] drawn with its network's parameters, in the mean-field picture (Poole et
al. 2016; Schoenholz et al. 2017) all features are alike, and so are all samples and all positions. Five numbers say what the
layers need:

    mean     E[x]
    square   E[x^2]                       the length map's q
    within   E[x x'], same sample and feature, two positions that share weights (pixels, tokens)
    across   E[x x'], same feature, two samples of the batch

    alignment  E[cos^2] between two samples' vectors, each less what all samples share: how few directions a batch spans

An adjoint is described by the same numbers, with mean 0, and by one more for its finite-width spread:

    spread   variance of ln ||adjoint||^2 over initializations, accumulated from the loss down
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

__all__ = ["Profile", "Signal", "Table", "bent", "blended", "constant", "independent_sum", "joined", "replace"]


Array = np.ndarray[Any, Any]
Profile = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class Table:
    """Of a value whose last two axes are both positions, as the scores of queries (rows) and keys (columns) are: what two entries
    of one row share, and two of one column; ``within`` is then what two share that have neither in common.

    ``open`` [rows, columns] says where there is a number: elsewhere is minus infinity, or what amounts to it, and the statistics
    are those of the open places. Columns are made from vectors whose cosines, less what all have in common, have the mean square
    ``aligned``; ``others`` counts the entries of a row beside each one, weighed as the row weighs them.
    """

    row: float
    column: float
    open: Array | None = None
    aligned: float = 0.0
    others: float = 0.0

    def scaled(self, factor: float) -> Table:
        return replace(self, row=self.row * factor, column=self.column * factor)

    @property
    def turned(self) -> Table:
        """Rows as columns. What columns are made from, rows do not say."""
        return Table(self.column, self.row, None if self.open is None else self.open.T)


@dataclass(frozen=True)
class Signal:
    mean: float
    square: float
    within: float
    across: float
    alignment: float = 0.0
    spread: float = 0.0
    tail: float = 1.0  # of adjoints: E|g|^4 / E[|g|^2 |g'|^2], g and g' of two samples or positions
    along: Profile = ()  # of each spatial axis, the square at its places against the mean one; empty where all are alike
    table: Table | None = None  # of a value of rows and columns of positions
    doubt: str = ""  # which assumption (Gaussian, independent) is known to be broken, and by what

    @property
    def variance(self) -> float:
        return max(self.square - self.mean * self.mean, 0.0)

    @property
    def coherence(self) -> float:
        """The correlation of two positions of an adjoint, from 0 to 1."""
        return min(max(self.within / self.square, 0.0), 1.0) if self.square > 0 else 0.0

    def scaled(self, factor: float) -> Signal:
        """The statistics of ``sqrt(factor) * x`` (its mean keeps its sign)."""
        if factor == 1.0:
            return self
        return Signal(
            self.mean * factor**0.5,
            self.square * factor,
            self.within * factor,
            self.across * factor,
            self.alignment,
            self.spread,
            self.tail,
            self.along,
            self.table and self.table.scaled(factor),
            self.doubt,
        )

    def places(self, extent: int) -> Array:
        """The square at each place of an axis of this extent against the mean one: ones where they are not told apart."""
        return np.array(self.along[0]) if [len(axis) for axis in self.along] == [extent] else np.ones(extent)

    @property
    def plain(self) -> Signal | None:
        """What is left to who does not tell rows from columns; None where some places hold no number."""
        if self.table is None:
            return self
        return replace(self, table=None) if self.table.open is None else None


T = TypeVar("T", Signal, Table)


def replace(item: T, **changes: Any) -> T:
    """A copy with other fields: what ``dataclasses.replace`` makes, in a tenth of its time: every edge of a graph needs some."""
    assert changes.keys() <= item.__dict__.keys(), f"{type(item).__name__} has no field among {', '.join(changes)}"
    made = object.__new__(type(item))
    made.__dict__.update(item.__dict__, **changes)
    return made


def constant(mean: float, square: float) -> Signal:
    """A parameter or a constant: drawn once, the same for each sample and each position."""
    return Signal(mean, square, square, square)


def independent_sum(a: Signal, b: Signal) -> Signal:
    """``a + b`` for independent a and b: only their means correlate."""
    cross = 2.0 * a.mean * b.mean
    shares = a.square - a.across, b.square - b.across
    total = sum(shares)
    return Signal(
        mean=a.mean + b.mean,
        square=a.square + b.square + cross,
        within=a.within + b.within + cross,
        across=a.across + b.across + cross,
        alignment=(shares[0] ** 2 * a.alignment + shares[1] ** 2 * b.alignment) / total**2 if total > 0 else 0.0,
        along=blended([(a.square, a.along), (b.square, b.along)]),
        doubt=a.doubt or b.doubt,
    )


def blended(parts: Sequence[tuple[float, Profile]]) -> Profile:
    """The profile of a sum, from the square and the profile of each part; one without a profile is the same everywhere."""
    shape = next((tuple(map(len, along)) for _, along in parts if along), ())
    if not shape:
        return ()
    total, mixed = sum(square for square, _ in parts), [[0.0] * extent for extent in shape]
    if total <= 0.0:
        return ()
    for square, along in parts:
        known = along if tuple(map(len, along)) == shape else tuple((1.0,) * extent for extent in shape)
        mixed = [[m + square / total * k for m, k in zip(*pair, strict=True)] for pair in zip(mixed, known, strict=True)]
    return tuple(map(tuple, mixed))


def joined(parts: Sequence[tuple[float, Table | None]]) -> Table | None:
    """Rows and columns of a sum of independent parts, from the square and the table of each; None where one has none."""
    tables, total = [(square, table) for square, table in parts if table is not None], sum(square for square, _ in parts)
    if len(tables) < len(parts) or total <= 0.0:
        return None
    aligned = sum(square * table.aligned for square, table in tables) / total
    others = sum(square * table.others for square, table in tables) / total
    return Table(sum(table.row for _, table in tables), sum(table.column for _, table in tables), None, aligned, others)


def bent(along: Profile, power: float) -> Profile:
    """The profile of a function of squares that grows with their ``power``."""
    found = []
    for axis in along:
        powers = [max(x, 1e-300) ** power for x in axis]
        mean = sum(powers) / len(powers)
        found.append(tuple(x / mean for x in powers))
    return tuple(found)
