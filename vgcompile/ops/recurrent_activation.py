"""The functions that a recurrent operator names in ``activations``: rows of the table, bound to their alpha and beta.

Two of them are no operators of the standard. They are composites here, so that they have what every row has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval
from vgcompile.ops import activation
from vgcompile.ops.families import elementwise
from vgcompile.ops.op import INTERNAL, Attributes, Body, Case, Op, sample


def _scaled_tanh_slope(op: Any, x: Any, y: Any, *, alpha: float, beta: float) -> Any:
    t = op.Tanh(x * beta)
    return (1.0 - t * t) * (alpha * beta)


Affine = replace(
    elementwise(
        "Affine",
        "alpha x + beta.",
        numpy=lambda x, *, alpha, beta: alpha * x + beta,
        derivative=lambda op, x, y, *, alpha, beta: float(alpha),
        samples=(sample(("N", 5), alpha=0.5, beta=0.25), sample((2, 3), alpha=-2.0, beta=0.0)),
    ),
    domain=INTERNAL,
    bodies=(Body("scaled", lambda op, x, *, alpha, beta: x * alpha + beta),),
    infer=lambda x, **_: x,
)

ScaledTanh = replace(
    elementwise(
        "ScaledTanh",
        "alpha tanh(beta x).",
        numpy=lambda x, *, alpha, beta: alpha * np.tanh(beta * x),
        derivative=_scaled_tanh_slope,
        turns=[0.0],
        samples=(sample(("N", 5), alpha=1.7, beta=0.6), sample((2, 3), alpha=-0.5, beta=2.0)),
    ),
    domain=INTERNAL,
    bodies=(Body("scaled", lambda op, x, *, alpha, beta: op.Tanh(x * beta) * alpha),),
    infer=lambda x, **_: x,
)

ROWS = (Affine, ScaledTanh)

_ROWS = {row.name: row for row in (*activation.ROWS, *ROWS)}

# What each function takes from activation_alpha and activation_beta, and the value that it has where they are used up. None: the
# standard names no value, or ONNX Runtime has another (it takes 0).
_PARAMETERS: Mapping[str, Mapping[str, float | None]] = {
    "Sigmoid": {},
    "Tanh": {},
    "Relu": {},
    "Softsign": {},
    "Softplus": {},
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "ThresholdedRelu": {"alpha": None},
    "Affine": {"alpha": None, "beta": None},
    "ScaledTanh": {"alpha": None, "beta": None},
}


@dataclass(frozen=True)
class Activation:
    """One of the functions. What goes into it is cut off at +-clip; the slope is 0 where something was cut off."""

    row: Op
    attributes: Mapping[str, float]
    clip: float | None = None

    def value(self, op: Any, x: Any) -> Any:
        return getattr(op, self.row.name)(self._cut(op, x), **self.attributes)

    def slope(self, op: Any, x: Any, y: Any) -> Any:
        """The derivative by x where the value is y; a plain number where it is the same everywhere."""
        derivative = self.row.derivatives[0]
        assert derivative is not None
        slope = derivative(op, self._cut(op, x), y, **self.attributes)
        if self.clip is None:
            return slope
        return op.Where(op.LessOrEqual(op.Abs(x), self.clip), slope, 0.0)

    @property
    def range(self) -> Interval:
        """What the value lies in, whatever goes in."""
        assert self.row.range is not None
        found = self.row.range(Case(self.attributes, ranges=(WHOLE,)))
        assert isinstance(found, Interval)
        return found

    def _cut(self, op: Any, x: Any) -> Any:
        return x if self.clip is None else op.Clip(x, -self.clip, self.clip)


def activations(attributes: Attributes, default: Sequence[str], directions: int) -> list[tuple[Activation, ...]]:
    """The functions of each direction. Alphas and betas are used up in order, each by the functions that take one."""
    count = len(default)
    names = list(attributes["activations"] or [*default] * directions)[: count * directions]
    given = {key: iter(attributes[f"activation_{key}"] or ()) for key in ("alpha", "beta")}
    found = [Activation(_ROWS[name], _bound(name, given), attributes["clip"]) for name in names]
    return [tuple(found[d * count : (d + 1) * count]) for d in range(directions)]


def _bound(name: str, given: Mapping[str, Iterator[float]]) -> dict[str, float]:
    values = {key: next(given[key], value) for key, value in _PARAMETERS[name].items()}
    return {key: float(value) for key, value in values.items() if value is not None}


def unsuited(attributes: Attributes, default: Sequence[str], directions: int) -> str:
    """Why the activations cannot be read, or ""."""
    names = attributes["activations"] or [*default] * directions
    if len(names) < len(default) * directions:
        return f"it names {len(names)} activations and has {len(default) * directions}"
    unknown = [name for name in names if name not in _PARAMETERS]
    if unknown:
        return f"its activation {unknown[0]!r} is none of {', '.join(_PARAMETERS)}"
    for functions in activations(attributes, default, directions):
        for function in functions:
            missing = [f"activation_{key}" for key in _PARAMETERS[function.row.name] if key not in function.attributes]
            if missing:
                return f"its activation {function.row.name} needs {' and '.join(missing)}, for which runtimes differ"
    return ""
