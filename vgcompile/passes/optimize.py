"""The clean-up list: stock passes, in order.

Parameters are graph inputs here, so nothing folds them away, and common-subexpression elimination merges nodes only where the
same operator reads the same values; edges have their ids by then.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def optimize(model: ir.Model) -> ir.Model:
    """Merge repeated computations, drop what nothing reads. Changes ``model`` and returns it."""
    passes = ir.passes.Sequential(
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    )
    return passes(model).model
