"""How sums and products of independent operands, and sums over axes, move statistics (vgcompile/signal.py).

An axis has a role: the first is the batch, the second the features, the rest positions; of three axes, as in [batch, tokens,
features], the last one is the features, and the only axis of a vector is. Where samples are counted along another axis, as in
[time, batch, features], the last of the others is the features. Features are independent; positions correlate by ``within``,
samples by ``across``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Literal

import numpy as np

from vgcompile import special
from vgcompile.ops.op import Array, Case, Dim, Rule, Tabular, Variadic
from vgcompile.ops.tables import low_places, masked, shown, summed_up
from vgcompile.quadrature import Gaussian
from vgcompile.signal import Profile, Signal, constant, replace

Role = Literal["batch", "features", "position"]
CANCELLED = 1e-12  # of what it is a sum of: less is rounding


def role(shape: Sequence[Dim], axis: int, samples: Dim | None = None) -> Role:
    """What an axis of a tensor of this shape means, ``samples`` the extent that counts them where it is told apart."""
    rank, batch = len(shape), shape.index(samples) if samples in shape else 0
    features = {1: 0, 3: 2}.get(rank, 1) if batch == 0 else rank - 1 - (batch == rank - 1)
    return "features" if axis == features else "batch" if axis == batch else "position"


def multiple(weight: float, x: Signal) -> Signal:
    """``weight * x``."""
    return x if weight == 1.0 else replace(x.scaled(weight * weight), mean=weight * x.mean)


def independent_product(a: Signal, b: Signal) -> Signal:
    """``a * b`` for independent a and b: every second moment is a product; what rides along is a's."""
    return replace(a, mean=a.mean * b.mean, square=a.square * b.square, within=a.within * b.within, across=a.across * b.across)


def total(case: Case, x: Signal, shape: Sequence[Dim], axes: Sequence[int], coherence: float = 1.0) -> Signal:
    """The sum of ``x`` over axes of a tensor of this shape; what two samples have in common at different positions is
    ``coherence`` times what they have at the same one."""
    for axis in axes:
        n = case.count(shape[axis : axis + 1])
        x = _total(x, n, role(shape, axis, case.samples), coherence)
    return x


def _total(x: Signal, n: int, over: Role, coherence: float) -> Signal:
    """E[(sum of n)(sum of n)'] = n E[same] + n (n - 1) E[different], for each of the three second moments."""
    same = (x.square, x.within, x.square if over == "batch" else x.across)
    free, apart = x.mean * x.mean, min(x.across * coherence, max(x.within, 0.0))
    different = {"features": (free, free, free), "position": (x.within, x.within, apart), "batch": (x.across,) * 3}[over]
    square, within, across = (_settled(n * s, n * (n - 1) * d) for s, d in zip(same, different, strict=True))
    along = () if over == "position" else x.along
    return replace(x, mean=n * x.mean, square=square, within=within, across=across, along=along, table=None)


def _settled(own: float, others: float) -> float:
    """A sum, of which nothing is left where only rounding is."""
    return 0.0 if abs(own + others) <= CANCELLED * abs(own) else own + others


def scattered(
    case: Case, position: int, adjoint: Signal, kept: Sequence[Dim], places: Mapping[int, Sequence[int]] | None = None
) -> Signal:
    """The adjoint of an operand of which a part is read, of extents ``kept`` along the operand's own axes: zeros elsewhere.

    Of pairs of positions only those are left that were both kept. Which ``places`` of an axis were, where that is known, is its
    profile, for an operand with one axis of positions.
    """
    shape = case.shapes[position]
    assert shape is not None and len(kept) == len(shape)
    share, have, left = 1.0, 1, 1
    for axis, (extent, part) in enumerate(zip(shape, kept, strict=True)):
        n, k = case.count([extent]), case.count([part])
        if role(shape, axis, case.samples) == "position":
            have, left = have * n, left * k
        else:
            share *= k / max(n, 1)
    pairs = left * (left - 1) / (have * (have - 1)) if have > 1 else 1.0
    axes = [axis for axis in range(len(shape)) if role(shape, axis, case.samples) == "position"]
    read = (places or {}).get(axes[0]) if len(axes) == 1 else None
    along = _profile(read, have) if read is not None and len(set(read)) < have else adjoint.along
    rows = share * left / max(have, 1)
    return replace(
        adjoint,
        mean=adjoint.mean * rows,
        square=adjoint.square * rows,
        within=adjoint.within * share * pairs,
        across=adjoint.across * rows,
        along=along,
    )


