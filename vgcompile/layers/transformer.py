"""Transformer blocks, written out in attention, feed_forward, norms and residuals, whose names are seen in pictures and files.

    {kind: transformer_encoder, name: block, repeat: 12, heads: 6}

opens into ``block/1/attention/norm``, ``block/1/attention/attention``, ``block/1/attention/sum``, ``block/1/feed_forward/norm``
and so on.
With the norm behind the sum the names are ``block/1/attention/sum``, ``block/1/attention_norm``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from vgcompile.layers.attention import Attention
from vgcompile.layers.composite import Residual, WrittenOut
from vgcompile.layers.dropout import Dropout
from vgcompile.layers.feed_forward import FeedForward, FeedForwardActivation
from vgcompile.layers.function import Gelu
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Layer, Reference
from vgcompile.layers.normalization import LayerNorm, RmsNorm
from vgcompile.layers.part import Positive, PositiveFloat
from vgcompile.layers.positions import AnyRotary

Rate = Annotated[float, Field(ge=0, lt=1)]


class _Transformer(WrittenOut):
    heads: Positive
    kv_heads: Positive | None = Field(default=None, description="heads of keys and values; all their own where absent")
    head_size: Positive | None = Field(default=None, description="entries of a head; features / heads where absent")
    feed_forward: Positive | None = Field(
        default=None, description="size of the feed-forward part in between; 4 times the features where absent"
    )
    activation: FeedForwardActivation = Gelu(kind="gelu")
    norm: Literal["pre", "post"] = Field(
        default="pre", description="before each part (GPT-2, ViT), or behind each sum (Vaswani et al. 2017, BERT)"
    )
    norm_kind: Literal["layer_norm", "rms_norm"] = "layer_norm"
    epsilon: PositiveFloat = Field(default=1e-5, description="of the norms")
    bias: bool = Field(default=True, description="of all projections")
    dropout: Rate = Field(default=0.0, description="rate behind each part and behind the feed-forward part's activation")
    attention_dropout: Rate | None = Field(default=None, description="rate on the attention's weights; dropout where absent")
    rotary: AnyRotary = Field(default=None, description="rotary positions of the self-attention")
    qk_norm: bool = False
    init: Init = Init()

    def parts(self) -> Iterator[tuple[str, Layer]]:
        """What the residuals go around, by name."""
        raise NotImplementedError

    def written_out(self) -> tuple[Layer, ...]:
        return tuple(layer for name, part in self.parts() for layer in self._around(name, part))

    def attention(self, *, causal: bool, memory: bool = False) -> Attention:
        fields = {
            "kind": "attention",
            "name": "attention",
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_size": self.head_size,
            "causal": causal,
            "bias": self.bias,
            "dropout": self.dropout if self.attention_dropout is None else self.attention_dropout,
            "rotary": None if memory else self.rotary,
            "qk_norm": self.qk_norm,
            "init": self.init,
        }
        if memory:
            fields["from"] = ("norm" if self.norm == "pre" else "input", "memory")
        return Attention.model_validate(fields)

    def forward(self) -> FeedForward:
        return FeedForward(
            kind="feed_forward",
            name="feed_forward",
            units=self.feed_forward,
            activation=self.activation,
            bias=self.bias,
            dropout=self.dropout,
            init=self.init,
        )

    def _around(self, name: str, part: Layer) -> Iterator[Layer]:
        """A part with its norm, its dropout and the way around."""
        dropped = (Dropout(kind="dropout", name="dropout", rate=self.dropout),) if self.dropout else ()
        before = (self._norm("norm"),) if self.norm == "pre" else ()
        yield Residual(kind="residual", name=name, layers=(*before, part, *dropped))
        if self.norm == "post":
            yield self._norm(f"{name}_norm")

    def _norm(self, name: str) -> Layer:
        if self.norm_kind == "rms_norm":
            return RmsNorm(kind="rms_norm", name=name, epsilon=self.epsilon)
        return LayerNorm(kind="layer_norm", name=name, epsilon=self.epsilon)


class TransformerEncoder(_Transformer):
    """Self-attention and a feed-forward part, each with a norm and a way around it (Vaswani et al. 2017; pre-norm:
    Xiong et al. 2020)."""

    kind: Literal["transformer_encoder"]
    causal: bool = False

    def parts(self) -> Iterator[tuple[str, Layer]]:
        yield "attention", self.attention(causal=self.causal)
        yield "feed_forward", self.forward()


class TransformerDecoder(_Transformer):
    """Causal self-attention, attention to a memory where one is named, and a feed-forward part: without a memory the block of
    GPT-2 and its kin."""

    kind: Literal["transformer_decoder"]
    causal: bool = True
    memory: Reference | None = Field(
        default=None, description="the layer or input that its cross attention reads; none where absent"
    )

    def parts(self) -> Iterator[tuple[str, Layer]]:
        yield "attention", self.attention(causal=self.causal)
        if self.memory is not None:
            yield "cross_attention", self.attention(causal=False, memory=True)
        yield "feed_forward", self.forward()
