"""What an analysis says: plain frozen data, every number a log10, every absent number with its reason.

The JSON form (:mod:`vgcompile.analysis.document`) and the pictures read these and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import networkx as nx

from vgcompile.errors import Mark
from vgcompile.rules.rule import Rule, Severity

Reason = Literal["not_run", "zero", "underflow", "unbounded", "undefined"]
Kind = Literal["vanishing", "exploding", "healthy", "saturated", "dead", "unknown"]
Grade = Literal["certified", "predicted", "observed"]
Confidence = Literal["high", "low"]
Role = Literal["activation", "parameter", "none"]
TierName = Literal["measured", "expected", "sound"]
Cause = Literal["weights", "slopes", "scales", "normalization", "fan-out", "other"]


@dataclass(frozen=True)
class Sound:
    """An interval that contains the truth for every input of the stated set and these weights. ``by`` names the domain that gave
    each end of an edge's gain (docs/theory.md), "" for other quantities."""

    lo: float | None = None
    hi: float | None = None
    vacuous: bool = True
    by: tuple[str, str] = ("", "")

    def against(self, other: Sound) -> Sound:
        """The quotient of two numbers that lie in two intervals, in log10."""
        lo = None if self.lo is None or other.hi is None else self.lo - other.hi
        hi = None if self.hi is None or other.lo is None else self.hi - other.lo
        return Sound(lo, hi, lo is None and hi is None)


@dataclass(frozen=True)
class Expected:
    """Mean and standard deviation of the log10 over initializations, at the analysed batch size.

    ``reason`` says why confidence is low or, without a mean, why there is none."""

    mean: float | None = None
    sd: float | None = None
    confidence: Confidence = "low"
    reason: str = ""


@dataclass(frozen=True)
class Tiers:
    """One quantity in three tiers. ``why`` maps a field (``sound.lo``, ``sound.hi``, ``expected``, ``measured``)
    that is ``None`` to the reason for it."""

    sound: Sound = Sound()
    expected: Expected = Expected()
    measured: float | None = None
    why: Mapping[str, Reason] = field(default_factory=dict)

    @property
    def seen(self) -> float | None:
        """The measured number, -inf for one that is zero or underflows; else the predicted one."""
        if self.why.get("measured") in ("zero", "underflow"):
            return -math.inf
        return self.expected.mean if self.measured is None else self.measured

    def against(self, other: Tiers) -> Tiers:
        """The quotient of two gains, tier by tier; of its spread nothing is known, for the two are not independent."""
        measured = None if self.measured is None or other.measured is None else self.measured - other.measured
        a, b = self.expected, other.expected
        expected = a if a.mean is None or b.mean is None else Expected(a.mean - b.mean, None, a.confidence)
        return Tiers(self.sound.against(other.sound), expected, measured, other.why if other.measured is None else self.why)


@dataclass(frozen=True)
class Elements:
    """How the elements of an adjoint lie, measured: log10 of the greatest magnitude (None where that is 0 or not finite), and the
    shares of zeros and of infinities and NaN. Of several initializations the mean of each."""

    peak: float | None
    zeros: float
    undefined: float


@dataclass(frozen=True)
class Edge:
    """One use of one value: producer -> consumer at an input position.

    ``elements`` is None where they were not asked for. ``steps`` holds the gain at each time step of what a recurrent
    operator reads, in the order in which it reads them; empty where no tier tells steps apart.
    """

    id: str  # "<target>#<input position>"
    source: str  # node name, or the name of a graph input or parameter
    target: str  # node name
    value: str  # ONNX value name
    layer: str  # the consumer's layer
    role: Role
    shape: tuple[int | str, ...]
    line: int | None  # YAML line of the consumer's layer
    local: Tiers
    gain: Tiers
    elements: Elements | None = None
    steps: tuple[Tiers, ...] = ()


@dataclass(frozen=True)
class Operator:
    """One node of the graph; ``output`` where it makes an output of the network, ``total`` the gain of its value's gradient, the
    sum over all uses."""

    name: str
    type: str
    layer: str
    line: int | None
    output: bool
    total: Tiers


@dataclass(frozen=True)
class Step:
    """One step of a path from the loss: crossing ``edge`` multiplies by 10**factor, and the join of that edge with the
    value's other consumers by 10**merge."""

    edge: str
    layer: str
    line: int | None
    factor: float
    merge: float


@dataclass(frozen=True)
class Path:
    """The strongest route from the loss to a layer; factors and merges add up to ``gain`` exactly."""

    steps: tuple[Step, ...]
    gain: float
    tier: TierName


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    grade: Grade
    worst_path: Path | None = None
    why: str = ""  # one sentence with the number that decided it
    log: float | None = None  # that number, a log10, where there is one
    over: Literal["layers", "steps"] = "layers"  # what the gradient fell or grew over: the layers behind, or a recurrence's steps

    @property
    def ill(self) -> bool:
        """Whether there is anything to point at."""
        return self.kind not in ("healthy", "unknown")

    @property
    def text(self) -> str:
        """``vanishing (certified)``."""
        return "unknown" if self.kind == "unknown" else f"{self.kind} ({self.grade})"