def _profile(places: Sequence[int], extent: int) -> Profile:
    """Of squares that are at these places alone."""
    counts = np.bincount(np.asarray(places) % extent, minlength=extent)
    return (tuple((counts * (extent / max(len(places), 1))).tolist()),)


def gathered(case: Case, position: int, adjoint: Signal) -> Signal:
    """The adjoint of an operand that was broadcast: the sum of ``adjoint`` over the axes that it was broadcast along."""
    out, mine = case.outputs[0], case.shapes[position]
    assert out is not None and mine is not None
    padded = (1,) * (len(out) - len(mine)) + tuple(mine)
    axes = [axis for axis, (have, want) in enumerate(zip(out, padded, strict=True)) if want == 1 != have]
    positions_first = sorted(axes, key=lambda axis: role(out, axis, case.samples) == "batch")
    return total(case, adjoint, out, positions_first, adjoint.coherence)


def read(x: Signal, nodes: Gaussian, f: Array) -> Signal:
    """Statistics of a function of a Gaussian, given its values at the nodes."""
    variance = x.variance
    within, across = ((pair - x.mean**2) / variance if variance > 0 else 1.0 for pair in (x.within, x.across))
    pairs = nodes.pairs(f)
    return replace(x, mean=nodes.mean(f), square=pairs.square, within=pairs.at(within), across=pairs.at(across))


class Unknown(NotImplementedError):
    """There are no statistics of a node's operand at ``position``: the reason is whatever lost them."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the statistics of operand {position} are not known")
        self.position = position


def signal_of(signals: Sequence[Signal | None], position: int) -> Signal:
    """Those of one operand; raises Unknown where there are none."""
    signal = signals[position]
    if signal is None:
        raise Unknown(position)
    return signal


def present(signals: Sequence[Signal | None]) -> list[Signal]:
    """The signals, where all of them are known; raises Unknown where one is not."""
    return [signal_of(signals, position) for position in range(len(signals))]


@dataclass(frozen=True)
class Weighted(Tabular):
    """A sum of independent operands, each times a weight: its constant derivative. An operand that is minus infinity in places is
    a mask, and the rest of its numbers what it adds."""

    derivatives: tuple[Rule | None, ...] | Variadic

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        places = [low_places(value) for value in case.values]
        if any(low is not None and self._weight(i, signals) < 0.0 for i, low in enumerate(places)):
            raise NotImplementedError("infinity in places")
        whole = zip(signals, case.values, places, strict=True)
        left = [shown(value, low) if value is not None and low is not None else x for x, value, low in whole]
        total = summed_up(case, [multiple(self._weight(i, signals), x) for i, x in enumerate(present(left))])
        return reduce(lambda x, low: masked(case, x, low), (low for low in places if low is not None), total)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        return gathered(case, position, multiple(self._weight(position, signals), adjoint))

    def _weight(self, position: int, signals: Sequence[Signal | None]) -> float:
        derivative = self.derivatives[position]
        assert derivative is not None
        return float(derivative(None, *signals, None))


class Product:
    """A product of two independent operands."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return reduce(independent_product, present(signals))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        (other,) = (i for i in range(len(signals)) if i != position)
        return gathered(case, position, independent_product(adjoint, signal_of(signals, other)))


