"""Multi-head attention (Vaswani et al. 2017, section 3.2.2), with the variants that language and vision models have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from vgcompile.layers.dense import affine
from vgcompile.layers.initialization import ONES, Init
from vgcompile.layers.layer import Layer, Reads, Shape, Site, Unfit, extent, show
from vgcompile.layers.part import Positive, PositiveFloat
from vgcompile.layers.positions import AnyRotary
from vgcompile.layers.sequence import require_sequence, steps, typed

if TYPE_CHECKING:
    import onnx_ir as ir

QK_EPSILON = 1e-6
_Angles = tuple["ir.Value", "ir.Value"]  # cosines and sines


@dataclass(frozen=True)
class _Heads:
    """``groups`` of ``each`` query heads read one head of keys and values, all of ``size`` entries."""

    groups: int
    each: int
    size: int

    @property
    def count(self) -> int:
        return self.groups * self.each

    @property
    def axes(self) -> tuple[int, ...]:
        """Those of the heads of queries: one, or two where several read the same keys."""
        return (self.count,) if self.each == 1 else (self.groups, self.each)

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """Those of the heads of keys and values."""
        return (self.count,) if self.each == 1 else (self.groups, 1)


class Attention(Layer):
    """softmax(Q K^T / sqrt(head size)) V in every head, Q, K and V projections of the input, and a projection of all heads.

    It reads [batch, time, features]; with ``from: [query, memory]`` keys and values are projections of the memory (cross
    attention), with ``from: [query, memory, mask]`` a mask says what may be read of it: class numbers (1: may be, 0: hidden), or
    real numbers that are added to the scores, [batch, memory's time], [batch, time, memory's time] or [batch, heads, time,
    memory's time]. A query from which all is hidden gives zeros in each head.
    """

    takes: ClassVar[tuple[int, int | None]] = (1, 3)
    reads: ClassVar[Reads] = "either"
    kind: Literal["attention"]
    heads: Positive
    kv_heads: Positive | None = Field(
        default=None,
        description="heads of keys and values, each read by heads / kv_heads of the queries; all their own where absent",
    )
    head_size: Positive | None = Field(default=None, description="entries of a head; the input's features / heads where absent")
    units: Positive | None = Field(default=None, description="size of the output's last axis; the input's where absent")
    causal: bool = Field(default=False, description="a position reads those up to itself")
    bias: bool = Field(default=True, description="of the projections to queries, keys and values")
    output_bias: bool | None = Field(default=None, description="of the last projection; as the others where absent")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="rate on the weights")
    rotary: AnyRotary = Field(default=None, description="rotary positions: true, or base, fraction and interleaved")
    qk_norm: bool = Field(default=False, description="queries and keys are divided by their root mean square, then scaled")
    scale: PositiveFloat | None = Field(default=None, description="of the scores; 1 / sqrt(head size) where absent")
    init: Init = Init()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        x, memory, mask = inputs[0], inputs[min(1, len(inputs) - 1)], inputs[2] if len(inputs) > 2 else None
        heads = self._heads(site, x, memory)
        time, source = site.shape(x)[1], site.shape(memory)[1]
        angles = self._angles(site, x, heads)
        q = self._divided(site, x, "query", heads, angles)
        k = self._divided(site, memory, "key", heads, angles if memory is x else self._angles(site, memory, heads))
        v = self._divided(site, memory, "value", heads)
        bias, hidden = self._mask(site, mask, heads, time, source)
        if self.causal:
            late = self._late(site, x, time)
            hidden = late if hidden is None else site.op.Or(hidden, late)
        op, zero_rows = site.op, int(hidden is not None and mask is not None)
        scale = self.scale or 1.0 / math.sqrt(heads.size)
        if self.dropout:
            y = op.MatMul(self._dropped(site, op.Mul(q, scale), k, bias, hidden, zero_rows=zero_rows), v)
        else:
            y = op.ScaledDotProductAttention(q, k, v, bias, hidden, scale=scale, zero_rows=zero_rows)
        rank = len(heads.axes) + 3
        joined = op.Reshape(op.Transpose(y, perm=[0, rank - 2, *range(1, rank - 2), rank - 1]), [0, 0, heads.count * heads.size])
        bias_out = self.bias if self.output_bias is None else self.output_bias
        return affine(site, joined, self.units or extent(site.shape(x), 2), self.init, bias=bias_out, part="output")

    def _heads(self, site: Site, x: ir.Value, memory: ir.Value) -> _Heads:
        """Raises Unfit where the inputs cannot be divided so."""
        if any(site.classes(value) is not None for value in (x, memory)):
            raise Unfit("attention takes real numbers, found class numbers", "put an embedding before it")
        shape, _ = (require_sequence(self.kind, site.shape(value)) for value in (x, memory))
        if self.causal and memory is not x and shape[1] != site.shape(memory)[1]:
            raise Unfit("causal attention needs a memory as long as the queries", "drop causal: true")
        groups = self.kv_heads or self.heads
        if self.heads % groups:
            raise Unfit(f"{self.heads} heads cannot share {groups} of keys and values", "choose a kv_heads that divides heads")
        features = extent(shape, 2)
        if self.head_size is None and features % self.heads:
            raise Unfit(
                f"{features} features cannot be divided among {self.heads} heads",
                "choose a number that divides them, or give head_size",
            )
        return _Heads(groups, self.heads // groups, self.head_size or features // self.heads)

    def _angles(self, site: Site, x: ir.Value, heads: _Heads) -> _Angles | None:
        return None if self.rotary is None else self.rotary.angles(site.op, x, site.shape(x)[1], heads.size)

    def _divided(self, site: Site, x: ir.Value, part: str, heads: _Heads, angles: _Angles | None = None) -> ir.Value:
        """A projection, [batch, *axes of the heads, time, head size]; queries and keys normalized and rotated."""
        axes = heads.axes if part == "query" else heads.shared_axes
        rank = len(axes) + 3
        y = affine(site, x, math.prod(axes) * heads.size, self.init, bias=self.bias, part=part)
        with site.op.scope(part) as op:
            y = op.Reshape(y, [0, 0, *axes, heads.size])
            y = op.Transpose(y, perm=[0, *range(2, rank - 1), 1, rank - 1])
            if self.qk_norm and part != "value":
                scale = site.parameter(f"{part}/scale", (heads.size,), ONES)
                y = op.RMSNormalization(y, scale, axis=-1, epsilon=QK_EPSILON)
            if self.rotary is not None and angles is not None:
                y = self.rotary.turn(op, y, *angles, site.shape(y))
            return y

    def _mask(
        self, site: Site, mask: ir.Value | None, heads: _Heads, time: int | str, source: int | str
    ) -> tuple[ir.Value | None, ir.Value | None]:
        """What is added to the scores, and where they are hidden."""
        if mask is None:
            return None, None
        op, shape = site.op, site.shape(mask)
        forms: list[Shape] = [(source,), (time, source), (heads.count, time, source)]
        if shape[1:] not in forms:
            raise Unfit(
                f"a mask is {', '.join(show((shape[0], *form)) for form in forms[:-1])} or {show((shape[0], *forms[-1]))}"
            )
        classes = site.classes(mask)
        if classes not in (None, 2):
            raise Unfit(f"a mask of class numbers has 2 classes, found {classes}", "1 may be read, 0 is hidden")
        if len(shape) == 4 and len(heads.axes) == 2:
            apart = op.Reshape(mask, op.Concat(op.Shape(mask, end=1), list(heads.axes), op.Shape(mask, start=2), axis=0))
            mask = typed(apart, (shape[0], *heads.axes, time, source))
        elif len(shape) < 4:
            mask = op.Unsqueeze(mask, list(range(1, 1 + len(heads.axes) + 3 - len(shape))))
        return (mask, None) if classes is None else (None, op.Equal(mask, 0))

    def _dropped(
        self, site: Site, q: ir.Value, k: ir.Value, bias: ir.Value | None, hidden: ir.Value | None, *, zero_rows: int
    ) -> ir.Value:
        """The weights, of which some are dropped: written out, for the composite hands out none."""
        op, rank = site.op, len(site.shape(q))
        scores = op.MatMul(q, op.Transpose(k, perm=[*range(rank - 2), rank - 1, rank - 2]))
        if hidden is not None:
            scores = op.Where(hidden, -math.inf, scores)
        if bias is not None:
            scores = op.Add(scores, bias)
        weights = (op.MaskedSoftmax if zero_rows else op.Softmax)(scores, axis=-1)
        return op.Dropout(weights, float(self.dropout), site.training, seed=site.stream("mask"))  # type: ignore[no-any-return]

    @staticmethod
    def _late(site: Site, x: ir.Value, time: int | str) -> ir.Value:
        """[time, time]: keys that come after the query."""
        op = site.op
        places = steps(op, x, time)
        return op.Less(op.Unsqueeze(places, [1]), op.Unsqueeze(places, [0]))  # type: ignore[no-any-return]
