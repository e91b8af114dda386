"""Each operator's own factor: the extremes of ||J^T g|| / ||g|| over its ranges."""

from __future__ import annotations

import math

import onnx_ir as ir

from vgcompile.analysis.bounds.enclosure import Enclosure
from vgcompile.analysis.bounds.logs import Bounds, log_of
from vgcompile.analysis.bounds.slopes import slopes
from vgcompile.analysis.uses import learned
from vgcompile.graph.emit import constant_of, is_real
from vgcompile.graph.network import Network
from vgcompile.ops import lookup
from vgcompile.ops.op import Case, Op
from vgcompile.ops.shape import repeats

Use = tuple[ir.Node, int]


def factors(network: Network, known: Enclosure, unit: float) -> dict[Use, Bounds]:
    """log10 of the extremes for each use that a gradient can pass, parameters included.

    Of what samples share there is no least gain: their parts may cancel.
    """
    found: dict[Use, Bounds] = {}
    shared = learned(network)
    for node, case in known.cases.items():
        row = lookup(node.op_type, node.domain)
        if row is None or row.blocked:
            continue
        for position, value in enumerate(node.inputs):
            if value is None or not is_real(value) or constant_of(value) is not None:
                continue
            lo, hi = extremes(row, case, position, unit)
            gathers = value in shared and node.outputs[0] not in shared
            found[node, position] = log_of(0.0 if gathers else lo, hi)
    return found


def extremes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """Extremes of the factor of one use; (0, inf) where the row states nothing."""
    try:
        if row.norms is not None:
            return row.norms(case, position)
        if row.derivatives:
            return _of_slopes(row, case, position, unit)
    except (NotImplementedError, ValueError):
        pass
    return (0.0, math.inf)


def _of_slopes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """An elementwise Jacobian is diagonal: its extremes are those of |slope|.

    An operand that was broadcast k times collects k adjoints.
    """
    bound = slopes(row, case, position, unit)
    lo, hi = float(bound.mignitude.min()), float(bound.magnitude.max())
    copies = repeats(case, position)
    return (lo, hi) if copies == 1 or hi == 0.0 else (0.0, hi * math.sqrt(copies) * (1.0 + 1e-15))
