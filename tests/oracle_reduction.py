"""Reductions in plain NumPy: the reference evaluator gives NaN for log(sum(exp(x))) over elements that are all -inf."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class ReduceLogSumExp(OpRun):
    op_domain = ""

    def _run(self, x: Array, axes: Array | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> tuple[Array]:
        along: Any = None if axes is None or np.size(axes) == 0 else tuple(np.ravel(axes).tolist())
        if along is None and noop_with_empty_axes:
            return (x,)
        top = np.max(x, axis=along, keepdims=True, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0.0)
        y = np.log(np.sum(np.exp(x - top), axis=along, keepdims=True)) + top
        return (np.asarray(y if keepdims else np.squeeze(y, along), x.dtype),)


OPERATORS = [ReduceLogSumExp]
