"""Depth budgets: how many layers like these a gradient passes before it has vanished, or a type holds it no longer.

In a stack of like layers the log falls by the same amount at each one (Schoenholz et al. 2017: the depth scale xi = -1 / ln chi).
The rate is the slope between the first layer and the last; the budget is what is left divided by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from vgcompile.analysis.findings.precision import element_sizes
from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.floats import FLOATS
from vgcompile.analysis.paths import PREFERENCE, number
from vgcompile.analysis.result import Budget, Layer, TierName
from vgcompile.analysis.uses import ParameterLayer

Stack = Sequence[tuple[Layer, ParameterLayer]]
LEAST = 3  # layers from which a rate can be told
STEADY = 1e-3  # log10 per layer: below this a thousand layers change the size less than tenfold


def budgets(subject: Subject) -> list[Budget]:
    """That of all hidden layers with weights, then that of each run of such layers under one name."""
    outputs = set(subject.network.outputs)
    pairs = zip(subject.layers, subject.held, strict=True)
    hidden = [(layer, held) for layer, held in pairs if held.linear and held.value.name not in outputs]
    runs = [(name, list(run)) for name, run in groupby(hidden, key=lambda pair: segment(pair[0].name))]
    whole = list(_budgets(subject, subject.network.name, hidden))
    return whole + [found for name, run in runs if len(run) < len(hidden) for found in _budgets(subject, name, run)]


def segment(name: str) -> str:
    """The first part of a layer's name, without the number that tells its copies apart: ``layer1.0/conv`` is of ``layer``."""
    head = next((part for part in re.split(r"[/.]", name) if part), name)
    return head.rstrip("0123456789_") or head


def _budgets(subject: Subject, name: str, stack: Stack) -> Iterator[Budget]:
    """One for each tier that knows both ends; bounds know no rate."""
    tiers: list[TierName] = [tier for tier in PREFERENCE if tier != "sound"]
    for tier in tiers:
        first, last = (number(layer.gain, tier) for layer, _ in (stack[0], stack[-1])) if len(stack) >= LEAST else (None, None)
        if first is None or last is None:
            continue
        rate = (first - last) / (len(stack) - 1)
        steady = abs(rate) < STEADY
        limit = subject.preset.vanishing if rate < 0 else subject.preset.exploding
        yield Budget(
            name,
            len(stack),
            tier,
            rate,
            None if steady else limit / rate,
            {} if steady else _underflow(subject, stack, tier, rate),
        )


def _underflow(subject: Subject, stack: Stack, tier: TierName, rate: float) -> dict[str, float]:
    """Layers from the stack's last one on until an element of typical size leaves each type's range."""
    layer, held = stack[-1]
    size = element_sizes(subject, layer, held.value).get(tier)
    if size is None:
        return {}
    return {name: max(((kind.least if rate < 0 else kind.greatest) - size[0]) / rate, 0.0) for name, kind in FLOATS.items()}
