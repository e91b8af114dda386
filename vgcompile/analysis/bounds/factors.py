"""Each operator's own factor: the extremes of ||J^T g|| / ||g|| over its ranges."""

from __future__ import annotations

import onnx_ir as ir

from vgcompile.analysis.bounds.enclosure import Enclosure
from vgcompile.analysis.bounds.logs import Bounds, log_of
from vgcompile.analysis.bounds.slopes import extremes
from vgcompile.analysis.uses import learned
from vgcompile.graph.emit import constant_of, is_real
from vgcompile.graph.network import Network
from vgcompile.ops import lookup

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
