"""What a YAML kind means: ``LAYERS`` maps a kind to its class, assembled here from the rooms and nowhere else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from vgcompile.layers import activation, composite
from vgcompile.layers.attention import Attention
from vgcompile.layers.composite import Block, Residual
from vgcompile.layers.convolution import Conv, ConvTranspose, DepthwiseConv, SeparableConv
from vgcompile.layers.dense import Dense
from vgcompile.layers.dropout import AlphaDropout, Dropout, GaussianDropout, GaussianNoise
from vgcompile.layers.embedding import Embedding, Unembedding
from vgcompile.layers.expression import ExpressionLayer
from vgcompile.layers.feed_forward import FeedForward
from vgcompile.layers.gating import Scale, SqueezeExcite, StopGradient
from vgcompile.layers.layer import Layer
from vgcompile.layers.layout import Flatten, Reshape, Select, Slice, Split, Transpose
from vgcompile.layers.merge import Add, Concat, Multiply
from vgcompile.layers.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm
from vgcompile.layers.pooling import AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, GlobalPool, MaxPool
from vgcompile.layers.positions import Positions
from vgcompile.layers.recurrent import Gru, Lstm, Rnn
from vgcompile.layers.resampling import Pad, Upsample
from vgcompile.layers.sequence import ClassToken, TimePool
from vgcompile.layers.transformer import TransformerDecoder, TransformerEncoder

_CLASSES: tuple[type[Layer], ...] = (
    Dense,
    *(Conv, DepthwiseConv, SeparableConv, ConvTranspose),
    *(MaxPool, AveragePool, GlobalPool, AdaptiveAveragePool, AdaptiveMaxPool),
    *(Pad, Upsample),
    *(Flatten, Reshape, Transpose, Split, Slice, Select),
    *(BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RmsNorm),
    *(Dropout, AlphaDropout, GaussianDropout, GaussianNoise),
    *(Add, Multiply, Concat),
    *(Scale, SqueezeExcite, StopGradient),
    *(Embedding, Unembedding, Positions, ClassToken, TimePool),
    *(Rnn, Gru, Lstm),
    *(Attention, FeedForward, TransformerEncoder, TransformerDecoder),
    *(Block, Residual),
    ExpressionLayer,
    *activation.LAYERS,
)

LAYERS: dict[str, type[Layer]] = {kind: cls for cls in _CLASSES for kind in get_args(cls.model_fields["kind"].annotation)}

if TYPE_CHECKING:
    AnyLayer = Layer
else:
    AnyLayer = Annotated[reduce(or_, _CLASSES), Field(discriminator="kind")]
    composite.AnyLayer = AnyLayer
