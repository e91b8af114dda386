"""Randomness. A node's draw is saved and used again: its gradient belongs to the very masks that its forward run drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, interval, point
from vgcompile.ops.families import broadcasting
from vgcompile.ops.maps import scaled
from vgcompile.ops.moments import signal_of
from vgcompile.ops.op import INTERNAL, Body, Case, Inference, Op, Tabular, sample
from vgcompile.ops.shape import constant
from vgcompile.signal import Signal, replace

RATIO = 0.5  # ONNX's default


def _number(x: Any) -> Any:
    """The number that an operand is known to hold, or None."""
    known = constant(x)
    return None if known is None else known.item()


def _dropout_vjp(op: Any, g: Any, y: Any, x: Any, ratio: Any = None, training: Any = None, **_: Any) -> tuple[Any, ...]:
    """g / (1 - ratio) where the mask kept the element, 0 elsewhere; outside training the identity."""
    if training is None or _number(training) is False:
        return (g, None, None)
    g, mask = g[0] if isinstance(g, tuple) else g, y[1]
    share = RATIO if ratio is None else _number(ratio)
    scale: Any = 1.0 / (1.0 - share) if share is not None and share < 1 else op.Reciprocal(1.0 - _like(op, ratio, x))
    if _number(training) is None:
        scale = op.Where(training, scale, 1.0)
    return (op.Where(mask, g * scale, 0.0), None, None)


def _like(op: Any, ratio: Any, x: Any) -> Any:
    return ratio if ratio.dtype == x.dtype else op.Cast(ratio, to=int(x.dtype))


def _share(case: Case) -> float | None:
    """The ratio of elements dropped, 0 outside training; None where it is not known."""
    training = case.values[2] if len(case.values) > 2 else np.asarray(False)
    ratio = case.values[1] if len(case.values) > 1 and case.shapes[1] is not None else np.asarray(RATIO)
    if training is not None and not training:
        return 0.0
    return None if training is None or ratio is None else float(ratio)


def _dropout_range(case: Case) -> tuple[Interval, ...]:
    share, x = _share(case), case.ranges[0] or WHOLE
    y = WHOLE if share is None or share >= 1 else x
    if share and share < 1:
        y = corners(lambda v, keep: v / keep, [x, point(1.0 - share)]).hull(interval(0.0, 0.0))
    return (y, interval(0.0, 1.0))[: len(case.outputs)]


def _dropout_norms(case: Case, position: int) -> tuple[float, float]:
    share = _share(case)
    if share == 0.0:
        return (1.0, 1.0)
    return (0.0, np.inf if share is None or share >= 1 else 1.0 / (1.0 - share) * (1.0 + 1e-12))


def _kept_slopes(case: Case) -> Interval:
    """Each element is dropped or scaled up."""
    share = _share(case)
    if share == 0.0:
        return interval(1.0, 1.0)
    most = np.inf if share is None or share >= 1 else 1.0 / (1.0 - share) * (1.0 + 1e-12)
    return interval(0.0, most)


@dataclass(frozen=True)
class Dropped(Tabular):
    """E[(m x / (1 - p))^2] = E[x^2] / (1 - p); different elements have different masks, so that products of two are kept."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        return self._kept(case, x)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        return self._kept(case, adjoint)

    @staticmethod
    def _kept(case: Case, x: Signal) -> Signal:
        share = _share(case)
        if share is None or share >= 1:
            raise NotImplementedError("dropout's ratio or mode is not known")
        table = x.table and replace(x.table, others=x.table.others * (1.0 - share))
        return replace(x, square=x.square / (1.0 - share), table=table)


Dropout = Op(
    "Dropout",
    "In training sets each element to 0 with probability `ratio` and scales the others up to keep the mean; else the identity.",
    vjp=_dropout_vjp,
    saved=(1,),
    random=True,
    idle=lambda case: _share(case) == 0.0,
    range=_dropout_range,
    norms=_dropout_norms,
    tangent=lambda case, position: scaled(case, 0, _kept_slopes(case)) if position == 0 else None,
    moments=Dropped(),
    inference=Inference(inputs=2),
    refuses=lambda case: "every element is dropped" if _share(case) is not None and (_share(case) or 0.0) >= 1 else "",
    samples=(
        sample(("N", 4)),
        sample(("N", 4), np.array(0.25, np.float32), np.array(True), seed=7),
        sample((3, "N"), np.array(0.5, np.float32), np.array(False)),
    ),
)


@dataclass(frozen=True)
class Chosen:
    """Moments of one input, chosen by the mode: the others' adjoints are 0."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return signal_of(signals, self._taken(case))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        return adjoint.scaled(1.0 if position == self._taken(case) else 0.0)

    @staticmethod
    def _taken(case: Case) -> int:
        return 0 if case.attributes.get("training", 1) else 1


InTraining = broadcasting(
    "InTraining",
    "The first input in training, the second at inference.",
    numpy=lambda noisy, plain, *, training=1: noisy if training else plain,
    derivatives=(lambda op, *_, training=1: float(training), lambda op, *_, training=1: 1.0 - training),
    vjp=lambda op, g, y, noisy, plain, *, training=1: (g, None) if training else (None, g),
    moments=Chosen(),
    domain=INTERNAL,
    inference=Inference(attributes={"training": 0}, inputs=2),
    bodies=(Body("copy", lambda op, noisy, plain, *, training=1: op.Identity(noisy if training else plain)),),
    infer=lambda noisy, plain, **_: plain,
    samples=(sample(("N", 4), ("N", 4)), sample(("N", 4), ("N", 4), training=0)),
)

ROWS = (Dropout, InTraining)
