"""What leads from a sequence to the heads of an attention, and from them on, run on rows of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from vgcompile.graph.emit import dims, is_real
from vgcompile.importing.finding import Reading
from vgcompile.importing.projection import Affine, affine
from vgcompile.importing.trial import Array, Trial

TIME = 5  # positions of a trial
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum"})


@dataclass
class Path:
    """Runs what leads from ``base`` [batch, time, features] to ``value``."""

    reading: Reading
    value: ir.Value
    base: ir.Value
    norm: ir.Node | None
    heads: int = 0
    size: int = 0
    ones: dict[ir.Value, Array] = field(default_factory=dict)  # in the place of factors

    def without_factors(self, nodes: Sequence[ir.Node]) -> float:
        """Leave out the numbers that all is multiplied by; returns their product."""
        trial, product = imagined(self.reading, self.base), 1.0
        for node in nodes:
            known = [value for value in node.inputs if value is not None and not self.reading.region.fed(value)]
            if (
                node.op_type not in ("Mul", "Div")
                or len(known) != 1
                or (known[0] is node.inputs[0] is not None and node.op_type == "Div")
            ):
                continue
            number = trial.run(known[0], {})
            if number is not None and number.size == 1 and number.reshape(-1)[0] > 0:
                product *= float(number.reshape(-1)[0]) ** (1 if node.op_type == "Mul" else -1)
                self.ones[known[0]] = np.ones_like(number)
        return product

    @cached_property
    def _time(self) -> int | str:
        return dims(self.base)[1]

    def _laid(self, rows: Array) -> Array:
        """Rows at the positions of as many samples as they fill, [batch, time, features]."""
        batch, time = dims(self.base)[0], 1 if isinstance(self._time, str) else self._time
        samples = -(-len(rows) // time)
        if isinstance(batch, int):
            samples = -(-samples // batch) * batch
        filled = np.zeros((samples * time, rows.shape[1]))
        filled[: len(rows)] = rows
        return filled.reshape(samples, time, -1)

    def _runs(self, x: Array, given: Mapping[ir.Value, Array]) -> Array | None:
        """[batch, time, heads, head size], over as many runs as a fixed batch takes."""
        batch = dims(self.base)[0]
        made = [self.run(part, given) for part in (np.split(x, len(x) // batch) if isinstance(batch, int) else [x])]
        return None if any(part is None for part in made) else np.concatenate(made)  # type: ignore[arg-type]

    def run(self, x: Array, given: Mapping[ir.Value, Array]) -> Array | None:
        trial = Trial(self.reading.opset, {str(dim): size for dim, size in zip(dims(self.base), x.shape, strict=True)})
        known = {**self.ones, **given, self.base: x}
        if self.norm is not None and (source := self.norm.inputs[0]) is not None:
            before = trial.run(source, known)
            if before is None:
                return None
            known = {**self.ones, **given, self.norm.outputs[0]: before}
        y = trial.run(self.value, known)
        batch, time = x.shape[:2]
        if y is None or y.ndim < 3 or y.shape[-2] != time or y.size % (batch * time * y.shape[-1]) or y.shape[0] % batch:
            return None
        y = y.reshape(batch, -1, time, y.shape[-1]).swapaxes(1, 2)
        self.heads, self.size = y.shape[2:]
        return y

    def still(self, rows: Array) -> Array | None:
        """Rows -> their vectors of all heads, all at position 0."""
        made = self._runs(self._laid(rows), self._first_position())
        return None if made is None else made.reshape(-1, self.heads * self.size)[: len(rows)]

    def moving(self, rows: Array) -> Array | None:
        """The vectors [time, rows * heads, head size] of rows that stand at every position."""
        time = TIME if isinstance(self._time, str) else self._time
        x = np.repeat(rows[:, None], time, axis=1)
        batch = dims(self.base)[0]
        if isinstance(batch, int):
            x = np.resize(x, (-(-len(x) // batch) * batch, *x.shape[1:]))
        made = self._runs(x, {})
        return None if made is None else made[: len(rows)].transpose(1, 0, 2, 3).reshape(time, -1, self.size)

    def _first_position(self) -> dict[ir.Value, Array]:
        """Tables of positions, with their first row in each: what is at position 0, of a fixed time."""
        if isinstance(self._time, str):
            return {}
        given = {}
        for node in next((nodes for base, nodes in self.reading.region.passed([self.value]) if base is self.base), ()):
            for value in node.inputs:
                if value is None or self.reading.region.fed(value) or not is_real(value) or node.op_type in PRODUCTS:
                    continue
                table = self.reading.array(value)
                axis = next((axis for axis in (-2, -3) if table is not None and _extent(table, axis) == self._time), None)
                if table is not None and axis is not None:
                    given[value] = np.repeat(np.take(table, [0], axis), self._time, axis)
        return given

    def behind(self, start: ir.Value, heads: int) -> Affine | None:
        """The map from the vectors of all heads, at ``start``, to ``value`` [batch, time, units]."""
        size = dims(start)[-1]
        if not isinstance(size, int):
            return None

        def run(rows: Array) -> Array | None:
            x = self._laid(rows)
            batch, made = dims(self.base)[0], []
            for part in np.split(x, len(x) // batch) if isinstance(batch, int) else [x]:
                trial = Trial(
                    self.reading.opset, {str(dim): size for dim, size in zip(dims(self.base), part.shape, strict=False)}
                )
                shape = _shape_of(trial, start, part.shape)
                split = part.reshape(*part.shape[:2], heads, -1).swapaxes(1, 2)
                y = None if shape is None else trial.run(self.value, {start: split.reshape(shape)})
                if y is None or y.shape[:2] != part.shape[:2]:
                    return None
                made.append(y)
            return np.concatenate(made).reshape(-1, made[0].shape[-1])[: len(rows)]

        return affine(run, heads * size)


def _shape_of(trial: Trial, start: ir.Value, laid: tuple[int, ...]) -> list[int] | None:
    """That of the vectors of all heads; the first axis may hold the batch and its heads."""
    known = [dim if isinstance(dim, int) else trial.extents.get(dim, -1) for dim in dims(start)]
    return known if known.count(-1) <= 1 else None


def imagined(reading: Reading, *bases: ir.Value) -> Trial:
    """One where the batch is 2 and every other symbol as many positions."""
    symbols = {dim for value in (*bases, *reading.inputs) for dim in dims(value) if isinstance(dim, str)}
    batches = {str(dims(value)[0]) for value in (*bases, *reading.inputs) if dims(value)}
    return Trial(reading.opset, {name: 2 if name in batches else TIME for name in symbols})


def _extent(array: Array, axis: int) -> int:
    return array.shape[axis] if array.ndim >= -axis else 0


def repeated(path: Path, heads: int) -> int:
    """How many heads in a row are one and the same, whatever the parameters are."""
    draws, trial = np.random.default_rng(2), Trial(path.reading.opset, {})
    given = {value: draws.normal(size=trial.shape(value)) for value in path.reading.parameters_above(path.value, path.base)}
    time = TIME if isinstance(dims(path.base)[1], str) else dims(path.base)[1]
    batch = dims(path.base)[0] if isinstance(dims(path.base)[0], int) else 1
    made = path.run(draws.normal(size=(int(batch), int(time), int(dims(path.base)[2]))), given)
    if made is None:
        return 1
    same = [np.array_equal(made[:, :, head], made[:, :, head - 1]) for head in range(1, heads)]
    first = same.index(False) + 1 if False in same else heads
    rows = made.reshape(*made.shape[:2], -1, first, made.shape[-1]) if heads % first == 0 else None
    return first if rows is not None and np.array_equal(rows, np.broadcast_to(rows[:, :, :, :1], rows.shape)) else 1


def multiplies(nodes: list[ir.Node] | tuple[ir.Node, ...]) -> bool:
    return any(node.op_type in PRODUCTS for node in nodes)
