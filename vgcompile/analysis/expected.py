"""The expected tier: mean and spread of each edge's log gain over initializations, from the graph and its distributions alone.

Forward goes the length map (Poole et al. 2016; forward.py), backward chi (Schoenholz et al. 2017; adjoints.py), generalized from
chains of layers to a graph. The mean of the log is lower than the log of the mean by half the variance of ln ||adjoint||^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vgcompile.analysis.adjoints import Adjoints, Flow
from vgcompile.analysis.forward import Array, Forward
from vgcompile.analysis.readings import Reading
from vgcompile.analysis.result import Expected
from vgcompile.graph.network import Network
from vgcompile.signal import Signal

LN10 = math.log(10.0)
CANCELS = "the adjoints cancel, or meet a weight of zeros"

Profile = tuple[float, ...]


@dataclass(frozen=True)
class ExpectedTier:
    """``gain`` for each use (node, input position), ``total`` for each value; without a mean, and with the reason, where there is
    no prediction. ``steps``: of an edge that every step of a recurrence uses, the log10 of each step's share of the adjoint
    against ||dL/dy||, in the order of time."""

    gain: Mapping[tuple[ir.Node, int], Expected]
    total: Mapping[ir.Value, Expected]
    readings: Mapping[ir.Value, Reading]
    steps: Mapping[tuple[ir.Node, int], Profile] = field(default_factory=dict)


def expected(
    network: Network,
    batch: int,
    inputs: Mapping[str, Signal],
    extents: Mapping[str, int] | None = None,
    numbers: Mapping[str, Array] | None = None,
) -> ExpectedTier:
    """Predict every gain at this batch size. ``inputs`` describes the data: one Signal for each graph input; ``extents`` says
    what symbols stand for there, ``numbers`` holds inputs of whole numbers, of which masks are made."""
    forward = Forward(network, batch, extents or {}, numbers)
    forward.run(inputs)
    backward = Adjoints(network, batch, forward)
    backward.run()
    apart = next((backward.lost[y] for y in backward.outputs if y in backward.lost), "")  # which another one is made of
    norm = math.nan if apart else _log_sum([backward.totals[y].log for y in backward.outputs])
    gains = {use: _log(flow, norm, apart) for use, flow in backward.parts.items()}
    totals = {value: _log(flow, norm, apart) for value, flow in backward.totals.items()}
    for node in network.model.graph:
        lost = {(node, i): backward.lost[v] for i, v in enumerate(node.inputs) if v is not None and v in backward.lost}
        gains.update({use: Expected(reason=why) for use, why in lost.items() if use not in gains})
    totals.update({value: Expected(reason=why) for value, why in backward.lost.items()})
    steps = {use: tuple((0.5 * (logs - norm) / LN10).tolist()) for use, logs in backward.steps.items() if not apart}
    return ExpectedTier(gains, totals, forward.readings, steps)


def _log(flow: Flow, norm: float, apart: str) -> Expected:
    """``apart`` is why the adjoint of the outputs, which all are held against, is unknown."""
    if not math.isfinite(norm):
        return Expected(reason=apart)
    if not math.isfinite(flow.log):
        return Expected(reason=CANCELS)
    mean = (0.5 * (flow.log - norm) - 0.25 * flow.spread) / LN10
    sd = 0.5 * math.sqrt(max(flow.spread, 0.0)) / LN10
    return Expected(mean, sd, "low" if flow.doubt else "high", flow.doubt)


def _log_sum(logs: Sequence[float]) -> float:
    """ln of a sum, from the lns of its terms."""
    top = max(logs, default=-math.inf)
    return top if not math.isfinite(top) else top + math.log(sum(math.exp(log - top) for log in logs))
