"""Gradients that a floating-point type cannot hold, and updates that it rounds away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.floats import FLOATS, share_flushed, share_lost
from vgcompile.analysis.result import Finding, Layer, TierName
from vgcompile.graph.emit import dims
from vgcompile.rules.gradients import LOST_UPDATES, UNDERFLOW

FLUSHED = 0.1  # of a layer's gradient, from which it is said
LOST = 0.5  # of a layer's updates

Size = tuple[float, float]  # log10 of an element's root mean square, and its standard deviation


def findings(subject: Subject) -> Iterator[Finding]:
    for layer in subject.layers:
        yield from _underflow(subject, layer)
        yield from _lost(subject, layer)


def underflow(subject: Subject) -> Mapping[str, Mapping[str, Mapping[TierName, float]]]:
    """By layer and type the share of its pre-activation's gradient that rounds to zero, in each tier that knows its size."""
    known = {
        layer.name: element_sizes(subject, layer, held.value) for layer, held in zip(subject.layers, subject.held, strict=True)
    }
    found: dict[str, dict[str, dict[TierName, float]]] = {
        layer: {name: {} for name in FLOATS} if sizes else {} for layer, sizes in known.items()
    }
    every = [(layer, tier, *size) for layer, sizes in known.items() for tier, size in sizes.items()]
    for name, kind in FLOATS.items():
        shares = share_flushed([size for *_, size, _ in every], [sd for *_, sd in every], kind)
        for (layer, tier, *_), share in zip(every, shares.tolist(), strict=True):
            found[layer][name][tier] = share
    return found


def element_sizes(subject: Subject, layer: Layer, value: ir.Value) -> dict[TierName, Size]:
    """How large an element of the gradient at a layer's pre-activation is, predicted and measured."""
    count, seed = elements(subject, value), seed_norm(subject)
    if count is None or seed is None:
        return {}
    found: dict[TierName, Size] = {}
    scale = seed - 0.5 * math.log10(count)
    if layer.gain.expected.mean is not None:
        found["expected"] = (layer.gain.expected.mean + scale, layer.gain.expected.sd or 0.0)
    if layer.gain.measured is not None:
        found["measured"] = (layer.gain.measured + scale, 0.0)
    elif layer.gain.why.get("measured") == "underflow":
        found["measured"] = (-math.inf, 0.0)
    return found


def elements(subject: Subject, value: ir.Value) -> int | None:
    """The number of elements of a value; None where another extent than the batch's is open."""
    shape = dims(value)
    samples = next(iter(subject.network.inputs.values())).samples
    extents = [subject.tiers.batch if dim == samples else dim for dim in shape]
    return None if any(isinstance(dim, str) for dim in extents) else math.prod(int(dim) for dim in extents)


def seed_norm(subject: Subject) -> float | None:
    """log10 ||dL/dy||: measured or, as a convention, that of a loss whose gradient by each sample's output has the length 1. None
    without a loss, whose scale nobody knows."""
    norms = [run.norm for run in subject.tiers.measured if 0.0 < run.norm < math.inf]
    if subject.network.loss is None:
        return None
    if norms:
        return sum(map(math.log10, norms)) / len(norms)
    half = 0.5 * math.log10(subject.tiers.batch)
    return half if subject.network.reduction == "sum" else -half


def _underflow(subject: Subject, layer: Layer) -> Iterator[Finding]:
    shares = layer.underflow.get(subject.kind.name, {})
    tier: TierName = "measured" if "measured" in shares else "expected"
    share = shares.get(tier, 0.0)
    if share <= FLUSHED:
        return
    seed = "" if subject.tiers.measured else ", taking the loss's gradient by each sample's output to have the length 1"
    yield Finding(
        UNDERFLOW,
        layer.name,
        subject.mark(layer.name),
        "observed" if tier == "measured" else "predicted",
        "error" if share > 0.9 else "warning",
        f"{100 * share:.0f} % of the gradient at its pre-activation rounds to zero in {subject.kind.name}{seed}",
        math.log10(share),
        "scale the loss up by a power of two, and the gradients down again before the step",
    )


def _lost(subject: Subject, layer: Layer) -> Iterator[Finding]:
    if subject.learning_rate is None or layer.update.measured is None:
        return
    update = layer.update.measured + math.log10(subject.learning_rate)
    share = share_lost(update, subject.kind)
    if share <= LOST:
        return
    yield Finding(
        LOST_UPDATES,
        layer.name,
        subject.mark(layer.name),
        "observed",
        "error" if share > 0.9 else "warning",
        f"{100 * share:.0f} % of the updates, 10^{update:.2f} of their weights at learning rate {subject.learning_rate:g}, "
        f"are below 2^-{subject.kind.precision} and change nothing in {subject.kind.name}",
        update,
        "keep the weights in a wider type, or take larger steps at this layer",
    )
