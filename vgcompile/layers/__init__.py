"""What a YAML kind means: ``LAYERS`` maps a kind to its class, assembled here from the rooms and nowhere else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from vgcompile.layers import activation
from vgcompile.layers.attention import Attention
from vgcompile.layers.composite import Block, Residual
from vgcompile.layers.convolution import Conv2d
from vgcompile.layers.dense import Dense
from vgcompile.layers.dropout import Dropout
from vgcompile.layers.embedding import Embedding, Unembedding
from vgcompile.layers.feed_forward import FeedForward
from vgcompile.layers.layer import Layer
from vgcompile.layers.layout import Flatten
from vgcompile.layers.merge import Add, Concat
from vgcompile.layers.normalization import BatchNorm, LayerNorm, RmsNorm
from vgcompile.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from vgcompile.layers.positions import Positions
from vgcompile.layers.recurrent import Gru, Lstm, Rnn
from vgcompile.layers.sequence import ClassToken, Select, TimePool
from vgcompile.layers.transformer import TransformerDecoder, TransformerEncoder

_CLASSES: tuple[type[Layer], ...] = (
    Dense,
    Conv2d,
    MaxPool,
    AveragePool,
    GlobalAveragePool,
    Flatten,
    BatchNorm,
    LayerNorm,
    RmsNorm,
    Dropout,
    Add,
    Concat,
    Embedding,
    Unembedding,
    Positions,
    ClassToken,
    Rnn,
    Gru,
    Lstm,
    Attention,
    FeedForward,
    Select,
    TimePool,
    Block,
    Residual,
    TransformerEncoder,
    TransformerDecoder,
    *activation.LAYERS,
)

LAYERS: dict[str, type[Layer]] = {kind: cls for cls in _CLASSES for kind in get_args(cls.model_fields["kind"].annotation)}

if TYPE_CHECKING:
    AnyLayer = Layer
else:
    AnyLayer = Annotated[reduce(or_, _CLASSES), Field(discriminator="kind")]
    for composite in (Block, Residual):
        composite.model_rebuild(_types_namespace={"AnyLayer": AnyLayer})
