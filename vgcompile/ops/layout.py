"""Reshaping, moving, joining and repeating: each element's adjoint goes back to where the element came from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.interval import WHOLE, Interval
from vgcompile.ops.families import Carried, layout, spread
from vgcompile.ops.maps import one_sample, rearranged
from vgcompile.ops.moments import present, role, scattered, signal_of
from vgcompile.ops.op import Array, Case, Op, Tangent, sample
from vgcompile.ops.shape import extents, is_sample_axis, repeats, reshaped, shaped, summed, zeros_like
from vgcompile.signal import Signal, Table, bent, replace


@dataclass(frozen=True)
class Moved:
    """Moments of an operator that moves elements or drops some: the adjoint's total is kept, spread over the input, or at the
    ``places`` of each axis that are known to be read."""

    places: Callable[[Case], Mapping[int, Sequence[int]]] = lambda case: {}

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal | tuple[Signal, ...]:
        x = signal_of(signals, 0)
        return x if len(case.outputs) == 1 else (x,) * len(case.outputs)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        out, mine = case.outputs[case.output], case.shapes[position]
        if out is not None and mine is not None and len(out) == len(mine):
            return scattered(case, position, adjoint, out, self.places(case))
        return adjoint.scaled(case.count(out) / max(case.count(mine), 1))


@dataclass(frozen=True)
class Repeated:
    """Moments of an operator that repeats elements: an element's adjoint is the sum over its copies."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return signal_of(signals, 0)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        copies = max(case.count(case.outputs[0]) // max(case.count(case.shapes[position]), 1), 1)
        shared = case.batch if copies % case.batch == 0 and not _has_batch(case, position) else 1
        one = Signal(1.0, 1.0, 1.0, 1.0)
        total = summed(adjoint, one, shared, copies // shared)
        if shared > 1 or case.batch == 1:
            return total
        k = copies
        return replace(total, within=k * k * adjoint.within, across=k * k * adjoint.across)


def _has_batch(case: Case, position: int) -> bool:
    dims = case.shapes[position]
    return dims is not None and any(is_sample_axis(dims, axis, case.batch) for axis in range(len(dims)))


def _repeat_norms(case: Case, position: int) -> tuple[float, float]:
    """||J^T g||: each element sums the adjoints of its k copies, at most sqrt(k) times their norm."""
    copies = repeats(case, position)
    return (1.0, 1.0) if copies == 1 else (0.0, math.sqrt(copies))


def restriction(case: Case, position: int) -> tuple[float, float]:
    """The adjoint of an embedding: a part of g arrives, in the best case all of it, in the worst nothing."""
    return (0.0, 1.0)


def _rearranged(case: Case) -> Interval:
    """Follow a reshape. Only a leading symbol can be followed, read as one sample; anything else leaves the hull."""
    given, dims, out = case.ranges[0] or WHOLE, case.shapes[0], case.outputs[0]
    if given.lo.ndim == 0 or dims is None or out is None or any(isinstance(dim, str) for dim in (*dims[1:], *out[1:])):
        return given.scalar()
    one = [1 if isinstance(dim, str) else dim for dim in dims]
    target = [-1 if isinstance(dim, str) else dim for dim in out]
    moved = given.map(lambda x: np.reshape(np.broadcast_to(x, one), target))
    if out and isinstance(out[0], str):  # several positions of a sample may have landed in the leading axis
        return Interval(moved.lo.min(axis=0, keepdims=True), moved.hi.max(axis=0, keepdims=True))
    return moved if not isinstance(dims[0] if dims else 1, str) else given.scalar()


def _reshape(name: str, doc: str, vjp: Any, samples: Any, numpy: Any) -> Op:
    return layout(name, doc, vjp=vjp, samples=samples, numpy=numpy, range=_rearranged, rearranges=True)


def _reshape_numpy(x: Array, shape: Array, allowzero: int = 0, **_: Any) -> Array:
    return np.reshape(x, [x.shape[i] if dim == 0 and not allowzero else dim for i, dim in enumerate(np.asarray(shape).tolist())])


Reshape = _reshape(
    "Reshape",
    "The same elements, in the same order, under another shape.",
    vjp=lambda op, g, y, x, shape, **_: (reshaped(op, g, x), None),
    numpy=_reshape_numpy,
    samples=(
        sample(("N", 2, 6), np.array([-1, 12])),
        sample(("N", 2, 6), np.array([0, 3, 4])),
        sample(("N", 3, "T"), np.array([0, -1])),
        sample((4, 3), np.array([2, 6])),
    ),
)

Flatten = _reshape(
    "Flatten",
    "A matrix: the axes before `axis` in its rows, the rest in its columns.",
    vjp=lambda op, g, y, x, axis: (reshaped(op, g, x),),
    numpy=lambda x, axis=1: np.reshape(x, (math.prod(x.shape[:axis]), -1)),
    samples=(sample(("N", 2, 3)), sample(("N", 2, "H", "W")), sample((2, 3, 4), axis=2), sample((2, 3), axis=0)),
)


def _squeeze_vjp(op: Any, g: Any, y: Any, x: Any, axes: Any = None) -> tuple[Any, ...]:
    return (reshaped(op, g, x) if axes is None else shaped(op.Unsqueeze(g, axes), x), None)


Squeeze = _reshape(
    "Squeeze",
    "Drops axes of extent 1.",
    vjp=_squeeze_vjp,
    numpy=lambda x, axes=None: np.squeeze(x, None if axes is None else tuple(np.asarray(axes).tolist())),
    samples=(sample(("N", 1, 3), np.array([1])), sample(("N", 1, 3, 1), np.array([-1, 1]))),
)

Unsqueeze = _reshape(
    "Unsqueeze",
    "Adds axes of extent 1.",
    vjp=lambda op, g, y, x, axes: (shaped(op.Squeeze(g, axes), x), None),
    numpy=lambda x, axes: np.expand_dims(x, tuple(np.asarray(axes).tolist())),
    samples=(sample(("N", 3), np.array([1])), sample(("N", 3), np.array([0, -1]))),
)


@dataclass(frozen=True)
class Permuted(Carried):
    """Axes in another order: rows may become columns."""

    def table(self, case: Case, table: Table) -> Table | None:
        rank = len(case.shapes[0] or ())
        last = tuple(case.attributes.get("perm") or range(rank)[::-1])[-2:]
        return {(rank - 2, rank - 1): table, (rank - 1, rank - 2): table.turned}.get(last)


def _transpose_vjp(op: Any, g: Any, y: Any, x: Any, perm: Sequence[int] | None = None) -> tuple[Any, ...]:
    return (shaped(op.Transpose(g, perm=None if perm is None else np.argsort(perm).tolist()), x),)


Transpose = layout(
    "Transpose",
    "Axes in another order.",
    vjp=_transpose_vjp,
    numpy=lambda x, perm=None: np.transpose(x, perm),
    samples=(sample(("N", 3)), sample(("N", 2, 3), perm=[1, 2, 0]), sample((2, "N", "T", 3), perm=[0, 2, 1, 3])),
    moments=Permuted(),
    rearranges=True,
)


def _expanded(case: Case, position: int) -> Tangent | None:
    """Copies along axes of known extent; what no sample axis counts must not meet one."""
    dims, out = case.shapes[0], case.outputs[0]
    single = one_sample(out)
    if single is None or dims is None or len(dims) != len(single) or (dims[:1] != (out or ())[:1]):
        return None
    return rearranged(case, 0, lambda x: np.broadcast_to(x, (*x.shape[:1], *single[1:])))


Expand = layout(
    "Expand",
    "Broadcasts to a shape; the adjoint sums over the copies.",
    vjp=lambda op, g, y, x, shape: (g, None),
    norms=_repeat_norms,
    tangent=_expanded,
    moments=Repeated(),
    range=lambda case: case.ranges[0] or WHOLE,
    samples=(sample((3,), np.array([2, 3])), sample(("N", 1, 3), np.array([1, 4, 1])), sample((2, 1), np.array([3, 1, 4]))),
)


def _tile_vjp(op: Any, g: Any, y: Any, x: Any, times: Any) -> tuple[Any, ...]:
    """Axis i of g is (repeat, extent): sum over the repeats."""
    rank = len(extents(x))
    if rank == 0:
        return (g, None)
    pairs = op.Concat(op.Unsqueeze(times, [1]), op.Unsqueeze(op.Shape(x), [1]), axis=1)
    split = op.Reshape(g, op.Reshape(pairs, [2 * rank]))
    return (shaped(op.ReduceSum(split, list(range(0, 2 * rank, 2)), keepdims=0), x), None)


Tile = layout(
    "Tile",
    "Repeats a tensor along its axes.",
    vjp=_tile_vjp,
    norms=_repeat_norms,
    tangent=lambda case, position: rearranged(case, 0, lambda x: np.tile(x, np.asarray(case.values[1]))),
    moments=Repeated(),
    range=lambda case: (case.ranges[0] or WHOLE).scalar(),
    samples=(sample(("N", 3), np.array([1, 2])), sample((2, "T", 3), np.array([3, 2, 1]))),
)


def _concat_vjp(op: Any, g: Any, y: Any, *x: Any, axis: int) -> tuple[Any, ...]:
    """Split along the axis, at sizes that are constants where they are known."""
    if len(x) == 1:
        return (g,)
    sizes = [extents(value)[axis] for value in x]
    if any(isinstance(size, str) for size in sizes):
        parts = [op.Shape(value, start=axis, end=axis + 1 if axis != -1 else None) for value in x]
        pieces = op.emit("Split", g, op.Concat(*parts, axis=0), outputs=len(x), axis=axis)
    else:
        pieces = op.emit("Split", g, sizes, outputs=len(x), axis=axis)
    return tuple(shaped(piece, value) for piece, value in zip(pieces, x, strict=True))


def _concat_range(case: Case) -> Interval:
    """The parts side by side where their extents are known, else their hull."""
    axis = case.attributes["axis"]
    given = [bound or WHOLE for bound in case.ranges]
    parts = [] if any(dims is None for dims in case.shapes) else [dims for dims in case.shapes if dims is not None]
    if not parts or any(isinstance(dims[axis], str) for dims in parts):
        hull = given[0].scalar()
        for other in given[1:]:
            hull = hull.hull(other.scalar())
        return hull
    lo = np.concatenate([spread(bound.lo, dims) for bound, dims in zip(given, parts, strict=True)], axis)
    return Interval(lo, np.concatenate([spread(bound.hi, dims) for bound, dims in zip(given, parts, strict=True)], axis))


def _joined(case: Case, position: int) -> Tangent | None:
    """One part among elements that come from elsewhere."""
    axis = int(case.attributes["axis"])

    def place(x: Array) -> Array:
        parts = []
        for other, dims in enumerate(case.shapes):
            extent = (dims or ())[axis]
            if isinstance(extent, str):
                raise ValueError("a part of unknown extent")
            aside = list(x.shape)
            aside[axis] = extent
            parts.append(x if other == position else np.full(aside, -1))
        return np.concatenate(parts, axis)

    return rearranged(case, position, place)


@dataclass(frozen=True)
class Mixture:
    """Moments of tensors joined: averages weighted by the number of elements; each part of the adjoint keeps its statistics.

    Of parts joined along the one axis of positions, as a class token and the words behind it, the profile is known.
    """

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        known = present(signals)
        weights = np.array([case.count(dims) for dims in case.shapes], float)
        weights /= weights.sum()

        def mean(field: str) -> float:
            return float(weights @ [getattr(signal, field) for signal in known])

        places = self._places(case)
        squares = [signal.square * signal.places(len(place)) for signal, place in zip(known, places, strict=False)]
        return Signal(
            mean("mean"),
            mean("square"),
            mean("within"),
            mean("across"),
            along=bent((tuple(np.concatenate(squares).tolist()),), 1.0) if squares and np.ptp(np.concatenate(squares)) else (),
            doubt=next((s.doubt for s in known if s.doubt), ""),
        )

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        places = self._places(case)
        if not places or not adjoint.along:
            return adjoint
        mine = adjoint.places(places[-1].stop)[places[position].start : places[position].stop]
        share = float(mine.mean())
        return replace(adjoint.scaled(share), along=(tuple((mine / share).tolist()),) if share > 0.0 and np.ptp(mine) else ())

    def _places(self, case: Case) -> Sequence[range]:
        """Where each part lies along the axis of positions; nothing where they are joined along another one."""
        shape = case.outputs[0] or ()
        axis = int(case.attributes["axis"]) % max(len(shape), 1)
        if [a for a in range(len(shape)) if role(shape, a, case.samples) == "position"] != [axis]:
            return ()
        extents = [(dims or ())[axis] for dims in case.shapes if dims is not None]
        if len(extents) < len(case.shapes) or not all(isinstance(extent, int) for extent in extents):
            return ()
        ends = np.cumsum([0, *(int(extent) for extent in extents)]).tolist()
        return [range(start, stop) for start, stop in itertools.pairwise(ends)]


Concat = layout(
    "Concat",
    "Tensors joined along an axis.",
    vjp=_concat_vjp,
    range=_concat_range,
    norms=restriction,
    tangent=_joined,
    moments=Mixture(),
    samples=(
        sample(("N", 2), ("N", 3), axis=1),
        sample(("N", 2), ("M", 2), axis=0),
        sample(("N", 2, "T"), ("N", 2, "S"), axis=-1),
    ),
)


def _cut(case: Case, position: int) -> Tangent | None:
    """Every piece that is read, one after the other."""
    axis = int(case.attributes["axis"])
    sizes = [None if dims is None else dims[axis] for dims in case.outputs]
    if any(not isinstance(size, int) for size in sizes):
        return None
    ends = np.cumsum([int(size) for size in sizes if isinstance(size, int)])[:-1]
    return rearranged(case, 0, lambda x: np.split(x, ends, axis))


def _split_vjp(op: Any, g: Any, y: Any, x: Any, sizes: Any = None, **attributes: Any) -> tuple[Any, ...]:
    adjoints, outputs = (g, y) if isinstance(y, tuple) else ((g,), (y,))
    parts = [zeros_like(op, part) if adjoint is None else adjoint for adjoint, part in zip(adjoints, outputs, strict=True)]
    return (shaped(op.Concat(*parts, axis=attributes["axis"]), x), None)


def _pieces(x: Any, sizes: Any = None, *, axis: int = 0, **_: Any) -> Any:
    """A piece has the extents of x but for one; where the sizes are computed ONNX's inference does not say so."""
    if x.shape is None or sizes is None or sizes.shape is None or not isinstance(sizes.shape[0], int):
        return None
    dims: list[Any] = list(extents(x))
    dims[axis] = None
    return tuple(ir.Value(shape=ir.Shape(dims)) for _ in range(sizes.shape[0]))


Split = layout(
    "Split",
    "A tensor cut into pieces along an axis.",
    vjp=_split_vjp,
    range=lambda case: ((case.ranges[0] or WHOLE).scalar(),) * len(case.outputs),
    tangent=_cut,
    moments=Moved(),
    infer=_pieces,
    samples=(
        sample(("N", 5), np.array([2, 3]), outputs=2, axis=1),
        sample((6, "T"), outputs=3, axis=0, num_outputs=3),
        sample((2, 6), outputs=2, axis=-1, num_outputs=2),
    ),
)

_DEPTH = (
    sample(("N", 8, 2, 3), blocksize=2),
    sample(("N", 8, "H", "W"), blocksize=2, mode="CRD"),
    sample((2, "C", 2, 3), blocksize=1, mode="CRD"),
)


def _depth_vjp(op: Any, g: Any, y: Any, x: Any, blocksize: int, mode: str = "DCR") -> tuple[Any, ...]:
    """SpaceToDepth undoes DepthToSpace up to the order of channels: (row, column, depth), where CRD has (depth, row, column)."""
    dx = op.SpaceToDepth(g, blocksize=blocksize)
    if mode == "CRD":
        channels = extents(x)[1]
        if isinstance(channels, int):
            order: Any = np.arange(channels).reshape(blocksize**2, -1).T.ravel()
        else:
            count = op.Range(0, op.Squeeze(op.Shape(x, start=1, end=2), [0]), 1)
            order = op.Reshape(op.Transpose(op.Reshape(count, [blocksize**2, -1])), [-1])
        dx = op.Gather(dx, order, axis=1)
    return (shaped(dx, x),)


DepthToSpace = layout(
    "DepthToSpace",
    "Channels spread into blocks of pixels.",
    vjp=_depth_vjp,
    samples=_DEPTH,
    range=lambda case: (case.ranges[0] or WHOLE).scalar(),
    rearranges=True,
)

SpaceToDepth = layout(
    "SpaceToDepth",
    "Blocks of pixels gathered into channels.",
    vjp=lambda op, g, y, x, blocksize, mode=None: (shaped(op.DepthToSpace(g, blocksize=blocksize, mode=mode), x),),
    samples=(sample(("N", 2, 4, 6), blocksize=2),),
    range=lambda case: (case.ranges[0] or WHOLE).scalar(),
    rearranges=True,
)

Trilu = layout(
    "Trilu",
    "The upper or the lower triangle, zeros elsewhere.",
    unpredicted="what is kept differs from position to position, and positions are taken to be alike",
    vjp=lambda op, g, y, x, k=None, upper=1: (shaped(op.Trilu(g, k, upper=upper), x), None),
    norms=restriction,
    moments=None,
    range=lambda case: (case.ranges[0] or WHOLE).scalar().hull(Interval(np.zeros(()), np.zeros(()))),
    samples=(sample((3, 3)), sample(("N", 3, 4), np.array(1), upper=0)),
)

ROWS = (Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Tile, Concat, Split, DepthToSpace, SpaceToDepth, Trilu)
