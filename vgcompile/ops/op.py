"""One row of the operator table, and the families that rows come in.

A row says what is true of one ONNX operator. Each fact is one field, read by whoever needs it:

    vjp        (op, g, y, *x, **attributes) -> one adjoint per input
               `op` is a namespace of operators, `g` the adjoint of the output, `y` the output, `x` the inputs; `None` in the
               result means that nothing flows. A row with several outputs gets tuples for `g` and `y`; an entry is `None` for
               an output without an adjoint, or one that the node does not have. Shapes, broadcasting, accumulation and names
               are the sweep's business (passes/differentiate.py): an adjoint may come back in the broadcast shape.
    numpy      (*x, **attributes) -> the value, in float64
    range      (case) -> Interval, an enclosure of the value
    slope      (case, position) -> Interval, an enclosure of the derivative by that input, where the ends do not tell it
    norms      (case, position) -> (lo, hi), enclosing every singular value's extremes of the Jacobian of the
               output by that input, for one sample: lo <= ||J^T g|| / ||g|| <= hi
    tangent    (case, position) -> Tangent, a known linear map near the Jacobian by that input, for one sample; None where
               there is none
    moments    forward and backward statistics of the expected tier (vgcompile/signal.py); where a row that a gradient flows
               through has none, ``unpredicted`` says why
    bodies     the operators that a composite row opens into (passes/lower.py picks one)
    flops      (case) -> operations of the forward node (flops.py)
    samples    inputs on which the laws of the table are tested

An elementwise operator states its derivative once, as an expression over `op`: read with the graph builder it emits nodes, read
with NumPy at the ends and turning points of an interval it gives the exact slope range, read at quadrature nodes it gives
E[phi'^2].
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from vgcompile.interval import Interval
from vgcompile.signal import Signal

Array = np.ndarray[Any, Any]
Dim = int | str
Attributes = Mapping[str, Any]

Rule = Callable[..., Any]
T = TypeVar("T")

INTERNAL = "vgcompile"  # domain of composites; passes/lower.py opens every node of it


@dataclass(frozen=True)
class Through:
    """Along which axis of its first input an operator goes, whether it begins at the end, and which axis counts samples in each
    input that has one."""

    axis: int
    backwards: bool
    samples: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What is known of one node where a row's facts are read.

    Shapes hold ints and symbols. ``ranges`` enclose the inputs (``None`` for an absent one); ``values`` holds the inputs that
    are known arrays, as they are in this model (parameters, constants). ``data`` are the positions of inputs that depend on
    data; the others are the same for every sample. ``singular`` are the extreme singular values of inputs that are matrices
    [rows, the rest], where these are known and the array is not. ``balls`` are, for inputs of a ``round`` row where one is
    known, a point [n] and how far in the l2 norm one flattened sample may be from it. ``batch`` is the number of samples, 1
    where it does not matter, ``samples`` the extent that counts them where that is told apart; ``output`` is the one that an
    adjoint arrives at, and ``unread`` are outputs that none arrives at. A run reads operands with a relative error of ``unit``,
    where that is asked about.
    """

    attributes: Attributes = field(default_factory=dict)
    shapes: tuple[tuple[Dim, ...] | None, ...] = ()
    outputs: tuple[tuple[Dim, ...] | None, ...] = ()
    ranges: tuple[Interval | None, ...] = ()
    values: tuple[Array | None, ...] = ()
    batch: int = 1
    samples: Dim | None = None
    output: int = 0
    data: frozenset[int] = frozenset()
    singular: tuple[tuple[float, float] | None, ...] = ()
    balls: tuple[tuple[Array, float] | None, ...] = ()
    unread: frozenset[int] = frozenset()
    unit: float = 0.0
    _found: dict[tuple[str, int, float], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, what: str, position: int, unit: float, made: Callable[[], T]) -> T:
        """What several analyses ask of one operand, worked out for the first of them."""
        key = (what, position, unit)
        if key not in self._found:
            self._found[key] = made()
        return self._found[key]  # type: ignore[no-any-return]

    def count(self, dims: Sequence[Dim] | None) -> int:
        """Number of elements, symbols read as the batch size."""
        return math.prod(self.batch if isinstance(dim, str) else int(dim) for dim in dims or ())


