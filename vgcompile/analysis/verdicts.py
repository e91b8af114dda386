"""Verdicts: for each layer with parameters and for the net, what the three tiers say, in which grade, and the worst path.

A layer is judged by G = total(its pre-activation) against that of the last hidden layer, in log10: in the default preset
vanishing below -3, exploding above 3. Other tools' presets judge the measured gradient of the weights. The grade is the strongest
tier that says so: certified (the bound proves it), observed (one batch, or several initializations, showed it), predicted (from
the graph and its distributions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from vgcompile.analysis.edges import elements_of, tiers_of, value_tiers
from vgcompile.analysis.paths import worst_paths
from vgcompile.analysis.presets import DEFAULT, Preset, absolute
from vgcompile.analysis.result import Edge, Expected, Grade, Kind, Layer, Path, Reason, Tiers, Verdict
from vgcompile.analysis.saturation import saturated
from vgcompile.analysis.uses import ParameterLayer, above
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network

if TYPE_CHECKING:
    from vgcompile.analysis.pipeline import Tiers3

SEVERITY: Mapping[Kind, int] = {"dead": 4, "vanishing": 3, "exploding": 3, "saturated": 2, "unknown": 1, "healthy": 0}
SPELLED_OUT = 100  # up to this many layers every layer's worst path is spelled out, else that of the worst layer alone


def judge(
    network: Network,
    parameter_layers: Sequence[ParameterLayer],
    edges: Sequence[Edge],
    tiers: Tiers3,
    preset: Preset = DEFAULT,
    paths: bool = True,
) -> tuple[list[Layer], Verdict, str | None]:
    """Layers with their verdicts, the net's verdict, and the name of its worst layer; worst paths only where ``paths`` asks for
    them."""
    reference = last_hidden(network, parameter_layers)
    relative = _relative_bounds(reference, tiers)
    layers = [_layer(layer, reference, relative, tiers, preset) for layer in parameter_layers]
    if preset.quantity == "relative":
        layers = _through_time(layers, edges, preset)
    if preset.quantity != "relative":
        layers = _by_weights(parameter_layers, layers, tiers, preset)
    if not layers:
        return [], Verdict("healthy", _grade(tiers), None, "no layer holds parameters"), None
    worst = max(_candidates(network, layers), key=_badness)
    asked = ([worst] if len(layers) > SPELLED_OUT else layers) if paths else []
    spelled = worst_paths(
        network, edges, {layer.name: layer.value for layer in asked}, {layer.name: layer.gain for layer in asked}
    )
    layers = [_with_path(layer, spelled[layer.name]) if layer.name in spelled else layer for layer in layers]
    verdict = next(layer.verdict for layer in layers if layer.name == worst.name)
    return (layers, _unknown(layers, verdict), None) if verdict.kind == "unknown" else (layers, verdict, worst.name)


def _with_path(layer: Layer, path: Path) -> Layer:
    return replace(layer, verdict=replace(layer.verdict, worst_path=path))


def _unknown(layers: Sequence[Layer], verdict: Verdict) -> Verdict:
    """The verdict on a net of which nothing tells that it is ill, nor for some layers that they are not."""
    names = [layer.name for layer in layers if layer.verdict.kind == "unknown"]
    if len(names) == len(layers):
        return verdict
    return replace(
        verdict, why=f"for {len(names)} of {len(layers)} layers, {names[0]} first, {verdict.why}; the others are healthy"
    )


def _candidates(network: Network, layers: Sequence[Layer]) -> Sequence[Layer]:
    """The layers that the net is judged by: hidden ones, and saturated ones only where they are at least half of these."""
    hidden = [layer for layer in layers if layer.value not in network.outputs] or list(layers)
    others = [layer for layer in hidden if layer.verdict.kind != "saturated"]
    return hidden if 2 * len(others) <= len(hidden) else others


def _grade(tiers: Tiers3) -> Grade:
    return "observed" if tiers.measured else "predicted" if tiers.expected else "certified"


def last_hidden(network: Network, layers: Sequence[ParameterLayer]) -> ir.Value | None:
    """The pre-activation of the last hidden layer: the last linear layer that does not make an output itself. Of several outputs
    the last one that another linear layer needs, where there is one: a head is not hidden by its activation."""
    linear = [layer for layer in layers if layer.linear]
    hidden = [layer for layer in linear if layer.value.name not in network.outputs]
    if len(network.outputs) > 1:
        needed = above(node for layer in linear if (node := layer.value.producer()) is not None)
        hidden = [layer for layer in hidden if layer.value.producer() in needed] or hidden
    return hidden[-1].value if hidden else None


def _relative_bounds(reference: ir.Value | None, tiers: Tiers3) -> Mapping[ir.Value, tuple[float, float]]:
    if tiers.sound is None:
        return {}
    return tiers.sound.relative_to(reference) if reference is not None else tiers.sound.total


def _layer(
    layer: ParameterLayer,
    reference: ir.Value | None,
    bounds: Mapping[ir.Value, tuple[float, float]],
    tiers: Tiers3,
    preset: Preset,
) -> Layer:
    gain = value_tiers(tiers, layer.value)
    relative = _relative(layer.value, reference, bounds, tiers)
    verdict = _verdict(layer, relative, tiers, preset)
    elements = elements_of([run.total_spreads.get(layer.value.name or "") for run in tiers.measured])
    name, update = layer.value.name or "", _update(layer, tiers)
    return Layer(layer.name, layer.kind, layer.line, name, gain, relative, update, verdict, elements=elements)


def _relative(
    value: ir.Value, reference: ir.Value | None, bounds: Mapping[ir.Value, tuple[float, float]], tiers: Tiers3
) -> Tiers:
    mine = tiers.expected.total.get(value, Expected()) if tiers.expected else Expected()
    theirs = (
        tiers.expected.total.get(reference, Expected())
        if tiers.expected and reference is not None
        else Expected(0.0, 0.0, "high")
    )
    prediction = Expected(reason=mine.reason or theirs.reason)
    if mine.mean is not None and theirs.mean is not None:
        sd = math.sqrt(max((mine.sd or 0.0) ** 2 - (theirs.sd or 0.0) ** 2, 0.0))
        prediction = Expected(mine.mean - theirs.mean, sd, mine.confidence, mine.reason)
    name = reference.name if reference is not None else None
    return tiers_of(
        _against(tiers, [run.totals.get(name, 0.0) if name is not None else run.norm for run in tiers.measured]),
        sound=bounds.get(value) if tiers.sound else None,
        expected=prediction,
        measured=[run.totals.get(value.name or "") for run in tiers.measured],
    )


def _against(tiers: Tiers3, norms: Sequence[float]) -> Tiers3:
    """The tiers, with other norms that the runs' are measured against."""
    if not norms:
        return tiers
    return replace(tiers, measured=[replace(run, norm=norm) for run, norm in zip(tiers.measured, norms, strict=True)])


