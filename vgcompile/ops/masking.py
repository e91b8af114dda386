"""Moments of what hides places: a choice between a value and minus infinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.moments import signal_of
from vgcompile.ops.op import Array, Case, Tabular
from vgcompile.ops.tables import LOW, masked
from vgcompile.signal import Signal

UNKNOWN = "which places hold minus infinity is known at run time only"


@dataclass(frozen=True)
class Masked(Tabular):
    """One of two operands where a known condition holds, with minus infinity elsewhere: its statistics, where it is. What is
    minus infinity sends nothing back."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        kept, hidden = self._read(case)
        return masked(case, signal_of(signals, kept), hidden)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        kept, _ = self._read(case)
        if position != kept:
            return adjoint.scaled(0.0)
        if case.shapes[kept] != case.outputs[0]:
            raise NotImplementedError("what a condition repeats")
        return adjoint

    @staticmethod
    def _read(case: Case) -> tuple[int, Array]:
        """The operand that is kept, and where it is not."""
        condition = case.values[0]
        fill = next((i for i in (1, 2) if (value := case.values[i]) is not None and value.size and (value <= LOW).all()), None)
        if condition is None:
            raise NotImplementedError("which operand is chosen is known at run time only" if fill is None else UNKNOWN)
        if fill is None:
            raise NotImplementedError("a condition is predicted between one operand and minus infinity")
        hidden = condition if fill == 1 else ~condition
        if hidden.ndim and hidden.all(-1).any() and not np.isneginf(case.values[fill]).all():  # type: ignore[arg-type]
            raise NotImplementedError("a row in which all places are filled")
        return 3 - fill, hidden
