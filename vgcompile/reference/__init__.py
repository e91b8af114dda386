"""ONNX's reference evaluator as a float64 oracle, with plain NumPy in the places where it falls short.

What stands in these rooms is written from the operators' definitions, a loop for each window or step; it shares nothing with the
gradient rules.
"""

from __future__ import annotations

from functools import lru_cache

import onnx
from onnx.reference import ReferenceEvaluator

from vgcompile.reference import (
    attention,
    control,
    corrections,
    indexing,
    losses,
    quantization,
    recurrent,
    reduction,
    regions,
    sampling,
    windows,
)
from vgcompile.reference.corrections import padding as padding
from vgcompile.reference.precision import REAL as REAL
from vgcompile.reference.precision import in_float64 as in_float64
from vgcompile.reference.precision import retyped as retyped

_ROOMS = (attention, control, corrections, indexing, losses, quantization, recurrent, reduction, regions, sampling, windows)
OPERATORS = [operator for room in _ROOMS for operator in room.OPERATORS]


@lru_cache(maxsize=64)
def evaluator(model: bytes) -> ReferenceEvaluator:
    """Runs a serialized model in the precision of what it is fed."""
    return ReferenceEvaluator(onnx.load_from_string(model), new_ops=OPERATORS)
