"""Quantization in plain NumPy, in the precision of what it is fed."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


class DynamicQuantizeLinear(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array, Array, Array]:
        """The range, widened to hold 0, over 256 steps."""
        top, bottom = max(float(x.max()), 0.0), min(float(x.min()), 0.0)
        scale = (top - bottom if top != bottom else 1.0) / 255.0
        zero = np.rint(np.clip(-bottom / scale, 0.0, 255.0))
        y = np.clip(np.rint(x / scale) + zero, 0.0, 255.0)
        return (y.astype(np.uint8), np.asarray(scale, x.dtype), np.asarray(zero, np.uint8))


OPERATORS = [DynamicQuantizeLinear]
