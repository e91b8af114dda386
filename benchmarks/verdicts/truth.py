"""Predicted verdicts against the truth: networks trained by plain gradient descent over their gradient files.

The rules, stated before any run. A net is predicted vanishing where the expected tier, which runs nothing, says so of a hidden
layer, exploding alike. Truth, one: G_l, the measured gradient at a layer's pre-activation against the last hidden layer's at step
0; vanishing where the least is below 1e-3, exploding where the greatest is above 1e3; undecided within half a decade of either
threshold. A layer that goes through a sequence is judged by a second number as well, predicted and measured alike: its first
step's gradient against its last one's, in the order in which it reads them. Truth, two: after 200 steps the first hidden layer's
movement ||W - W0|| / ||W0|| against that of the last hidden one, by the same thresholds and band; a run that leaves the finite
numbers is judged by where it was before, a net of one hidden layer not at all. One learning rate for each net: the first step
moves the last layer by one percent of its length.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import vgcompile
from benchmarks.verdicts.models import Model, model
from vgcompile.analysis import Options
from vgcompile.analysis.presets import DEFAULT
from vgcompile.analysis.result import Layer, Tiers
from vgcompile.analysis.uses import ParameterLayer, parameter_layers
from vgcompile.build import build
from vgcompile.graph.network import Network
from vgcompile.runtime.data import batch
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
BAND = 0.5  # decades about a threshold that are left undecided
STEPS, BATCH, SAMPLES = 200, 32, 512
FIRST_STEP = 0.01  # of the last layer's length
KINDS = ("vanishing", "exploding")


@dataclass(frozen=True)
class Outcome:
    """Of one net: logs of the least and the greatest G predicted and measured, and of first against last movement."""

    number: int
    model: Model
    predicted: tuple[float, float] | None  # None where the expected tier has no number
    confident: bool
    measured: tuple[float, float]
    moved: float | None  # None of a net with one hidden layer, in which nothing can move more than something else

    def said(self, kind: str) -> bool | None:
        return None if self.predicted is None else _is(kind, self.predicted)

    def true(self, kind: str, truth: str) -> bool | None:
        """None where it is undecided."""
        if truth == "movement" and self.moved is None:
            return None
        ends = (self.moved, self.moved) if truth == "movement" and self.moved is not None else self.measured
        threshold, end = (DEFAULT.vanishing, ends[0]) if kind == "vanishing" else (DEFAULT.exploding, ends[1])
        return None if abs(end - threshold) < BAND else _is(kind, ends)


def _is(kind: str, ends: tuple[float, float]) -> bool:
    return ends[0] < DEFAULT.vanishing if kind == "vanishing" else ends[1] > DEFAULT.exploding


def outcomes(numbers: Iterable[int], seconds: float = math.inf) -> Iterator[Outcome]:
    """One for each net, until the time is over."""
    start = time.process_time()
    for number in numbers:
        if time.process_time() - start > seconds:
            return
        drawn = model(number)
        yield _outcome(number, drawn, build(loads(drawn.text, f"net_{number}.yaml")))


def _outcome(number: int, drawn: Model, network: Network) -> Outcome:
    """``outcomes`` of one net."""
    expected = _hidden(network, vgcompile.analyze(network, Options(tiers=("expected",), batch=BATCH)).layers)
    means = [tiers.expected.mean for tiers in _judged(expected)]
    measured = _hidden(network, vgcompile.analyze(network, Options(tiers=("measured",), batch=BATCH)).layers)
    logs = [_log(tiers) for tiers in _judged(measured)]
    return Outcome(
        number,
        drawn,
        None if None in means else (min(means), max(means)),
        all(tiers.expected.confidence == "high" for tiers in _judged(expected)),
        (min(logs), max(logs)),
        _moved(network),
    )


def _hidden(network: Network, layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.value not in network.outputs]


def _judged(layers: Sequence[Layer]) -> list[Tiers]:
    """What the layers are judged by: each one's own number and, of a recurrence, that over its steps."""
    return [tiers for layer in layers for tiers in (layer.relative, layer.through_time) if tiers is not None]


