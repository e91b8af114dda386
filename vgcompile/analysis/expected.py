"""The expected tier: mean and spread of each edge's log gain over initializations, from the graph and its distributions alone.

Forward goes the length map (Poole et al. 2016; forward.py), backward chi (Schoenholz et al. 2017), generalized from chains of
layers to a graph. What goes back is a set of waves: an adjoint that arrives from one source, independent of every other, times a
profile over the nodes of the base that the value is a function of.

Finite width (Hanin & Nica 2020, generalized): passing a random matrix onto n units whose slopes are D, ln ||adjoint||^2 gains the
variance (3 kappa - 1)/n for one adjoint, kappa = E[D^4]/E[D^2]^2. For M adjoints (samples and positions) with mean squared
cosine c it is the average over pairs, ((3 kappa)/M + (1 - 1/M) kappa' (1 + 2 c) - 1)/n, kappa' = E[D^2 D'^2]/E[D^2]^2. The mean
of the log is lower than the log of the mean by half the variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.forward import Base, Forward, Reading, features, mixed
from vgcompile.analysis.result import Expected
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.families import Carried
from vgcompile.ops.op import Case, Moments, Op
from vgcompile.ops.reading import slope
from vgcompile.signal import Signal

Array = np.ndarray[Any, Any]
LN10 = math.log(10.0)
UNSTABLE = 3.0  # a length map that amplifies a fluctuation of q by more than this makes the prediction unreliable


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


@dataclass(frozen=True)
class Flow:
    """ln E||adjoint||^2 and the variance of ln ||adjoint||^2."""

    log: float
    spread: float
    reliable: bool = True


@dataclass(frozen=True)
class ExpectedTier:
    """``gain`` for each use (node, input position), ``total`` for each value; absent where no formula is known."""

    gain: Mapping[tuple[ir.Node, int], Expected]
    total: Mapping[ir.Value, Expected]
    readings: Mapping[ir.Value, Reading]


def expected(network: Network, batch: int, inputs: Mapping[str, Signal]) -> ExpectedTier:
    """Predict every gain at this batch size. ``inputs`` describes the data: one Signal for each graph input."""
    forward = Forward(network, batch)
    forward.run(inputs)
    backward = _Backward(network, batch, forward)
    backward.run()
    norm = _log_sum([backward.totals[y].log for y in backward.outputs])
    gains = {use: _log(flow, norm, forward.sensitivity.get(_operand(*use), 1.0)) for use, flow in backward.parts.items()}
    totals = {value: _log(flow, norm, forward.sensitivity.get(value, 1.0)) for value, flow in backward.totals.items()}
    return ExpectedTier(gains, totals, forward.readings)


def _operand(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    assert value is not None
    return value


def _log(flow: Flow, norm: float, sensitivity: float) -> Expected:
    if not (math.isfinite(flow.log) and math.isfinite(norm)):
        return Expected()
    mean = (0.5 * (flow.log - norm) - 0.25 * flow.spread) / LN10
    sd = 0.5 * math.sqrt(max(flow.spread, 0.0)) / LN10
    return Expected(mean, sd, "high" if flow.reliable and sensitivity <= UNSTABLE else "low")


def _log_sum(logs: Sequence[float]) -> float:
    """ln of a sum, from the lns of its terms."""
    top = max(logs, default=-math.inf)
    return top if not math.isfinite(top) else top + math.log(sum(math.exp(log - top) for log in logs))


class _Backward:
    """Adjoints of every value, in reverse graph order, from the values that enter the loss."""

    def __init__(self, network: Network, batch: int, forward: Forward) -> None:
        self.network, self.batch, self.forward = network, batch, forward
        values = {value.name: value for node in network.model.graph for value in node.outputs}
        self.outputs = [values[name] for name in network.outputs]
        self.waves: dict[ir.Value, Waves] = {}
        self.parts: dict[tuple[ir.Node, int], Flow] = {}
        self.totals: dict[ir.Value, Flow] = {}
        self._undefined: set[ir.Value] = set()
        self._sources = 0

    def run(self) -> None:
        for output in self.outputs:
            self._add(output, self._seed(output))
        self.totals.update({output: self._flow(output, self.waves[output]) for output in self.outputs})
        order = list(self.network.model.graph)
        for node in reversed(order):
            waves = self.waves.get(node.outputs[0])
            if waves is None or node.outputs[0] in self._undefined:
                self._give_up(node)
                continue
            self.totals[node.outputs[0]] = self._flow(node.outputs[0], waves)
            self._node(node, waves)
        for value in self.network.model.graph.inputs:
            if value in self.waves and value not in self._undefined:
                self.totals[value] = self._flow(value, self.waves[value])

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
            except (NotImplementedError, AssertionError):
                continue
        shares_known = len(self.outputs) == 1 or self.network.loss is None  # of several losses, what each sends is not predicted
        return self._wave(replace(seed, spread=0.0, reliable=shares_known), 0.0, None, self.batch, output)

    def _case_count(self, value: ir.Value) -> int:
        return Case(batch=self.batch).count(dims(value))

    def _wave(self, adjoint: Signal, log: float, units: int | None, count: int, value: ir.Value) -> Waves:
        self._sources += 1
        reading = self.forward.readings.get(value)
        profile = np.ones_like(reading.base.nodes.x) if reading is not None and reading.base is not None else np.ones(1)
        return {self._sources: (Source(adjoint, log, units, max(count, 1)), profile)}

    def _add(self, value: ir.Value, waves: Waves) -> None:
        mine = self.waves.setdefault(value, {})
        for number, (source, profile) in waves.items():
            mine[number] = (source, mine[number][1] + profile) if number in mine else (source, profile)

    def _give_up(self, node: ir.Node) -> None:
        """Nothing is known of this node's adjoint: nothing is known of what it hands on, either, if it hands on anything."""
        if node.outputs[0] in self._undefined:
            self._undefined.update(value for value in node.inputs if value is not None)

    def _node(self, node: ir.Node, waves: Waves) -> None:
        row = lookup(node.op_type, node.domain)
        if row is not None and row.blocked:
            return
        if row is not None and row.elementwise and self.forward.common_base(node) is not None:
            self._elementwise(node, row, waves)
        elif row is None or row.moments is None:
            self._lose(node)
        elif isinstance(row.moments, Carried):
            self._hand_on(node, 0, waves)
        else:
            self._put_through(node, row.moments, waves)

    def _put_through(self, node: ir.Node, moments: Moments, waves: Waves) -> None:
        """New waves, one for each input: what the operator's row makes of the adjoint's statistics."""
        total, log = self._collapse(node.outputs[0], waves)
        case = self.forward.case(node)
        signals = self.forward.signals_of(node)
        for position, value in enumerate(node.inputs):
            if value is None or (value not in self.forward.signals and not self._is_float_activation(value)):
                continue
            try:
                adjoint = moments.backward(case, position, total, signals)
            except (NotImplementedError, AssertionError):
                self._undefined.add(value)
                continue
            units, count = self._mixing(node, position, case)
            # A parameter collects the sum over samples, whose length fluctuates with the few directions that they have in common.
            shared = 2.0 * total.alignment if value in self.forward.random else 0.0
            adjoint = replace(adjoint, alignment=mixed(total.alignment, units), spread=total.spread + shared)
            self._hand_on(node, position, self._wave(adjoint, log, units, count, value))

    @staticmethod
    def _is_float_activation(value: ir.Value) -> bool:
        return value.producer() is not None and is_real(value)

    def _mixing(self, node: ir.Node, position: int, case: Case) -> tuple[int | None, int]:
        """Over how many independent units, and for how many adjoints, a random operand spreads the adjoint of this input."""
        value, random = _operand(node, position), self.forward.random
        others = [v for i, v in enumerate(node.inputs) if v is not None and i != position]
        if value in random or not any(v in random and len(dims(v)) >= 2 for v in others):
            return None, self.batch
        units = features(value) or case.count(case.shapes[position]) // self.batch
        return units, max(case.count(case.shapes[position]) // units, 1)

    def _lose(self, node: ir.Node) -> None:
        self._undefined.update(value for value in node.inputs if value is not None)

    def _elementwise(self, node: ir.Node, row: Op, waves: Waves) -> None:
        operands = self.forward.operands(node)
        attributes = self.forward.case(node).attributes
        for position, value in enumerate(node.inputs):
            if value is None or (position >= len(row.derivatives) and len(row.derivatives) != 1):
                continue
            reading = self.forward.readings[value]
            if reading.base is None or row.derivatives[min(position, len(row.derivatives) - 1)] is None:
                continue
            with np.errstate(all="ignore"):
                d = np.asarray(slope(NUMPY, row, position, operands, **attributes), np.float64)
            self._hand_on(node, position, {number: (source, profile * d) for number, (source, profile) in waves.items()})

    def _hand_on(self, node: ir.Node, position: int, waves: Waves) -> None:
        value = _operand(node, position)
        self.parts[node, position] = self._flow(value, waves)
        self._add(value, waves)

    def _shares(self, value: ir.Value, waves: Waves) -> tuple[list[tuple[Source, Array, float, float]], float]:
        """Each wave with E[profile^2] and its part of the squared adjoint per element; the ln of the factor that they share."""
        reading = self.forward.readings.get(value)
        base = reading.base if reading is not None else None
        top = max(source.log for source, _ in waves.values())
        shares = []
        for source, profile in waves.values():
            mean = base.nodes.mean(profile * profile) if base is not None else 1.0
            shares.append((source, profile, mean, math.exp(source.log - top) * source.adjoint.square * mean))
        return shares, top

    def _square_and_spread(self, value: ir.Value, waves: Waves) -> tuple[float, float, float]:
        """The squared adjoint per element as square * exp(log), and its log's variance: each wave's own and what mixing added."""
        reading = self.forward.readings.get(value)
        base = reading.base if reading is not None else None
        shares, log = self._shares(value, waves)
        square = sum(share for *_, share in shares)
        spread = sum(
            share * (source.adjoint.spread + _spread(source, profile * profile, base, mean))
            for source, profile, mean, share in shares
        )
        return square, log, spread / square if square > 0 else 0.0

    def _flow(self, value: ir.Value, waves: Waves) -> Flow:
        square, log, spread = self._square_and_spread(value, waves)
        size = square * self._case_count(value)
        return Flow(log + math.log(size) if size > 0 else -math.inf, spread, _reliable(waves))

    def _collapse(self, value: ir.Value, waves: Waves) -> tuple[Signal, float]:
        """The adjoint's statistics per element with the base averaged out, scaled to a square of 1, and the ln of that scale."""
        reading = self.forward.readings.get(value)
        base = reading.base if reading is not None else None
        shares, log = self._shares(value, waves)
        square, _, spread = self._square_and_spread(value, waves)
        if not square > 0:
            return Signal(0.0, 0.0, 0.0, 0.0), -math.inf
        within = across = alignment = 0.0
        for source, profile, mean, share in shares:
            a = source.adjoint
            near = base.nodes.pair(profile, base.within) if base is not None else 1.0
            far = base.nodes.pair(profile, base.across) if base is not None else 1.0
            scale = share / (a.square * mean * square) if share > 0 else 0.0
            within += a.within * near * scale
            across += a.across * far * scale
            alignment += share / square * a.alignment * (far / mean) ** 2 if share > 0 else 0.0
        total = Signal(0.0, 1.0, within, across, min(alignment, 1.0), spread, _reliable(waves))
        return total, log + math.log(square)


def _reliable(waves: Waves) -> bool:
    return all(source.adjoint.reliable for source, _ in waves.values())


def _spread(source: Source, p2: Array, base: Base | None, mean: float) -> float:
    """What one random matrix and the slopes behind it add to the variance of ln ||adjoint||^2."""
    if source.units is None or mean <= 0:
        return 0.0
    one = base.nodes.mean(p2 * p2) / mean**2 if base is not None else 1.0
    two = base.nodes.pair(p2, base.across) / mean**2 if base is not None else 1.0
    m = 1.0 / source.count
    return max(m * 3.0 * one + (1.0 - m) * two * (1.0 + 2.0 * source.adjoint.alignment) - 1.0, 0.0) / source.units
