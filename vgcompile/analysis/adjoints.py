"""Adjoints of every value, in reverse graph order, from the values that enter the loss.

What goes back is a set of waves: an adjoint that arrives from one source, independent of every other, times a profile over the
nodes of the base that the value is a function of.

Finite width (Hanin & Nica 2020, generalized): passing a random matrix onto n units whose slopes are D, ln ||adjoint||^2 gains the
variance (3 kappa - 1)/n for one adjoint, kappa = E[D^4]/E[D^2]^2. For M adjoints (samples and positions) with mean squared
cosine c it is the average over pairs, ((3 kappa)/M + (1 - 1/M) kappa' (1 + 2 c) - 1)/n, kappa' = E[D^2 D'^2]/E[D^2]^2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.forward import Forward, mixed
from vgcompile.analysis.readings import Base
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.families import Carried
from vgcompile.ops.moments import gathered
from vgcompile.ops.op import Case, Moments, Op, Stepwise, Tabular
from vgcompile.ops.reading import slope
from vgcompile.signal import Profile, Signal, Table, bent, blended, joined, replace

Array = np.ndarray[Any, Any]
ONE = np.ones(())  # a profile that is the same at every node


@dataclass(frozen=True)
class Source:
    """An adjoint before the profile.

    Its statistics per element up to a factor of exp(log) in the square (so that 1e-300 survives), how many independent units a
    random matrix spread it onto (None: it came through none), and how many adjoints, samples and positions, there are.
    """

    adjoint: Signal
    log: float
    units: int | None
    count: int


Waves = dict[int, tuple[Source, Array]]  # keyed by the source's number


class Share(NamedTuple):
    """A wave where it arrives: E[profile^2], its squared adjoint per element, what mixing adds to the variance of the log and
    multiplies the tail by."""

    source: Source
    profile: Array
    mean: float
    square: float
    added: float
    longer: float


@dataclass(frozen=True)
class Flow:
    """ln E||adjoint||^2 and the variance of ln ||adjoint||^2; ``doubt`` says which assumption is known to be broken."""

    log: float
    spread: float
    doubt: str = ""


def _operand(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    assert value is not None
    return value


class Adjoints:
    """The sweep; ``parts`` are the flows of every use, ``totals`` of every value, ``lost`` says why a value has none."""

    def __init__(self, network: Network, batch: int, forward: Forward) -> None:
        self.network, self.batch, self.forward = network, batch, forward
        values = {value.name: value for node in network.model.graph for value in node.outputs}
        self.outputs = [values[name] for name in network.outputs]
        self.waves: dict[ir.Value, Waves] = {}
        self.parts: dict[tuple[ir.Node, int], Flow] = {}
        self.totals: dict[ir.Value, Flow] = {}
        self.lost: dict[ir.Value, str] = {}
        self.steps: dict[tuple[ir.Node, int], Array] = {}
        self._parameters = set(network.parameters)
        self._known: dict[ir.Value, tuple[Waves, list[Share], float]] = {}
        self._counts: dict[ir.Value, int] = {}
        self._slopes: dict[Hashable, Array] = {}
        self._sources = 0

    def run(self) -> None:
        for output in self.outputs:
            self._add(output, self._seed(output))
        self.totals.update({output: self._flow(output, self.waves[output]) for output in self.outputs})
        for node in reversed(list(self.network.model.graph)):
            lost = next((self.lost[value] for value in node.outputs if value in self.lost), None)
            arriving = {k: self.waves[value] for k, value in enumerate(node.outputs) if value in self.waves}
            if lost is not None:
                for value in node.outputs:
                    self.totals.pop(value, None)
                self._lose(node, lost)
                continue
            for k, waves in arriving.items():
                self._total(node.outputs[k], waves)
            if arriving:
                self._node(node, arriving)
        for value in (*self.network.model.graph.inputs, *self.network.model.graph.initializers.values()):
            if value in self.lost:
                self.totals.pop(value, None)
            elif value in self.waves:
                self._total(value, self.waves[value])

    def _total(self, value: ir.Value, waves: Waves) -> None:
        if value not in self.totals:
            self.totals[value] = self._flow(value, waves)

    def _seed(self, output: ir.Value) -> Waves:
        """dL/dy up to its length: what the loss says of its correlation across samples, else independent Gaussian adjoints."""
        count = self._case_count(output)
        width = max(count // self.batch, 1)
        seed = Signal(0.0, 1.0, 0.0, 0.0, alignment=1.0 / width)
        losses = {self.network.loss, *self.network.parts}
        for node, position in ((use.node, use.idx) for use in output.uses()):
            row = lookup(node.op_type, node.domain)
            if row is None or row.moments is None or node.outputs[0].name not in losses:
                continue
            try:
                signals = self.forward.signals_of(node)
                seed = row.moments.backward(self.forward.case(node), position, Signal(0.0, 1.0, 1.0, 1.0), signals)
            except NotImplementedError:
                continue
        several = len(self.outputs) > 1 and self.network.loss is not None
        doubt = "of several losses, what each one sends is not predicted" if several else seed.doubt
        return self._wave(replace(seed, spread=0.0, doubt=doubt), 0.0, None, self.batch)

    def _case_count(self, value: ir.Value) -> int:
        if value not in self._counts:
            self._counts[value] = math.prod(self.batch if isinstance(dim, str) else dim for dim in self.forward.dims(value))
        return self._counts[value]

    def _wave(self, adjoint: Signal, log: float, units: int | None, count: int) -> Waves:
        self._sources += 1
        return {self._sources: (Source(adjoint, log, units, max(count, 1)), ONE)}

    def _add(self, value: ir.Value, waves: Waves) -> None:
        if value not in self.waves:
            self.waves[value] = waves
            return
        mine = self.waves[value] = dict(self.waves[value])
        for number, (source, profile) in waves.items():
            mine[number] = (source, mine[number][1] + profile) if number in mine else (source, profile)

    def _node(self, node: ir.Node, arriving: Mapping[int, Waves]) -> None:
        row = lookup(node.op_type, node.domain)
        if row is not None and row.blocked:
            return
        unstable = self.forward.unstable(node.outputs[0])
        if unstable:
            arriving = {k: _doubted(waves, unstable) for k, waves in arriving.items()}
        if row is not None and row.elementwise and self.forward.common_base(node) is not None:
            self._elementwise(node, row, arriving[0])
        elif row is None or row.moments is None:
            self._lose(node, self.forward.unpredicted(node, row))
        elif isinstance(row.moments, Carried):
            self._hand_on(node, 0, self._carried(node, row.moments, arriving[0]))
        else:
            self._put_through(node, row.moments, arriving)

    def _carried(self, node: ir.Node, moments: Carried, waves: Waves) -> Waves:
        """The waves where elements come from, their rows and columns read as they are there."""
        if all(source.adjoint.table is None for source, _ in waves.values()):
            return waves
        case = self.forward.case(node)
        moved = {number: (moments.backward(case, 0, source.adjoint, ()), source, p) for number, (source, p) in waves.items()}
        return {number: (dataclasses.replace(source, adjoint=adjoint), p) for number, (adjoint, source, p) in moved.items()}

    def _put_through(self, node: ir.Node, moments: Moments, arriving: Mapping[int, Waves]) -> None:
        """New waves, one for each output and input: what the operator's row makes of the adjoint's statistics."""
        totals = {k: self._collapse(node.outputs[k], waves) for k, waves in arriving.items()}
        case, signals = self.forward.case(node), self.forward.signals_of(node)
        for position, value in enumerate(node.inputs):
            if value is None or not is_real(value) or (value not in self.forward.signals and value.producer() is None):
                continue
            waves: Waves = {}
            try:
                for k, (arrived, log) in totals.items():
                    total = arrived if arrived.table is None or isinstance(moments, Tabular) else replace(arrived, table=None)
                    there = dataclasses.replace(case, output=k) if k else case
                    adjoint = moments.backward(there, position, total, signals)
                    waves |= self._mixed(node, position, case, adjoint, total, log)
                    if isinstance(moments, Stepwise):
                        self._keep_steps(node, position, moments.steps(there, position, total, signals), log)
            except NotImplementedError as error:
                self.lost[value] = self.forward.reason(node, error)
                continue
            self._hand_on(node, position, waves)

    def _mixed(self, node: ir.Node, position: int, case: Case, adjoint: Signal, total: Signal, log: float) -> Waves:
        """The wave of an input, with what the row's random operand does to its alignment and its spread."""
        value = _operand(node, position)
        units, count = self._mixing(node, position, case)
        # A parameter collects the sum over samples, whose length fluctuates with the few directions that they have in common.
        shared = 2.0 * total.alignment if value in self.forward.random or value.name in self._parameters else 0.0
        spread = max(adjoint.spread, total.spread) + shared
        adjoint = replace(
            adjoint, alignment=mixed(total.alignment, units), spread=spread, tail=total.tail, doubt=adjoint.doubt or total.doubt
        )
        return self._wave(adjoint, log, units, count)

    def _keep_steps(self, node: ir.Node, position: int, squares: Array, log: float) -> None:
        """ln of an edge's profile over steps: what several outputs send adds up."""
        if not squares.size:
            return
        with np.errstate(divide="ignore"):
            self.steps[node, position] = np.logaddexp(self.steps.get((node, position), -math.inf), np.log(squares) + log)

    def _mixing(self, node: ir.Node, position: int, case: Case) -> tuple[int | None, int]:
        """Over how many independent units, and for how many adjoints, a random operand spreads the adjoint of this input."""
        value, random = _operand(node, position), self.forward.random
        if value in random:
            return None, self.batch
        others = [v for i, v in enumerate(node.inputs) if v in random and i != position]
        matrix = next((v for v in others if v is not None and len(dims(v)) >= 2), None)
        if matrix is None:
            return None, self.batch
        units = self.forward.features(value, matrix) or case.count(case.shapes[position]) // self.batch
        return units, max(case.count(case.shapes[position]) // units, 1)

    def _lose(self, node: ir.Node, why: str) -> None:
        """Nothing is known of this node's adjoint: nothing is known of what it hands on, either."""
        self.lost.update({value: why for value in node.inputs if value is not None and value not in self.lost})

    def _elementwise(self, node: ir.Node, row: Op, waves: Waves) -> None:
        case = self.forward.case(node)
        for position, value in enumerate(node.inputs):
            if value is None or (position >= len(row.derivatives) and len(row.derivatives) != 1):
                continue
            reading = self.forward.readings[value]
            if row.derivatives[min(position, len(row.derivatives) - 1)] is None:
                continue
            if reading.base is None and value.name not in self._parameters:
                continue
            d = self._slope(node, row, position)
            through = {number: (source, d if profile is ONE else profile * d) for number, (source, profile) in waves.items()}
            if reading.base is None:
                total, log = self._collapse(node.outputs[0], through)
                through = self._mixed(node, position, case, gathered(case, position, total), total, log)
            self._hand_on(node, position, through)

    def _slope(self, node: ir.Node, row: Op, position: int) -> Array:
        """At the nodes; the same array for all nodes that compute it of the same ones."""
        question = position, self.forward.reads(node)
        if question not in self._slopes:
            operands, attributes = self.forward.operands(node), self.forward.case(node).attributes
            with np.errstate(all="ignore"):
                self._slopes[question] = np.asarray(slope(NUMPY, row, position, operands, **attributes), np.float64)
        return self._slopes[question]

    def _hand_on(self, node: ir.Node, position: int, waves: Waves) -> None:
        value = _operand(node, position)
        flow = self.parts[node, position] = self._flow(value, waves)
        if value not in self.waves:
            self.totals[value] = flow
        else:
            self.totals.pop(value, None)  # several arrive: the sum is worked out when all of them have
        self._add(value, waves)

    def _shares(self, value: ir.Value, waves: Waves) -> tuple[list[Share], float]:
        """Each wave's part of the squared adjoint per element; the ln of the factor that they share."""
        known = self._known.get(value)
        if known is None or known[0] is not waves:
            known = self._known[value] = (waves, *self._parts(value, waves))
        return known[1], known[2]

    def _parts(self, value: ir.Value, waves: Waves) -> tuple[list[Share], float]:
        base = self._base(value)
        top = max(source.log for source, _ in waves.values())
        shares = []
        for source, profile in waves.values():
            bent_by = None if profile is ONE else base  # as most are: no node is unlike another
            mean = bent_by.nodes.pairs(profile).square if bent_by is not None else 1.0
            square = math.exp(source.log - top) * source.adjoint.square * mean
            shares.append(Share(source, profile, mean, square, *_mixing(source, profile, bent_by, mean)))
        return shares, top

    def _base(self, value: ir.Value) -> Base | None:
        reading = self.forward.readings.get(value)
        return reading.base if reading is not None else None

    def _flow(self, value: ir.Value, waves: Waves) -> Flow:
        shares, log = self._shares(value, waves)
        square, spread = _sums(shares)
        size = square * self._case_count(value)
        return Flow(log + math.log(size) if size > 0 else -math.inf, spread, _doubt(waves))

    def _collapse(self, value: ir.Value, waves: Waves) -> tuple[Signal, float]:
        """The adjoint's statistics per element with the base averaged out, scaled to a square of 1, and the ln of that scale."""
        base, (shares, log) = self._base(value), self._shares(value, waves)
        square, spread = _sums(shares)
        if not square > 0:
            return Signal(0.0, 0.0, 0.0, 0.0), -math.inf
        within = across = alignment = tail = 0.0
        for share in (share for share in shares if share.square > 0):
            a, part = share.source.adjoint, share.square / square
            near = far = 1.0
            if base is not None:
                pairs = base.nodes.pairs(share.profile)
                near, far = pairs.at(base.within), pairs.at(base.across)
            scale = part / (a.square * share.mean)
            within += a.within * near * scale
            across += a.across * far * scale
            tail += part * a.tail * share.longer
            alignment += part * a.alignment * (far / share.mean) ** 2
        along = blended([(share.square, _along(share.source.adjoint.along, base, share.profile)) for share in shares])
        table = joined([(share.square, _table(share, base, share.square / square)) for share in shares if share.square > 0])
        total = Signal(0.0, 1.0, within, across, min(alignment, 1.0), spread, tail, along, table, _doubt(waves))
        return total, log + math.log(square)


def _sums(shares: Sequence[Share]) -> tuple[float, float]:
    """The squared adjoint per element, and the variance of its log: each wave's own and what mixing added."""
    square = sum(share.square for share in shares)
    spread = sum(share.square * (share.source.adjoint.spread + share.added) for share in shares)
    return square, spread / square if square > 0 else 0.0


def _table(share: Share, base: Base | None, part: float) -> Table | None:
    """What a wave brings of a sum's rows and columns, of whose square it is this part."""
    table, slopes = share.source.adjoint.table, base.read(share.profile) if base is not None else None
    if table is None:
        return None
    row, column = (slopes.row, slopes.column) if slopes is not None else (share.mean, share.mean)
    scale = part / (share.source.adjoint.square * share.mean)
    return replace(table, row=table.row * row * scale, column=table.column * column * scale)


def _along(along: Profile, base: Base | None, profile: Array) -> Profile:
    """Where the base's square differs along an axis, so do the slopes that it decides."""
    if base is None or not profile.ndim or tuple(map(len, base.signal.along)) != tuple(map(len, along)):
        return along
    slopes = bent(base.signal.along, base.nodes.pairs(profile).sensitivity)
    return bent(tuple(tuple(a * b for a, b in zip(*pair, strict=True)) for pair in zip(along, slopes, strict=True)), 1.0)


def _doubt(waves: Waves) -> str:
    return next((source.adjoint.doubt for source, _ in waves.values() if source.adjoint.doubt), "")


def _doubted(waves: Waves, doubt: str) -> Waves:
    return {
        number: (dataclasses.replace(source, adjoint=replace(source.adjoint, doubt=source.adjoint.doubt or doubt)), profile)
        for number, (source, profile) in waves.items()
    }


def _mixing(source: Source, profile: Array, base: Base | None, mean: float) -> tuple[float, float]:
    """What one random matrix and the slopes behind it add to the variance of ln ||adjoint||^2, and multiply its tail by: some
    adjoints of a batch grow beyond others, so that it is made of fewer than it has."""
    if source.units is None or mean <= 0:
        return 0.0, 1.0
    alone = together = 1.0
    if base is not None:
        squared = base.nodes.pairs(base.nodes.pairs(profile).f2)
        alone, together = squared.square / mean**2, squared.at(base.across) / mean**2
    one, two = 3.0 * alone, together * (1.0 + 2.0 * source.adjoint.alignment)
    m = min(source.adjoint.tail / source.count, 1.0)
    own, pairs = ((moment - 1.0) / source.units for moment in (one, two))
    return max(m * own + (1.0 - m) * pairs, 0.0), (1.0 + own) / (1.0 + max(pairs, 0.0))
