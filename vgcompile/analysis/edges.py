"""Three tiers onto one edge: gains and local factors as log10, each missing number with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from vgcompile.analysis.presets import DEFAULT
from vgcompile.analysis.result import Edge, Elements, Expected, Operator, Reason, Sound, Tiers
from vgcompile.analysis.uses import Use, layer_of, learned, read_output
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import line_of
from vgcompile.graph.view import leading_to

if TYPE_CHECKING:
    from vgcompile.analysis.measured import Spread
    from vgcompile.analysis.pipeline import Tiers3

PAIRS = "a gradient summed over samples, of which pairs are taken to be alike"
NO_BOUND, UNPREDICTED = Sound(), Expected()
FLOAT32_SMALL = -34.0  # log10 of a norm whose elements begin to fall below float32's normal numbers


def annotate(network: Network, every_use: Sequence[Use], tiers: Tiers3) -> tuple[list[Edge], list[Operator]]:
    """Every edge of the graph with its gain (against ||dL/dy||) and its local factor (against the consumer's output), and every
    node with the total of its value."""
    shared, beyond = learned(network), beyond_outputs(network)
    totals = {node: _total(node, tiers, node in beyond, shared) for node in network.model.graph}
    edges = [_edge(use, network, tiers, use.value in shared, use.node in beyond, totals[use.node]) for use in every_use]
    return edges, _operators(network, totals)


def _operators(network: Network, totals: Mapping[ir.Node, Tiers]) -> list[Operator]:
    outputs = set(network.outputs)
    return [
        Operator(
            node.name or "",
            node.op_type,
            layer_of(node),
            line_of(node),
            not outputs.isdisjoint(value.name for value in node.outputs),
            total,
        )
        for node, total in totals.items()
    ]


def _total(node: ir.Node, tiers: Tiers3, in_loss: bool, shared: Set[ir.Value]) -> Tiers:
    output = read_output(node)
    return value_tiers(tiers, output, "undefined" if in_loss else "zero", output in shared)


def beyond_outputs(network: Network) -> set[ir.Node]:
    """The nodes of the loss: those that lead to it, and from which no output is reached."""
    graph = network.model.graph
    return leading_to(graph, made(graph, {network.loss} - {None})) - leading_to(graph, made(graph, set(network.outputs)))


def made(graph: ir.Graph, names: Set[str | None]) -> list[ir.Value]:
    """What nodes of a graph give out under one of these names."""
    return [value for node in graph for value in node.outputs if value.name in names]


def _edge(use: Use, network: Network, tiers: Tiers3, parameter: bool, in_loss: bool, total: Tiers) -> Edge:
    key = (use.node, use.position)
    bounds = tiers.sound.gain.get(key) if tiers.sound else None
    prediction = tiers.expected.gain.get(key) if tiers.expected else None
    if in_loss and (use.value.name,) == network.outputs and len(use.value.uses()) == 1:
        # dL/dy itself: what every gain is measured against.
        bounds, prediction = (0.0, 0.0) if tiers.sound else None, Expected(0.0, 0.0, "high") if tiers.expected else None
    gain = tiers_of(
        tiers,
        sound=bounds,
        expected=_per_sample(prediction, tiers.batch) if parameter else prediction,
        measured=[run.parts.get(use.id) for run in tiers.measured],
        scale=math.sqrt(tiers.batch) if parameter else 1.0,
        parameter=parameter,
        no_bound="undefined" if in_loss else "zero",
    )
    if tiers.sound is not None and key in tiers.sound.by:
        gain = replace(gain, sound=replace(gain.sound, by=tiers.sound.by[key]))
    return Edge(
        use.id,
        use.source,
        use.node.name or "",
        use.value.name or "",
        use.layer,
        use.role,
        use.shape,
        use.line,
        _local(use, tiers, gain, total),
        gain,
        elements_of([run.spreads.get(use.id) for run in tiers.measured]),
        tuple(_steps(use, tiers)),
    )


def _steps(use: Use, tiers: Tiers3) -> Iterator[Tiers]:
    """The gain at each step of what a recurrence reads, where the step is told apart."""
    predicted = tiers.expected.steps.get((use.node, use.position), ()) if tiers.expected else ()
    runs = [run.steps[use.id] for run in tiers.measured if use.id in run.steps]
    confidence = (tiers.expected.gain.get((use.node, use.position)) or Expected()).confidence if tiers.expected else "low"
    for step in range(max(len(predicted), *(len(run) for run in runs), 0)):
        log = predicted[step] if step < len(predicted) else -math.inf
        yield tiers_of(
            replace(tiers, sound=None),
            sound=None,
            expected=Expected(log, None, confidence) if math.isfinite(log) else None,
            measured=[float(run[step]) for run in runs] or [None] * len(tiers.measured),
        )


def elements_of(runs: Sequence[Spread | None]) -> Elements | None:
    """How an adjoint's elements lie, over several runs; None where that was not asked for, or no gradient flows."""
    spreads = [spread for spread in runs if spread is not None]
    if not spreads:
        return None
    peaks = [spread.peak for spread in spreads]
    finite = all(0.0 < peak < math.inf for peak in peaks)
    return Elements(
        sum(map(math.log10, peaks)) / len(peaks) if finite else None,
        sum(spread.zeros for spread in spreads) / len(spreads),
        sum(spread.undefined for spread in spreads) / len(spreads),
    )


def value_tiers(tiers: Tiers3, value: ir.Value, no_bound: Reason = "zero", shared: bool = False) -> Tiers:
    """total(value): the norm of the sum over its consumers against ||dL/dy|| or, where all samples share it, sqrt(N) ||dL/dy||.

    ``no_bound`` says why a bound may be absent: nothing flows (``zero``), or the value lies inside the loss, which no bound
    covers.
    """
    prediction = tiers.expected.total.get(value) if tiers.expected else None
    return tiers_of(
        tiers,
        sound=tiers.sound.total.get(value) if tiers.sound else None,
        expected=_per_sample(prediction, tiers.batch) if shared else prediction,
        measured=[run.totals.get(value.name or "") for run in tiers.measured],
        scale=math.sqrt(tiers.batch) if shared else 1.0,
        parameter=shared,
        no_bound=no_bound,
    )


def tiers_of(
    tiers: Tiers3,
    *,
    sound: tuple[float, float] | None,
    expected: Expected | None,
    measured: Sequence[float | None],
    scale: float = 1.0,
    parameter: bool = False,
    no_bound: Reason = "zero",
) -> Tiers:
    """Tiers from raw numbers: bounds in log10, a prediction, and norms of one run each."""
    why: dict[str, Reason] = {}
    bounds = _sound(sound, tiers.sound is not None, parameter, no_bound, why)
    prediction = expected or UNPREDICTED
    if prediction.mean is None:
        why["expected"] = "not_run" if tiers.expected is None else "undefined"
    log = _measured(tiers, measured, scale, prediction, bounds, why)
    return Tiers(bounds, prediction, log, why)


def _sound(given: tuple[float, float] | None, ran: bool, parameter: bool, no_bound: Reason, why: dict[str, Reason]) -> Sound:
    if given is None:
        reason: Reason = no_bound if ran else "not_run"
        why["sound.lo"] = why["sound.hi"] = reason
        return NO_BOUND
    lo = given[0] if math.isfinite(given[0]) and not parameter else None
    hi = given[1] if math.isfinite(given[1]) else None
    if lo is None:
        # Samples cancel in a parameter's gradient: no bound from below is known, which is not a bound of 0.
        why["sound.lo"] = "undefined" if parameter else "zero"
    if hi is None:
        why["sound.hi"] = "unbounded" if given[1] > 0 else "zero"
    unbounded = given[1] == math.inf
    vacuous = unbounded or (hi is not None and hi > DEFAULT.exploding and (lo is None or lo < DEFAULT.vanishing))
    return Sound(lo, hi, vacuous)


def _measured(
    tiers: Tiers3, runs: Sequence[float | None], scale: float, prediction: Expected, bounds: Sound, why: dict[str, Reason]
) -> float | None:
    if not tiers.measured:
        why["measured"] = "not_run"
        return None
    logs = []
    for norm, run in zip(runs, tiers.measured, strict=True):
        if norm is None:
            why["measured"] = "zero"
            return None
        if not math.isfinite(norm) or not math.isfinite(run.norm) or run.norm == 0.0:
            why["measured"] = "undefined"
            return None
        if norm == 0.0:
            why["measured"] = "underflow" if _flushed(prediction, bounds, run.norm) else "zero"
            return None
        logs.append(math.log10(norm / (scale * run.norm)))
    return sum(logs) / len(logs)


def _flushed(prediction: Expected, bounds: Sound, norm: float) -> bool:
    """Whether an adjoint that came out as zeros is one that float32 cannot hold: proved not to be zero, or predicted tiny."""
    if bounds.lo is not None:
        return True
    return prediction.mean is not None and prediction.mean + math.log10(norm) < FLOAT32_SMALL


def _per_sample(given: Expected | None, batch: int) -> Expected | None:
    """A parameter's gradient, against sqrt(N) ||dL/dy||.

    It is a sum over samples, and pairs of samples are taken to be alike: that pairs of one class keep a common gradient longer
    than others is not in the prediction, which is therefore of low confidence.
    """
    if given is None or given.mean is None:
        return given
    return Expected(given.mean - 0.5 * math.log10(batch), given.sd, "low", given.reason or PAIRS)


def _local(use: Use, tiers: Tiers3, gain: Tiers, total: Tiers) -> Tiers:
    """gain(e) - total(consumer's output), tier by tier; the sound one is the operator's own bound."""
    why: dict[str, Reason] = {}
    own = tiers.sound.local.get((use.node, use.position)) if tiers.sound else None
    bounds = _sound(own, tiers.sound is not None, use.role == "parameter", "undefined", why)
    expected = Expected()
    if gain.expected.mean is not None and total.expected.mean is not None:
        variance = max((gain.expected.sd or 0.0) ** 2 - (total.expected.sd or 0.0) ** 2, 0.0)
        doubt = gain.expected.confidence, gain.expected.reason
        expected = Expected(gain.expected.mean - total.expected.mean, math.sqrt(variance), *doubt)
    else:
        expected = Expected(reason=gain.expected.reason or total.expected.reason)
        why["expected"] = _reason(gain.why, total.why, "expected")
    if gain.measured is not None and total.measured is not None:
        return Tiers(bounds, expected, gain.measured - total.measured, why)
    why["measured"] = _reason(gain.why, total.why, "measured")
    return Tiers(bounds, expected, None, why)


def _reason(a: Mapping[str, Reason], b: Mapping[str, Reason], field: str) -> Reason:
    return a.get(field) or b.get(field) or "undefined"