def _update(layer: ParameterLayer, tiers: Tiers3) -> Tiers:
    """||dL/dW|| / ||W|| over the layer's weights. Measured alone: the other tiers know the gradient up to ||dL/dy||."""
    names = [weight.name or "" for weight in layer.weights]
    norms = [math.hypot(*(run.gradients.get(name, 0.0) for name in names)) for run in tiers.measured]
    weights = [math.hypot(*(run.weights.get(name, 0.0) for name in names)) for run in tiers.measured]
    found = tiers_of(_against(tiers, weights), sound=None, expected=None, measured=norms)
    why: dict[str, Reason] = {**found.why, "expected": "undefined" if tiers.expected else "not_run"}
    why["sound.lo"] = why["sound.hi"] = "undefined" if tiers.sound else "not_run"
    return replace(found, why=why)


def _through_time(layers: Sequence[Layer], edges: Sequence[Edge], preset: Preset) -> list[Layer]:
    """The layers; one that goes through a sequence is judged by its first step's gradient against its last one's, too."""
    sequences: dict[str, list[tuple[Tiers, ...]]] = {}
    for edge in edges:
        if edge.steps:
            sequences.setdefault(edge.layer, []).append(edge.steps)
    return [_over_steps(layer, sequences[layer.name], preset) if layer.name in sequences else layer for layer in layers]


def _over_steps(layer: Layer, sequences: Sequence[Sequence[Tiers]], preset: Preset) -> Layer:
    """Of several recurrences in a layer, the one that tells most against it."""
    steps = max(sequences, key=lambda steps: abs(steps[0].against(steps[-1]).seen or 0.0))
    found = steps[0].against(steps[-1])
    layer, log = replace(layer, through_time=found), found.seen
    if log is None or layer.verdict.kind not in ("healthy", "saturated") or _kind(log, preset) == "healthy":
        return layer
    observed = found.measured is not None or math.isinf(log)
    share = f"10^{log:.2f} of the gradient" if math.isfinite(log) else "nothing of the gradient"
    why = f"of {len(steps)} steps the first one gets {share} of the last one"
    return replace(layer, verdict=Verdict(_kind(log, preset), "observed" if observed else "predicted", None, why, log, "steps"))


