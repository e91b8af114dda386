"""Initializers that are made when they are read: a graph of any size is built, checked and summed up without them.

A small tensor is kept once it was made; a large one is made again for each reader, so that a model is written with one of them in
memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.initial import Initial

KEPT = 2**20  # bytes

Array = np.ndarray[Any, Any]


def drawn(initial: Initial, name: str, seed: int) -> ir.LazyTensor:
    """A parameter's first value."""
    return made_when_read(lambda: initial.draw(name, seed), initial.shape, name)


def made_when_read(make: Callable[[], Array], shape: Sequence[int], name: str) -> ir.LazyTensor:
    """A float32 tensor."""
    return ir.LazyTensor(
        lambda: ir.Tensor(np.asarray(make(), np.float32, order="C"), name=name),
        ir.DataType.FLOAT,
        ir.Shape(shape),
        cache=4 * math.prod(shape) <= KEPT,
        name=name,
    )