class Quotient:
    """A number over a divisor that is known, or that does not vary."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return independent_product(signal_of(signals, 0), _reciprocal(case, signals[1]))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position == 1:
            raise NotImplementedError("the adjoint of a divisor needs the joint distribution of the quotient and it")
        return gathered(case, position, independent_product(adjoint, _reciprocal(case, signals[1])))


def _reciprocal(case: Case, divisor: Signal | None) -> Signal:
    if len(case.values) > 1 and case.values[1] is not None and (case.values[1] != 0).all():
        inverse = 1.0 / np.asarray(case.values[1], np.float64)
        return constant(float(inverse.mean()), float((inverse * inverse).mean()))
    if divisor is not None and divisor.mean != 0.0 and divisor.variance <= 1e-12 * divisor.square:
        return constant(1.0 / divisor.mean, 1.0 / divisor.mean**2)
    if divisor is None:
        raise Unknown(1)
    raise NotImplementedError("E[1/b^2] of a divisor that varies is not a function of its first two moments")


@dataclass(frozen=True)
class Reduced:
    """A sum over axes, times ``weight(number of summands)``."""

    axes: Callable[[Case], Sequence[int]]
    weight: Callable[[int], float]

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        shape = case.shapes[0]
        assert shape is not None
        return multiple(self._weight(case), total(case, signal_of(signals, 0), shape, self.axes(case)))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        """Every summand gets the adjoint of the sum: samples, or positions, that were summed over now have one and the same."""
        shape = case.shapes[0]
        assert shape is not None
        over = {role(shape, axis, case.samples) for axis in self.axes(case)}
        same = replace(
            adjoint,
            within=adjoint.square if "position" in over else adjoint.within,
            across=adjoint.square if "batch" in over else adjoint.across,
        )
        return multiple(self._weight(case), same)

    def _weight(self, case: Case) -> float:
        shape = case.shapes[0]
        assert shape is not None
        return self.weight(case.count([shape[axis] for axis in self.axes(case)]))


LARGEST = "the largest of correlated entries is taken to be Gaussian"


@lru_cache(maxsize=256)
def largest_of(k: int) -> tuple[float, float]:
    """Mean and variance of the largest of k independent standard normal numbers, by quadrature."""
    x = np.linspace(-12.0, 12.0, 6001)
    density = k * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi) * special.ndtr(x) ** (k - 1)
    mean = float(np.trapezoid(x * density, x))
    return mean, float(np.trapezoid(x * x * density, x)) - mean * mean


@dataclass(frozen=True)
class Extreme:
    """The largest (``sign`` 1) or the least (-1) of the entries along axes, one of which gets the whole adjoint."""

    axes: Callable[[Case], Sequence[int]]
    sign: float

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x, (n, positions) = signal_of(signals, 0), self._over(case)
        common = min(max((x.within if positions else x.mean**2) - x.mean**2, 0.0), x.variance)
        top, rest = largest_of(n)
        mean = x.mean + self.sign * math.sqrt(x.variance - common) * top
        square = mean**2 + common + (x.variance - common) * rest
        across = mean**2 + min(max(x.across - x.mean**2, 0.0), x.variance)
        return replace(x, mean=mean, square=square, within=mean**2 + common, across=across, doubt=x.doubt or LARGEST)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        n, positions = self._over(case)
        within = 0.0 if positions else adjoint.within / n**2
        return replace(adjoint, square=adjoint.square / n, within=within, across=adjoint.across / n**2)

    def _over(self, case: Case) -> tuple[int, bool]:
        shape = case.shapes[0]
        assert shape is not None
        over = self.axes(case)
        positions = all(role(shape, axis, case.samples) == "position" for axis in over)
        return max(case.count([shape[axis] for axis in over]), 1), positions


@dataclass(frozen=True)
class Turned:
    """Features turned among themselves, differently at each position: every square stays, and is taken to stay for pairs."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return signal_of(signals, 0)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position:
            raise NotImplementedError("the angles' gradient is not predicted")
        return adjoint


@dataclass(frozen=True)
class Separable:
    """A linear map of the positions, one known matrix [out, in] for each axis that it changes: resampling."""

    matrices: Callable[[Case], Sequence[Array | None]]

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        own, every = self._sums(case, 1)
        return replace(
            x,
            mean=x.mean * self._mean(case),
            square=own * x.square + (every - own) * x.within,
            within=every * x.within,
            across=every * x.across,
        )

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position:
            raise NotImplementedError("only the resampled values have a predicted gradient")
        own, every = self._sums(case, 0)
        square = own * adjoint.square + (every - own) * adjoint.within
        return replace(adjoint, square=max(square, 0.0), within=every * adjoint.within, across=every * adjoint.across)

    def _known(self, case: Case) -> list[Array]:
        known = [matrix for matrix in self.matrices(case) if matrix is not None]
        if len(known) < len(self.matrices(case)):
            raise NotImplementedError("how it resamples is not known before a run")
        return known

    def _mean(self, case: Case) -> float:
        return float(np.prod([matrix.sum(1).mean() for matrix in self._known(case)]))

    def _sums(self, case: Case, axis: int) -> tuple[float, float]:
        """Averages over a row (axis 1) or a column of the sum of squares, and of the square of the sum."""
        known = self._known(case)
        own = np.prod([(matrix**2).sum(axis).mean() for matrix in known])
        return float(own), float(np.prod([(matrix.sum(axis) ** 2).mean() for matrix in known]))
