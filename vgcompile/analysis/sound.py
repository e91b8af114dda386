"""The sound tier: for every edge an interval that contains its gain, for every input of a stated set and these weights, or all
that their initializers may draw (:mod:`vgcompile.analysis.bounds.support`).

Forward, an enclosure of every value (rounded outward). From it, for every operator, the extremes of ||J^T g|| / ||g|| over the
set: true slope extrema for elementwise operators, certified norms for linear ones. Backward, several domains
(:mod:`vgcompile.analysis.bounds`), of which the intersection is kept: the product of these factors along the graph, in log10, so
that 1e-40 survives, with the triangle inequality both ways where a value has several uses; and exact products of known maps
with an ellipsoid of what is uncertain.

The ratio over a batch is an average of per-sample ratios, so the bound for one sample holds for every batch. What all samples
share, a parameter, collects a part from each of N samples: its bounds are against sqrt(N) ||dL/dy||. What depends on data and is
still used by several samples, the mean of a batch, has no bound for every N, and gets none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial

import onnx_ir as ir
from threadpoolctl import ThreadpoolController

from vgcompile.analysis.bounds.domains import DOMAINS, Domain
from vgcompile.analysis.bounds.ellipsoid import Followed, follow
from vgcompile.analysis.bounds.enclosure import Enclosure, enclose
from vgcompile.analysis.bounds.factors import Use, factors
from vgcompile.analysis.bounds.logs import Bounds, join, minus
from vgcompile.analysis.bounds.region import Region, hull, region
from vgcompile.analysis.bounds.slopes import tangent
from vgcompile.analysis.bounds.sweep import Sweep, backward, joined
from vgcompile.analysis.edges import beyond_outputs, made
from vgcompile.analysis.uses import learned
from vgcompile.graph.network import Network
from vgcompile.graph.view import leading_to
from vgcompile.interval import Interval
from vgcompile.ops import lookup
from vgcompile.ops.op import Tangent

MOST_NODES = 4096  # nodes times pieces of the region; beyond them one box stands for all pieces


@dataclass(frozen=True)
class SoundTier:
    """``gain`` and ``total`` are against ||dL/dy||; ``local`` is the operator's own factor. ``by`` names the domains that gave
    the ends of a gain.

    Values that reach y by no differentiable way are absent.
    """

    gain: Mapping[Use, Bounds]
    total: Mapping[ir.Value, Bounds]
    local: Mapping[Use, Bounds]
    ranges: Mapping[ir.Value, Interval]
    by: Mapping[Use, tuple[str, str]]
    relative_to: Callable[[ir.Value], Mapping[ir.Value, Bounds]]


@dataclass(frozen=True)
class _Piece:
    """All that is known on one piece of the region."""

    known: Enclosure
    local: Mapping[Use, Bounds]
    sweep: Sweep


def sound(network: Network, stated: str | Region, unit: float = 0.0, domains: Sequence[Domain] = DOMAINS) -> SoundTier:
    """Bound every edge on the stated set, a region or the text of one, by the product and these domains.

    With a ``unit``, bound what a run may show that reads every operand with this relative error, and computes functions of one
    number and all slopes with an error of so much of their largest term.
    """
    where = region(network, stated) if isinstance(stated, str) else stated
    pieces = where.pieces
    if len(pieces) > 1 and len(pieces) * sum(1 for _ in network.model.graph) > MOST_NODES:
        pieces = (hull(pieces),)
    seeds = _seeds(network)
    following = partial(_follow, network, unit, domains)
    with _one_thread():
        known = (enclose(network, piece, unit, where.parameters, domains) for piece in pieces)
        found = [_piece(network, each, seeds, unit, following) for each in known]
    whole = joined(piece.sweep for piece in found)

    def relative_to(reference: ir.Value) -> Mapping[ir.Value, Bounds]:
        """Bounds of ||adjoint of v|| / ||adjoint of reference||: the product between the two where every way from v to y passes
        through the reference, and the quotient of the two bounds elsewhere."""
        anchor = {reference: (0.0, 0.0)}
        with _one_thread():
            sweeps = [
                backward(network, piece.local, anchor, following(piece.known, piece.local, anchor), piece.sweep)
                for piece in found
            ]
        between = joined(sweeps).total
        lo, hi = whole.total.get(reference, (-math.inf, math.inf))
        return {value: between.get(value, (minus(a, hi), -minus(lo, b))) for value, (a, b) in whole.total.items()}

    return SoundTier(whole.gain, whole.total, _joined_factors(found), _joined_ranges(found), whole.by, relative_to)


def _one_thread() -> AbstractContextManager[object]:
    """Linear algebra in one thread: of matrices as small as ours a second one saves little, and where it has no core of its own
    the two wait for each other a hundred times longer than they work."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited


@cache
def _libraries() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  it brings a library of its own, which is to be found

    return ThreadpoolController()


def _piece(
    network: Network, known: Enclosure, seeds: Mapping[ir.Value, Bounds], unit: float, following: Callable[..., Followed]
) -> _Piece:
    local = factors(network, known, unit)
    return _Piece(known, local, backward(network, local, seeds, following(known, local, seeds)))


def _follow(
    network: Network,
    unit: float,
    domains: Sequence[Domain],
    known: Enclosure,
    local: Mapping[Use, Bounds],
    seeds: Mapping[ir.Value, Bounds],
) -> Followed:
    def near(use: Use) -> Tangent | None:
        node, position = use
        row = lookup(node.op_type, node.domain)
        return None if row is None else tangent(row, known.cases[node], position, unit)

    return follow(known, local, seeds, near, learned(network), domains)


def _joined_factors(pieces: list[_Piece]) -> Mapping[Use, Bounds]:
    first, *others = (piece.local for piece in pieces)
    local = dict(first)
    for other in others:
        local = {use: join(bounds, other[use]) for use, bounds in local.items()}
    return local


def _joined_ranges(pieces: list[_Piece]) -> Mapping[ir.Value, Interval]:
    first, *others = (piece.known.ranges for piece in pieces)
    ranges = dict(first)
    for other in others:
        ranges = {value: bound.hull(other[value]) for value, bound in ranges.items() if value in other}
    return ranges


def _seeds(network: Network) -> dict[ir.Value, Bounds]:
    """dL/dy for the outputs, of several each a part; nothing is known of what the loss reads beside them."""
    beyond, wanted = beyond_outputs(network), set(network.outputs)
    graph = network.model.graph
    inside = [value for node in graph if node not in beyond for value in node.outputs]
    seeds = {value: (0.0 if len(wanted) == 1 else -math.inf, 0.0) for value in inside if value.name in wanted}
    into_loss = beyond & leading_to(graph, made(graph, {network.loss})) if network.loss else set()
    beside = [value for value in inside if value not in seeds and not into_loss.isdisjoint(value.consumers())]
    return seeds | dict.fromkeys(beside, (-math.inf, math.inf))
