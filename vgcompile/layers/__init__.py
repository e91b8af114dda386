"""What a YAML kind means: ``LAYERS`` maps a kind to its class, assembled here from the rooms and nowhere else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from vgcompile.layers import activation
from vgcompile.layers.composite import Block, Residual
from vgcompile.layers.convolution import Conv2d
from vgcompile.layers.dense import Dense
from vgcompile.layers.dropout import Dropout
from vgcompile.layers.layer import Layer
from vgcompile.layers.layout import Flatten
from vgcompile.layers.merge import Add, Concat
from vgcompile.layers.normalization import BatchNorm, LayerNorm
from vgcompile.layers.pooling import AveragePool, GlobalAveragePool, MaxPool

_CLASSES: tuple[type[Layer], ...] = (
    Dense,
    Conv2d,
    MaxPool,
    AveragePool,
    GlobalAveragePool,
    Flatten,
    BatchNorm,
    LayerNorm,
    Dropout,
    Add,
    Concat,
    Block,
    Residual,
    *activation.LAYERS,
)

LAYERS: dict[str, type[Layer]] = {kind: cls for cls in _CLASSES for kind in get_args(cls.model_fields["kind"].annotation)}

if TYPE_CHECKING:
    AnyLayer = Layer
else:
    AnyLayer = Annotated[reduce(or_, _CLASSES), Field(discriminator="kind")]
    for composite in (Block, Residual):
        composite.model_rebuild(_types_namespace={"AnyLayer": AnyLayer})