class Moments(Protocol):
    """How an operator that is not elementwise moves statistics. Raises NotImplementedError where no formula is known."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal | tuple[Signal, ...]: ...

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        """Adjoint statistics of one input; ``square`` times its number of elements is E||adjoint||^2."""
        ...


class Stepwise(ABC):
    """What the moments of an operator say besides that uses an input once in each step of a recurrence."""

    @abstractmethod
    def steps(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Array:
        """E||.||^2 of what each step sends to this input, [steps] in the order of time; empty where steps do not apply."""


class Tabular:
    """Moments that tell rows from columns of a value that has both (``Signal.table``); others are shown what is left without."""


@dataclass(frozen=True)
class Sample:
    """Inputs for the laws: shapes (a string is a symbolic dimension, run at extents 1, 2 and 5), literal arrays, None where one
    is absent."""

    shapes: tuple[tuple[Dim, ...] | Array | None, ...]
    attributes: Attributes = field(default_factory=dict)
    domain: tuple[float, float] = (-2.0, 2.0)  # values are drawn uniformly from here
    outputs: int = 1


def sample(
    *shapes: tuple[Dim, ...] | Array | None, domain: tuple[float, float] = (-2.0, 2.0), outputs: int = 1, **attributes: Any
) -> Sample:
    return Sample(shapes, attributes, domain, outputs)


@dataclass(frozen=True)
class Body:
    """One way to write a composite in standard operators.

    ``emit(op, *inputs, **attributes)`` returns the outputs; ``applies`` says for which nodes; ``cost`` is an estimate in
    multiply-adds or bytes moved, for choosing (the least wins).
    """

    name: str
    emit: Rule
    applies: Callable[[Case], bool] = lambda case: True
    cost: Callable[[Case], float] = lambda case: 0.0


@dataclass(frozen=True)
class Inference:
    """How a node that trains differently is written for inference: attributes to set, and how many inputs and outputs it
    keeps."""

    attributes: Attributes = field(default_factory=dict)
    inputs: int | None = None
    outputs: int = 1


@dataclass(frozen=True)
class Variadic:
    """The derivatives of an operator with any number of inputs: the i-th is ``rule(i, op, *x, y, **attributes)``."""

    rule: Rule

    def __getitem__(self, position: int) -> Rule:
        return partial(self.rule, position)

    def __len__(self) -> int:
        return sys.maxsize


@dataclass(frozen=True)
class LinearMap:
    """A known linear map of one sample's elements, flattened: ``push`` takes rows [S, n] to [S, m], its transpose ``pull`` takes
    rows [S, m] to [S, n]. ``norm`` is no less than the map's spectral norm; ``error`` bounds the rounding of both:
    ||computed - exact||_F <= error ||given||_F."""

    push: Callable[[Array], Array]
    pull: Callable[[Array], Array]
    norm: float = 1.0
    error: float = 0.0


@dataclass(frozen=True)
class Tangent:
    """Where the Jacobian J of one input lies: J = diag(d) L + E, with d within ``slopes``, one interval an element of the output
    (None: ones), and ||E|| <= ``ball``."""

    map: LinearMap
    slopes: Interval | None = None
    ball: float = 0.0


def _elements(case: Case) -> float:
    return float(case.count(case.outputs[0]))


@dataclass(frozen=True)
class Op:
    """A row; see the module's text for the fields."""

    name: str
    doc: str
    domain: str = ""
    vjp: Rule | None = None
    nested: Rule | None = None  # in place of a vjp, of an operator that holds graphs (control.py)
    derivatives: tuple[Rule | None, ...] | Variadic = ()
    numpy: Rule | None = None
    range: Callable[[Case], Interval | tuple[Interval, ...]] | None = None
    slope: Callable[[Case, int], Interval] | None = None  # where the derivative is not monotone in each operand taken alone
    defined: tuple[float, float] = (-math.inf, math.inf)  # where a function of one number is defined
    norms: Callable[[Case, int], tuple[float, float]] | None = None
    tangent: Callable[[Case, int], Tangent | None] | None = None
    moments: Moments | None = None
    kinks: Callable[..., Sequence[float]] | Sequence[float] = ()  # where the value has a corner or a jump
    turns: Callable[..., Sequence[float]] | Sequence[float] = ()  # where the slope turns
    extrema: Callable[..., Sequence[float]] | Sequence[float] = ()  # where the value turns
    steps: bool = False  # its slope takes a few constants alone, and which one is told by comparing x: no rounding is in it
    round: bool = False  # whether its facts ask for balls around its inputs
    jumps: bool = False  # whether its value jumps somewhere, so that slopes do not bound differences
    linear: bool = False  # elementwise and linear in all operands together: a sum
    rearranges: bool = False  # its value holds the elements of its first input, each of them once
    blocked: str = ""  # why nothing flows: the gradient is zero, or the output is no real number
    unpredicted: str = ""  # why the expected tier has no moments where a gradient flows
    uncovered: str = ""  # why there is no rule where a gradient would flow, and what would do
    saved: tuple[int, ...] = ()  # further outputs that the vjp reads: the sweep sees to it that the node has them
    untrained: tuple[int, ...] = ()  # real inputs that set and do not learn: running statistics, the scales of a resize
    classes: Callable[[Case], Mapping[int, int]] = lambda case: {}  # how many different numbers an integer input may hold, from 0
    by_shape: bool = False  # its value follows from the shape of its first input alone
    random: bool = False
    normalizes: bool = False  # divides by a length or deviation of its own input
    through: Callable[[Attributes], Through] | None = None  # how it goes through its first input, step by step
    averages: int | None = None  # the input of which it makes means over positions, with weights that it computes
    idle: Callable[[Case], bool] = lambda case: False  # whether a random node of this case draws nothing
    inference: Inference | None = None  # None: the same in training and at inference
    bodies: tuple[Body, ...] = ()
    opens: Callable[[Attributes], bool] = lambda attributes: True  # whether `lower` opens a node with these attributes
    since: int = 0  # the opset from which the standard has a composite of ours: there it is written whole
    enters: Rule | None = None  # (node) -> of each input of its bodies: type, dimensions, the output that hands it on or None
    infer: Callable[..., Any] | None = None  # values typed like the outputs (internal), or like what ONNX leaves open of them
    refuses: Callable[[Case], str] | None = None  # a reason why the vjp does not cover this node, or ""
    flops: Callable[[Case], float] = _elements  # of an operator that is opened: those of its body
    samples: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        if not self.doc.endswith("."):
            raise ValueError(f"{self.name}: the documentation is one sentence, with its full stop")
        flows = self.vjp or self.nested or (self.bodies and not self.blocked)  # what blocks may be a composite
        if sum(map(bool, (self.blocked, self.uncovered, flows))) != 1:
            raise ValueError(f"{self.name}: a row has a vjp (or bodies), or says why nothing flows, or why there is no rule")
        if self.derivatives and self.numpy is None:
            raise ValueError(f"{self.name}: an elementwise row needs its NumPy reading")

    @property
    def elementwise(self) -> bool:
        return bool(self.derivatives)

    @property
    def stops(self) -> bool:
        """Whether nothing flows because somebody wants it so: differences do not stop there."""
        return bool(self.blocked and self.bodies)


def at(positions: Callable[..., Sequence[float]] | Sequence[float], attributes: Attributes) -> tuple[float, ...]:
    """Kinks, turns or extrema of a row for these attributes."""
    return tuple(positions(**attributes) if callable(positions) else positions)
