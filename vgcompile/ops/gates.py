"""Gates: x times a sigmoid of itself, alone or times another operand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgcompile import special
from vgcompile.interval import WHOLE, Interval, product
from vgcompile.ops.families import UNARY, elementwise
from vgcompile.ops.moments import gathered, independent_product, present, read
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Op, sample
from vgcompile.quadrature import Gaussian, gaussian
from vgcompile.signal import Signal, replace


def swish_slope(op: Any, x: Any, y: Any, *, alpha: float = 1.0) -> Any:
    s = op.Sigmoid(x * alpha)
    return s + y * alpha * (1.0 - s)


def _swish(op: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return x * op.Sigmoid(x if alpha == 1.0 else x * alpha)


# In opset 21 SiLU is written Mul(x, Sigmoid(x)), and bounded operator by operator that is unbounded (the slope by Sigmoid(x)
# is x). As one function its slope has true extrema, so the graph holds it whole and `lower` opens it. The standard operator
# of opset 24 is the same row.
Swish = dataclasses.replace(
    elementwise(
        "Swish",
        "x sigmoid(alpha x), SiLU for alpha = 1.",
        numpy=lambda x, *, alpha=1.0: x * special.expit(alpha * x),
        derivative=swish_slope,
        turns=lambda alpha=1.0: [turn / alpha for turn in (-2.3993572805154675, 2.3993572805154675) if alpha],
        extrema=lambda alpha=1.0: [-1.278464542761074 / alpha] if alpha else [],
        samples=(*UNARY, sample(("N", 4), alpha=1.75), sample((3, 2), alpha=-0.5)),
    ),
    domain=INTERNAL,
    bodies=(Body("sigmoid", _swish),),
    infer=lambda x, **attributes: x,
)


def _swiglu_vjp(op: Any, g: Any, y: Any, a: Any, b: Any, *, alpha: float) -> tuple[Any, ...]:
    gate = op.Swish(a, alpha=alpha)
    return g * b * swish_slope(op, a, gate, alpha=alpha), g * gate


def _swiglu_range(case: Case) -> Interval:
    assert Swish.range is not None
    gate = Swish.range(Case(case.attributes, ranges=case.ranges[:1]))
    assert isinstance(gate, Interval)
    return product(gate, case.ranges[1] or WHOLE)


@dataclass(frozen=True)
class Gated:
    """Moments of silu(a) b for independent a and b, a Gaussian."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        a, b = present(signals)
        nodes, value, _ = self._read(case, a)
        gate = read(a, nodes, value)
        return replace(independent_product(gate, b), alignment=max(a.alignment, b.alignment), doubt=a.doubt or b.doubt)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        a, b = present(signals)
        nodes, value, slope = self._read(case, a)
        factor = read(a, nodes, value) if position else independent_product(read(a, nodes, slope), b)
        return gathered(case, position, replace(independent_product(adjoint, factor), mean=0.0))

    @staticmethod
    def _read(case: Case, a: Signal) -> tuple[Gaussian, Array, Array]:
        nodes, alpha = gaussian(a.mean, a.variance), float(case.attributes.get("alpha", 1.0))
        s = special.expit(alpha * nodes.x)
        value = nodes.x * s
        return nodes, value, s + value * alpha * (1.0 - s)


# Stock ONNX Runtime has no kernel for the Swish in the standard's own body.
SwiGLU = Op(
    "SwiGLU",
    "a sigmoid(alpha a) b: a linear unit behind a gate.",
    vjp=_swiglu_vjp,
    numpy=lambda a, b, *, alpha: a * special.expit(alpha * a) * b,
    range=_swiglu_range,
    moments=Gated(),
    bodies=(Body("sigmoid", lambda op, a, b, *, alpha: op.Swish(a, alpha=alpha) * b),),
    samples=(sample(("N", 3), ("N", 3)), sample((2, 3), (2, 3), alpha=1.75)),
)

ROWS = (Swish, SwiGLU)
