"""Where in the sequence: positions that are added to the features, and rotations of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from vgcompile.layers.layer import Layer, Shape, Site, Unfit, extent
from vgcompile.layers.part import Part, Positive, PositiveFloat
from vgcompile.layers.sequence import SmallInit, require_sequence, steps, typed

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter


class Positions(Layer):
    """Adds to each position of [batch, time, features] a vector of its own: a learned one, or waves of that position.

    Sinusoidal (Vaswani et al. 2017, section 3.5): entries 2i and 2i + 1 are sin and cos of position / base^(2i / features).
    """

    kind: Literal["positions"]
    encoding: Literal["learned", "sinusoidal"] = "learned"
    length: Positive | None = Field(default=None, description="the longest sequence; that of the input where absent")
    base: PositiveFloat = Field(default=10_000.0, description="of sinusoidal positions: the longest wave, over 2 pi")
    init: SmallInit = SmallInit()

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,), op = inputs, site.op
        shape = require_sequence(self.kind, site.shape(x))
        time, features = shape[1], extent(shape, 2)
        if self.length is None and isinstance(time, str):
            raise Unfit(
                f"the number of positions is not known, only its name {time!r}", "give the length of the longest sequence"
            )
        length = self.length or extent(shape, 1)
        if isinstance(time, int) and time > length:
            raise Unfit(f"there are {length} positions, and its input has {time}", f"give length: {time} or more")
        if self.encoding == "learned":
            table = site.parameter("weight", (length, features), self.init.weight, fan_in=length, fan_out=features)
        else:
            table = site.state("table", (length, features), lambda _: waves(length, features, self.base))
        return op.Add(x, self._first(op, table, x, shape, length))  # type: ignore[no-any-return]

    @staticmethod
    def _first(op: Emitter, table: ir.Value, x: ir.Value, shape: Shape, length: int) -> ir.Value:
        """The rows of the table that the input has positions for."""
        if shape[1] == length:
            return table
        end = [shape[1]] if isinstance(shape[1], int) else op.Shape(x, start=1, end=2)
        return typed(op.Slice(table, [0], end, [0]), shape[1:])


def waves(length: int, features: int, base: float) -> np.ndarray[Any, Any]:
    """[length, features]: sines at even entries, cosines at odd ones."""
    angles = np.arange(length)[:, None] * _frequencies(features, base)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, -1)[:, :features].astype(np.float32)


def _frequencies(features: int, base: float) -> np.ndarray[Any, Any]:
    return base ** (-np.arange(0, features, 2) / features)


class Rotary(Part):
    """Pairs of entries of each query and key turned by angles that grow with the position (Su et al. 2021, eq. 34).

    Pair i turns by position / base^(2i / rotated), rotated = fraction * head size. A pair is entry i and the one half of them
    further on (GPT-NeoX, LLaMA) or, ``interleaved``, two neighbours (GPT-J, RoFormer).
    """

    base: PositiveFloat = 10_000.0
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="share of a head's entries that is rotated")
    interleaved: bool = False

    def rotated(self, head_size: int) -> int:
        """How many entries of a head take part. Raises Unfit where they are not pairs."""
        share = self.fraction * head_size
        if abs(share / 2 - round(share / 2)) > 1e-6 or share < 1:
            raise Unfit(
                f"rotary positions turn pairs of entries, and {share:g} of a head's {head_size} are no even number",
                "choose a head size or a fraction that gives an even number",
            )
        return round(share)

    def angles(self, op: Emitter, x: ir.Value, time: int | str, head_size: int) -> tuple[ir.Value, ir.Value]:
        """Cosine and sine of every angle, [time, pairs]; ``x`` has ``time`` as its axis 1."""
        frequencies = _frequencies(self.rotated(head_size), self.base)
        if isinstance(time, int):
            angles = np.arange(time)[:, None] * frequencies
            return op.constant(np.cos(angles).astype(np.float32)), op.constant(np.sin(angles).astype(np.float32))
        places = op.CastLike(op.Unsqueeze(steps(op, x, time), [1]), x)
        turned = op.Mul(places, frequencies.astype(np.float32))
        return op.Cos(turned), op.Sin(turned)

    def turn(self, op: Emitter, x: ir.Value, cos: ir.Value, sin: ir.Value, shape: Shape) -> ir.Value:
        """``x`` [..., time, head size], of this shape, with its pairs rotated."""
        rotated, size = self.rotated(extent(shape, -1)), extent(shape, -1)
        turning, *rest = [x] if rotated == size else op.Split(x, [rotated, size - rotated], axis=-1, outputs=2)
        if self.interleaved:
            pairs = op.Reshape(turning, [0] * (len(shape) - 1) + [rotated // 2, 2])
            a, b = (op.Gather(pairs, np.asarray(member), axis=-1) for member in (0, 1))
        else:
            a, b = op.Split(turning, axis=-1, num_outputs=2, outputs=2)
        turned = op.Sub(op.Mul(a, cos), op.Mul(b, sin)), op.Add(op.Mul(b, cos), op.Mul(a, sin))
        if not self.interleaved:
            return typed(op.Concat(*turned, *rest, axis=-1), shape)
        joined = op.Concat(*(op.Unsqueeze(member, [-1]) for member in turned), axis=-1)
        whole = op.Reshape(joined, [0] * (len(shape) - 1) + [rotated])
        return typed(op.Concat(whole, *rest, axis=-1) if rest else whole, shape)


def _switch(given: object) -> object:
    """``true`` for all defaults, ``false`` for none."""
    return {True: {}, False: None}[given] if isinstance(given, bool) else given


AnyRotary = Annotated[Rotary | None, BeforeValidator(_switch, json_schema_input_type=bool | Rotary | None)]
