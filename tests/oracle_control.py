"""Loop and Scan as the standard defines them, where onnx's reference evaluator (1.23.2) falls short: its Loop joins scan outputs
instead of stacking them and takes no absent condition, its Scan knows neither axes nor directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class Loop(OpRun):
    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(
        self, trips: Array | None, go: Array | None, *states: Array, context: dict[str, Array] | None = None, **_: Any
    ) -> tuple[Array, ...]:
        names = list(self.body.input_names)
        gathered: list[list[Array]] = [[] for _ in self.body.output_names[1 + len(states) :]]
        going, step = go is None or bool(go), 0
        while going and (trips is None or step < trips):
            own = (np.array(step, np.int64), np.array(going), *states)
            found = self._run_body({**(context or {}), **dict(zip(names, own, strict=True))})
            going, states = bool(found[0]), tuple(found[1 : 1 + len(states)])
            for kept, value in zip(gathered, found[1 + len(states) :], strict=True):
                kept.append(value)
            step += 1
        return (*states, *(np.stack(values) if values else np.zeros((0,)) for values in gathered))[: len(self.output)]


class Scan(OpRun):
    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(self, *operands: Array, context: dict[str, Array] | None = None, **_: Any) -> tuple[Array, ...]:
        count = self.num_scan_inputs
        states, inputs = list(operands[: len(operands) - count]), operands[len(operands) - count :]
        reading = zip(inputs, _given(self.scan_input_axes, count), _given(self.scan_input_directions, count), strict=True)
        rows = [_turned(np.moveaxis(x, axis, 0), backward) for x, axis, backward in reading]
        names = list(self.body.input_names)
        gathered: list[list[Array]] = [[] for _ in self.body.output_names[len(states) :]]
        for slices in zip(*rows, strict=True):
            found = self._run_body({**(context or {}), **dict(zip(names, (*states, *slices), strict=True))})
            states = list(found[: len(states)])
            for kept, value in zip(gathered, found[len(states) :], strict=True):
                kept.append(value)
        size = len(gathered)
        writing = zip(gathered, _given(self.scan_output_axes, size), _given(self.scan_output_directions, size), strict=True)
        stacked = [np.moveaxis(_turned(np.stack(values), backward), 0, axis) for values, axis, backward in writing]
        return (*states, *stacked)


def _given(flags: Sequence[int] | None, count: int) -> list[int]:
    return list(flags or [0] * count)


def _turned(rows: Array, backward: int) -> Array:
    return rows[::-1] if backward else rows


OPERATORS = [Loop, Scan]
