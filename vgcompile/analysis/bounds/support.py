"""Where a parameter may lie, whatever the seed: the support of the distribution that it is drawn from.

    uniform, truncated normal    a box, each entry by itself
    orthogonal                   a box, and all singular values of the matrix [rows, the rest] are one number
    constant, identity           a point: the array as it stands
    normal                       anywhere: no bound holds for all draws

Draws are rounded to float32, and so are the ends, one step outward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vgcompile.errors import UserError
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.initial import Initial
from vgcompile.interval import WHOLE, Interval, interval

FLOAT32 = 2.0**-24
KNOWN = ("constant", "identity")  # kinds of which there is one draw


@dataclass(frozen=True)
class Support:
    """``box`` holds every entry; ``singular`` the extreme singular values of the parameter as a matrix [rows, the rest], where
    the distribution fixes them."""

    box: Interval
    singular: tuple[float, float] | None = None


def supports(network: Network) -> dict[str, Support]:
    """Of each parameter that is drawn; those that are read from a file, or of which there is one draw, stay as they are.

    Raises UserError for a network whose parameters are drawn from nothing.
    """
    stated = {name: fact(network.model.graph.initializers[name], "initial") for name in network.parameters}
    drawn = {name: Initial.from_json(text) for name, text in stated.items() if text is not None}
    if network.parameters and not drawn:
        raise UserError(
            f"{network.source}: --certify support: its parameters are arrays, not draws; bounds for all draws need a YAML model"
        )
    return {name: support(initial) for name, initial in drawn.items() if initial.kind not in KNOWN}


def unbounded(network: Network, known: Mapping[str, Support]) -> list[str]:
    """The parameters that may lie anywhere."""
    return [name for name in network.parameters if name in known and not known[name].box.bounded]


def support(initial: Initial) -> Support:
    if initial.kind == "normal":
        return Support(WHOLE)
    centre = 0.0 if initial.kind == "orthogonal" else initial.mean
    far = initial.reach - (0.0 if initial.kind == "orthogonal" else abs(initial.mean))
    box = interval(_outward(centre - far, -math.inf), _outward(centre + far, math.inf))
    return Support(box, _singular(initial) if initial.kind == "orthogonal" else None)


def _outward(end: float, away: float) -> float:
    return float(np.nextafter(np.nextafter(np.float32(end), np.float32(away)), np.float32(away)))


def _singular(initial: Initial) -> tuple[float, float]:
    """One number; of ``parts`` one behind another sqrt(parts) at most. A float32 rounding of the entries moves them by no more
    than its Frobenius norm (Weyl 1912)."""
    rows, columns = initial.shape[0] // initial.parts, math.prod(initial.shape[1:])
    gain = initial.sd * math.sqrt(max(rows, columns))
    off = 2.0 * FLOAT32 * gain * math.sqrt(initial.parts * min(rows, columns)) + 2.0**-140 * math.sqrt(math.prod(initial.shape))
    least = gain - off if initial.parts == 1 else 0.0
    return max(least, 0.0), gain * math.sqrt(initial.parts) + off
