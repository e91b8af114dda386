"""The operator table: ``OPS`` maps a name to its row, assembled here from the rooms and nowhere else."""

from __future__ import annotations

from vgcompile.errors import GradientRefused
from vgcompile.ops import (
    activation,
    algebra,
    arithmetic,
    attention,
    average_pooling,
    batch_normalization,
    control,
    convolution,
    convolution_gradient,
    cutting,
    decoding,
    deformable,
    dot_product,
    elementwise,
    gates,
    generating,
    indexing,
    layout,
    lengths,
    linear,
    linear_attention,
    logic,
    losses,
    lp_pooling,
    normalization,
    opaque,
    pooling,
    quantization,
    random,
    recurrent,
    recurrent_activation,
    reduction,
    resizing,
    roi,
    sampling,
    scattering,
    selection,
    sequences,
    softmax,
    spectral,
    unpooling,
    window_spread,
)
from vgcompile.ops.op import INTERNAL as INTERNAL
from vgcompile.ops.op import Op
from vgcompile.ops.reading import NumpyReading

_ROOMS = (
    elementwise,
    activation,
    gates,
    arithmetic,
    logic,
    linear,
    algebra,
    layout,
    cutting,
    convolution,
    convolution_gradient,
    pooling,
    average_pooling,
    window_spread,
    lp_pooling,
    unpooling,
    deformable,
    roi,
    reduction,
    softmax,
    opaque,
    normalization,
    batch_normalization,
    lengths,
    attention,
    dot_product,
    linear_attention,
    decoding,
    losses,
    random,
    indexing,
    scattering,
    selection,
    generating,
    quantization,
    sequences,
    resizing,
    sampling,
    spectral,
    control,
    recurrent,
    recurrent_activation,
)


def _assemble() -> dict[str, Op]:
    table: dict[str, Op] = {}
    for room in _ROOMS:
        for row in room.ROWS:
            if row.name in table:
                raise ValueError(f"two rows for operator {row.name}")
            table[row.name] = row
    return table


OPS: dict[str, Op] = _assemble()
NUMPY = NumpyReading(OPS)


def lookup(operator: str, domain: str = "") -> Op | None:
    """The row of an operator, or None. A same-named operator of a foreign domain has no row."""
    row = OPS.get(operator)
    return row if row is not None and domain in ("", row.domain) else None


def require(operator: str, node: str, domain: str = "") -> Op:
    """The row of an operator; raises GradientRefused where there is none."""
    row = lookup(operator, domain)
    if row is None:
        name = f"{domain}::{operator}" if domain else operator
        raise GradientRefused(
            name, node, "it has no gradient rule", "`vgcompile ops` lists those that have, CONTRIBUTING.md says how to add one"
        )
    return row
