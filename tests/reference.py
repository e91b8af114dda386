"""The ONNX reference evaluator as the tests' oracle: corrected where the package corrects it, and where only tests need it."""

from __future__ import annotations

from functools import lru_cache

import onnx
from onnx.reference import ReferenceEvaluator

from tests import (
    oracle_attention,
    oracle_control,
    oracle_indexing,
    oracle_quantization,
    oracle_recurrent,
    oracle_reduction,
    oracle_regions,
    oracle_sampling,
    oracle_windows,
)
from vgcompile import reference
from vgcompile.reference import in_float64, padding

__all__ = ["evaluator", "in_float64", "padding"]

OPERATORS = [
    *reference.OPERATORS,
    *oracle_attention.OPERATORS,
    *oracle_control.OPERATORS,
    *oracle_indexing.OPERATORS,
    *oracle_quantization.OPERATORS,
    *oracle_recurrent.OPERATORS,
    *oracle_reduction.OPERATORS,
    *oracle_regions.OPERATORS,
    *oracle_sampling.OPERATORS,
    *oracle_windows.OPERATORS,
]


@lru_cache(maxsize=64)
def evaluator(model: bytes) -> ReferenceEvaluator:
    """Runs a serialized model in the precision of what it is fed."""
    return ReferenceEvaluator(onnx.load_from_string(model), new_ops=OPERATORS)
