"""Units that sit where their activation is flat: saturated ones, and dead ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.activations import bends
from vgcompile.analysis.bounds.slopes import slopes_anywhere
from vgcompile.graph.attributes import attributes_of
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import Case
from vgcompile.ops.reading import slope, slope_range

if TYPE_CHECKING:
    from vgcompile.analysis.pipeline import Tiers3

FLAT = 0.1  # of the activation's greatest slope
SHARE = 0.5  # of the units


def saturated(value: ir.Value, tiers: Tiers3) -> bool:
    """Whether more than half of the units have a slope below a tenth of the greatest one.

    Judged by the expected tier's distribution of this pre-activation. An activation that is flat by design over half of the line
    (ReLU) is not saturated but selective.
    """
    reading = tiers.expected.readings.get(value) if tiers.expected else None
    if reading is None or reading.base is None:
        return False
    for node in (use.node for use in value.uses()):
        row = lookup(node.op_type, node.domain)
        if row is None or len(row.derivatives) != 1 or not row.turns:
            continue
        attributes = attributes_of(node)
        greatest = max(map(abs, slopes_anywhere(node.op_type, node.domain, attributes)))
        with np.errstate(all="ignore"):
            flat = np.abs(slope(NUMPY, row, 0, (reading.at_nodes,), **attributes)) < FLAT * greatest
        if reading.base.nodes.mean(flat.astype(np.float64)) > SHARE:
            return True
    return False


def dead_units(node: ir.Node, tiers: Tiers3) -> float:
    """The share of an activation's units whose slope is identically zero over the stated set: the sound tier proves it."""
    row, x = lookup(node.op_type, node.domain), node.inputs[0] if node.inputs else None
    if tiers.sound is None or x is None or row is None or not bends(node) or x not in tiers.sound.ranges:
        return 0.0
    if tiers.sound.local.get((node, 0), (-math.inf,))[0] > -math.inf:  # its least slope is above 0
        return 0.0
    slopes = slope_range(NUMPY, row, 0, Case(attributes_of(node), ranges=(tiers.sound.ranges[x],)))
    return float(np.mean(slopes.magnitude == 0.0))