@dataclass(frozen=True)
class Layer:
    """A layer that holds parameters. ``gain`` is total(pre-activation) against dL/dy, ``relative`` the same against the
    last hidden layer's pre-activation (the verdict rests on it), ``update`` is ||dL/dW|| / ||W|| for its weight.
    ``through_time``, of a recurrent layer, is the gradient of its first step against that of its last one."""

    name: str
    kind: str
    line: int | None
    value: str  # the pre-activation's ONNX value name
    gain: Tiers
    relative: Tiers
    update: Tiers
    verdict: Verdict
    underflow: Mapping[str, Mapping[TierName, float]] = field(default_factory=dict)  # share that rounds to zero, by type and tier
    elements: Elements | None = None  # of total(pre-activation)
    through_time: Tiers | None = None

    @property
    def worst(self) -> Tiers:
        """What tells most against the layer: ``relative``, or ``through_time`` where that is farther from 1."""
        if self.through_time is None:
            return self.relative
        return max(self.relative, self.through_time, key=lambda tiers: abs(tiers.seen or 0.0))


@dataclass(frozen=True)
class Blame:
    """What one step of a path, its edge and the join behind it, adds to a log."""

    edge: str
    layer: str
    line: int | None
    log: float


@dataclass(frozen=True)
class Evidence:
    """A layer's log, taken apart along its worst path: once by cause, once by edge. Either way the parts add up to ``log``.

    ``since`` says where the path is taken from: the last hidden layer, where it leads through that, else dL/dy.
    """

    tier: TierName
    since: Literal["last hidden layer", "dL/dy"]
    log: float
    causes: Mapping[Cause, float]
    edges: tuple[Blame, ...]  # the few that most of it is due to, the worst first
    rest: float  # of all others


@dataclass(frozen=True)
class Finding:
    """What is wrong with the gradient at one layer, by which rule, and how that is known.

    ``ratio`` is the log10 that its severity goes by, None where there are no degrees.
    """

    rule: Rule
    layer: str
    mark: Mark
    grade: Grade
    severity: Severity
    message: str
    ratio: float | None = None
    hint: str = ""
    evidence: Evidence | None = None
    known: bool = False  # a baseline lists it

    @property
    def id(self) -> str:
        """Stays where lines move and numbers change."""
        return f"{self.rule.code}:{self.layer}"


@dataclass(frozen=True)
class Budget:
    """How many layers like these a gradient passes: ``rate`` is its log10 per layer, from the loss on.

    ``threshold`` layers take it to the preset's limit (None where it keeps its size); ``underflow`` ones take a typical element
    of it from where it enters the segment below a type's least number or, growing, above its greatest.
    """

    segment: str  # the name that its layers have in common, or that of the network
    layers: int
    tier: TierName
    rate: float
    threshold: float | None
    underflow: Mapping[str, float]


@dataclass(frozen=True)
class Activation:
    """One activation as the net uses it, for the activation plot: a sample of its pre-activations, where it was measured."""

    node: str
    layer: str
    operator: str
    attributes: Mapping[str, object]
    histogram: tuple[tuple[float, ...], tuple[int, ...]] | None  # bin edges, counts
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Mismatch:
    """A contradiction between two tiers on one edge, or a difference worth a remark."""

    edge: str
    message: str


@dataclass(frozen=True)
class SelfCheck:
    violations: tuple[Mismatch, ...] = ()
    deviations: tuple[Mismatch, ...] = ()


@dataclass(frozen=True)
class Analysis:
    model: str  # name
    source: str  # file name as given
    region: str  # the stated set of inputs, in words
    edges: tuple[Edge, ...]
    layers: tuple[Layer, ...]  # in order from the input to the loss
    activations: tuple[Activation, ...]
    verdict: Verdict  # of the net
    worst: str | None  # name of the worst layer; None where nothing is known of some layer and the others are healthy
    self_check: SelfCheck
    provenance: Mapping[str, object]  # versions, seed, seeds, batch, mode, loss, reduction, provider, tiers ...
    findings: tuple[Finding, ...] = ()  # by code, then from the input to the loss
    budgets: tuple[Budget, ...] = ()  # of the network, then of each segment
    operators: tuple[Operator, ...] = ()

    @property
    def worst_layer(self) -> Layer | None:
        return next((layer for layer in self.layers if layer.name == self.worst), None)

    @property
    def graph(self) -> nx.MultiDiGraph:
        """The annotated graph, made fresh: docs/graph-api.md lists its attributes."""
        from vgcompile.analysis.view import as_networkx

        return as_networkx(self.edges, self.operators)
