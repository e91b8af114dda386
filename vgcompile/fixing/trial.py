"""One text, built and judged: what its gradient does at the worst layer, and what the net costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from vgcompile import spec
from vgcompile.analysis import Analysis, Options, analyze
from vgcompile.analysis.result import Kind
from vgcompile.analysis.summary import summary
from vgcompile.build import build
from vgcompile.errors import SpecError
from vgcompile.graph.network import Network


@dataclass(frozen=True)
class Model:
    """The file that is to be fixed, and with which of its variants and values."""

    file: str
    text: str
    variant: str | None = None
    settings: Sequence[str] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Trial:
    """``analysis`` is of the tier that the trial is judged by; ``name`` and ``why`` are those of its remedy."""

    name: str
    why: str
    text: str
    network: Network
    analysis: Analysis

    @property
    def kind(self) -> Kind:
        """The net's verdict."""
        return self.analysis.verdict.kind

    @cached_property
    def worst(self) -> float | None:
        """log10 of the gain at the worst layer, against the last hidden one's or, through a recurrence, of the first step against
        the last: measured, else predicted."""
        layer = self.analysis.worst_layer
        return None if layer is None else layer.worst.seen

    @cached_property
    def parameters(self) -> int:
        return sum(self.network.sizes().values())

    @cached_property
    def flops(self) -> float:
        """Of one forward pass of one sample."""
        return summary(self.network).weight.flops


def built(model: Model, text: str | None = None) -> Network:
    """The network of another text for the same file. Raises SpecError."""
    loaded = spec.loads(model.text if text is None else text, model.file, variant=model.variant, settings=model.settings)
    return build(loaded, seed=model.seed)


def tried(model: Model, name: str, why: str, text: str, options: Options) -> Trial | None:
    """None where the text is no model: a way around two widths, for one."""
    try:
        network = built(model, text)
    except SpecError:
        return None
    return Trial(name, why, text, network, analyze(network, options))


def judging(network: Network, options: Options) -> tuple[Options, Analysis]:
    """How trials of this network are judged, and what it is judged itself: by prediction, which takes milliseconds or, where an
    operator on the way has none, by measurement.

    Raises GradientRefused where that meets an operator without a gradient rule.
    """
    predicted = replace(options, tiers=("expected",))
    analysis = analyze(network, predicted)
    if all(layer.relative.expected.mean is not None for layer in analysis.layers):
        return predicted, analysis
    measured = replace(options, tiers=("expected", "measured"))
    return measured, analyze(network, measured)


SAMPLES, STEPS, NEAR = 7, 10, 0.05  # of a search; NEAR in log10 of the gain


def solved(low: float, high: float, worst: Callable[[float], float | None]) -> float | None:
    """The number between ``low`` and ``high`` at which ``worst`` is nearest to 0, on a logarithmic scale: a few samples, then
    bisection between neighbours of different signs. None where it is nowhere known."""
    points = [low * math.pow(high / low, i / (SAMPLES - 1)) for i in range(SAMPLES)]
    known = [(point, value) for point in points if (value := worst(point)) is not None and math.isfinite(value)]
    if not known:
        return None
    bracket = next(((a, b) for a, b in pairwise(known) if (a[1] < 0) != (b[1] < 0)), None)
    if bracket is None:
        return min(known, key=_off)[0]
    below, above = bracket
    for _ in range(STEPS):
        middle = math.sqrt(below[0] * above[0])
        value = worst(middle)
        if value is None or not math.isfinite(value):
            break
        known.append((middle, value))
        if abs(value) < NEAR:
            break
        below, above = ((middle, value), above) if (value < 0) == (below[1] < 0) else (below, (middle, value))
    return min(known, key=_off)[0]


def _off(pair: tuple[float, float]) -> float:
    return abs(pair[1])
