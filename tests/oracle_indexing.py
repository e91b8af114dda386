"""Looking up and choosing in plain NumPy: the reference evaluator demands of GatherElements that all axes but one agree, and
sorts Unique's elements where they are to stand in the order of their first occurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class GatherElements(OpRun):
    op_domain = ""

    def _run(self, x: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        y = np.empty(indices.shape, x.dtype)
        for place in np.ndindex(*indices.shape):
            source = list(place)
            source[axis] = indices[place]
            y[place] = x[tuple(source)]
        return (y,)


class Unique(OpRun):
    op_domain = ""

    def _run(self, x: Array, axis: int | None = None, sorted: int = 1) -> tuple[Array, ...]:
        """Slices compared as tuples, one after the other."""
        slices = [
            tuple(row) for row in (x.reshape(-1, 1) if axis is None else np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1))
        ]
        found = list(dict.fromkeys(slices))
        if sorted:
            found.sort()
        first = np.array([slices.index(row) for row in found], np.int64)
        inverse = np.array([found.index(row) for row in slices], np.int64)
        counts = np.array([slices.count(row) for row in found], np.int64)
        y = x.reshape(-1)[first] if axis is None else np.take(x, first, axis)
        return (y, first, inverse, counts)[: len(self.output)]


OPERATORS = [GatherElements, Unique]