def _log(tiers: Tiers) -> float:
    if tiers.measured is not None:
        return tiers.measured
    return -math.inf if tiers.why["measured"] in ("zero", "underflow") else math.inf


def _moved(network: Network) -> float | None:
    """log10 of the first hidden layer's movement against the last one's after training; infinite where one alone moved."""
    start = network.parameter_values()
    end = train(network, start)
    held = [layer for layer in parameter_layers(network) if layer.linear and layer.value.name not in network.outputs]
    if len(held) < 2:
        return None
    first, last = (movement(start, end, layer) for layer in (held[0], held[-1]))
    if first == last:
        return 0.0
    return math.log10(first / last) if first > 0 and last > 0 else math.copysign(math.inf, first - last)


def train(network: Network, start: Mapping[str, Array]) -> Mapping[str, Array]:
    """Plain gradient descent over the gradient file, for as long as all numbers are finite."""
    session = vgcompile.Session(vgcompile.compile_network(network).gradient, provider="cpu", threads=1)
    data = batch(network, size=SAMPLES, seed=network.seed)
    rng, parameters, rate = np.random.default_rng(network.seed), dict(start), None
    names = [f"grad.{name}" for name in parameters]
    last = parameter_layers(network)[-1]
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            rows = rng.integers(0, SAMPLES, BATCH)
            found = session.run(names, {**{name: array[rows] for name, array in data.items()}, **parameters})
            if rate is None:
                rate = _rate(start, found, last)
            moved = {name: array - np.float32(rate) * found[f"grad.{name}"] for name, array in parameters.items()}
            if not all(np.isfinite(array).all() for array in moved.values()):
                break
            parameters = moved
    return parameters


def _rate(start: Mapping[str, Array], found: Mapping[str, Array], last: ParameterLayer) -> float:
    names = [weight.name or "" for weight in last.weights]
    gradient = math.hypot(*(float(np.linalg.norm(found[f"grad.{name}"].astype(np.float64))) for name in names))
    length = math.hypot(*(float(np.linalg.norm(start[name])) for name in names))
    return FIRST_STEP * length / gradient if 0.0 < gradient < math.inf else FIRST_STEP


def movement(start: Mapping[str, Array], end: Mapping[str, Array], layer: ParameterLayer) -> float:
    """||W - W0|| / ||W0|| over a layer's weights."""
    names = [weight.name or "" for weight in layer.weights]
    moved = sum(float(((end[name].astype(np.float64) - start[name]) ** 2).sum()) for name in names)
    return math.sqrt(moved / sum(float((start[name].astype(np.float64) ** 2).sum()) for name in names))


def table(found: Sequence[Outcome], truth: str) -> str:
    """Precision and recall of each kind against one truth."""
    lines = ["| verdict | nets | undecided | right | wrongly said | missed | precision | recall |", "|---" * 8 + "|"]
    for kind in KINDS:
        judged = [(outcome.said(kind), outcome.true(kind, truth)) for outcome in found if outcome.predicted is not None]
        count = Counter(pair for pair in judged if pair[1] is not None)
        right, wrong, missed = count[True, True], count[True, False], count[False, True]
        numbers = [len(judged), len(judged) - count.total(), right, wrong, missed, _share(right, wrong), _share(right, missed)]
        lines.append(f"| {kind} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def _share(right: int, other: int) -> str:
    return f"{right / (right + other):.3f}" if right + other else "-"


def mistakes(found: Sequence[Outcome]) -> Iterator[str]:
    """The nets that are told wrong by the gradients at step 0."""
    for outcome in found:
        for kind in KINDS:
            said, true = outcome.said(kind), outcome.true(kind, "gradients")
            if None not in (said, true) and said != true:
                ends = [f"[{lo:.2f}, {hi:.2f}]" for lo, hi in (outcome.predicted, outcome.measured)]
                doubt = "" if outcome.confident else ", of low confidence"
                yield f"net {outcome.number}, {outcome.model.family}: {kind}; predicted {ends[0]}{doubt}, measured {ends[1]}"