def _by_weights(
    parameter_layers: Sequence[ParameterLayer], layers: Sequence[Layer], tiers: Tiers3, preset: Preset
) -> list[Layer]:
    """The layers with the verdicts of a preset that looks at the measured gradients of weights."""
    norms = [_norm_of_weights(layer, tiers) for layer in parameter_layers]
    found = []
    for layer, held, norm in zip(layers, parameter_layers, norms, strict=True):
        size = sum(math.prod(map(int, dims(weight))) for weight in held.weights)
        aside = preset.first and layer is not layers[0]
        judged = Verdict("healthy", "observed", None, f"{preset.name} judges the first layer alone")
        found.append(replace(layer, verdict=judged if aside else _peer(norm, size, norms[-1], preset)))
    return found


def _norm_of_weights(layer: ParameterLayer, tiers: Tiers3) -> float:
    """Mean over the runs of log10 ||dL/dW||; -inf for a gradient of zero."""
    norms = [math.hypot(*(run.gradients.get(weight.name or "", 0.0) for weight in layer.weights)) for run in tiers.measured]
    return sum(math.log10(norm) if norm > 0.0 else -math.inf for norm in norms) / len(norms)


def _peer(norm: float, size: int, last: float, preset: Preset) -> Verdict:
    if norm == -math.inf:
        return Verdict("dead", "observed", None, "the gradient of the weights is zero")
    number = absolute(preset, norm, size, last)
    exploding = not number <= preset.exploding
    vanishing = number < preset.vanishing and norm < preset.floor
    kind: Kind = "exploding" if exploding else "vanishing" if vanishing else "healthy"
    return Verdict(
        kind, "observed", None, f"{preset.name} looks at the weights' gradient: its {preset.quantity} is 10^{number:.2f}", number
    )


def _verdict(layer: ParameterLayer, relative: Tiers, tiers: Tiers3, preset: Preset) -> Verdict:
    if tiers.measured and all(run.norm == 0.0 for run in tiers.measured):
        return Verdict("dead", "observed", None, "the loss sends no gradient")
    verdict = _certified(relative, preset) or _seen(relative, tiers, preset)
    if verdict.kind == "healthy" and saturated(layer.value, tiers):
        return Verdict(
            "saturated", "predicted", None, "most units sit where the activation's slope is below a tenth of its greatest"
        )
    return verdict


def _seen(relative: Tiers, tiers: Tiers3, preset: Preset) -> Verdict:
    """The verdict of the measured number or, where there is none, of the predicted one."""
    if relative.why.get("measured") == "underflow":
        return Verdict("vanishing", "observed", None, "the float32 gradient itself was flushed to zero")
    if relative.why.get("measured") == "zero":
        return Verdict("dead", "observed", None, "no gradient arrives")
    choices: tuple[tuple[Grade, float | None], ...] = (("observed", relative.measured), ("predicted", relative.expected.mean))
    for grade, number in choices:
        if number is not None:
            return Verdict(
                _kind(number, preset), grade, None, f"10^{number:.2f} of the gradient at the last hidden layer", number
            )
    if relative.why.get("measured") == "undefined":
        return Verdict("exploding", "observed", None, "the float32 run overflowed")
    return Verdict("unknown", _grade(tiers), None, "no tier gives a number, and the bound is vacuous")


def _certified(relative: Tiers, preset: Preset) -> Verdict | None:
    lo, hi = relative.sound.lo, relative.sound.hi
    if hi is None and relative.why.get("sound.hi") == "zero":
        return Verdict(
            "dead", "certified", None, "every way from the loss is cut: by weights of 0, or by an operator that lets none through"
        )
    if hi is not None and hi < preset.vanishing:
        return Verdict("vanishing", "certified", None, f"at most 10^{hi:.2f} of the gradient at the last hidden layer", hi)
    if lo is not None and lo > preset.exploding:
        return Verdict("exploding", "certified", None, f"at least 10^{lo:.2f} of the gradient at the last hidden layer", lo)
    if lo is not None and hi is not None and lo >= preset.vanishing and hi <= preset.exploding:
        return Verdict(
            "healthy", "certified", None, f"between 10^{lo:.2f} and 10^{hi:.2f} of the gradient at the last hidden layer"
        )
    return None


def _kind(log: float, preset: Preset) -> Kind:
    return "vanishing" if log < preset.vanishing else "exploding" if log > preset.exploding else "healthy"


def _badness(layer: Layer) -> tuple[int, float]:
    """Severity first, then the distance of its number from 0."""
    if layer.verdict.over == "steps":
        return (SEVERITY[layer.verdict.kind], abs(layer.verdict.log or 0.0))
    for number in (layer.relative.measured, layer.relative.expected.mean, layer.relative.sound.hi):
        if number is not None:
            return (SEVERITY[layer.verdict.kind], abs(number))
    return (SEVERITY[layer.verdict.kind], math.inf if layer.verdict.kind in ("vanishing", "dead") else 0.0)
