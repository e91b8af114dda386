"""Recurrent layers over [batch, time, features], by ONNX's own operators, which put time first.

    rnn     h' = phi(W x + b + R h + c)
    gru     h' = (1 - z) n + z h, gates in the order z, r, n     (Cho et al. 2014)
    lstm    c' = f c + i g, h' = o tanh(c'), gates in the order i, o, f, g     (Hochreiter and Schmidhuber 1997, Gers et al. 2000)

W is ``weight`` [gates units, features], R ``recurrent_weight`` [gates units, units], b ``bias`` and c ``recurrent_bias``
[gates units]: PyTorch's weight_ih, weight_hh, bias_ih and bias_hh, whose rows stand in the order r, z, n and i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from vgcompile.layers.initialization import AnyDistribution, Init
from vgcompile.layers.layer import Layer, Site, extent
from vgcompile.layers.part import Positive
from vgcompile.layers.sequence import require_sequence

if TYPE_CHECKING:
    import onnx_ir as ir


class RecurrentInit(Init):
    """``init:`` of a recurrent layer; what is absent follows the model's own ``init:``."""

    recurrent_weight: AnyDistribution | None = None
    recurrent_bias: AnyDistribution | None = None


class _Recurrent(Layer):
    """[batch, time, features] -> [batch, time, units], or the last state [batch, units]; twice the units where both ways are
    read."""

    operator: ClassVar[str]
    gates: ClassVar[int]

    units: Positive = Field(description="size of the state")
    layers: Positive = Field(default=1, description="so many, each reading the states of the one before")
    bidirectional: bool = Field(default=False, description="a second one reads backward in time; its states come behind")
    output: Literal["sequence", "last"] = Field(
        default="sequence", description="the states of all times, or those after the last step of either way"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="rate between the layers of a stack")
    bias: bool = True
    init: RecurrentInit = RecurrentInit()

    def attributes(self, directions: int) -> dict[str, Any]:
        """What the operator is told beyond its sizes."""
        return {}

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        op = site.op
        extent(require_sequence(self.kind, site.shape(inputs[0])), 2)
        x = op.Transpose(inputs[0], perm=[1, 0, 2])
        for level in range(1, self.layers + 1):
            if level > 1 and self.dropout:
                x = op.Dropout(x, float(self.dropout), site.training, seed=site.stream(f"{level}/mask"))
            states, last = self._level(site, x, f"{level}/" if self.layers > 1 else "")
            if level < self.layers or self.output == "sequence":
                x = self._beside(site, states, time_first=level < self.layers)
        return x if self.output == "sequence" else self._ends(site, last)

    def _level(self, site: Site, x: ir.Value, prefix: str) -> tuple[ir.Value, ir.Value]:
        """States [time, directions, batch, units] and last states [directions, batch, units]."""
        op, features = site.op, extent(site.shape(x), 2)
        ways = [f"{prefix}forward/", f"{prefix}backward/"] if self.bidirectional else [prefix]
        rows = self.gates * self.units

        def each(make: Callable[[str], ir.Value]) -> ir.Value:
            made = [op.Unsqueeze(make(way), [0]) for way in ways]
            return op.Concat(*made, axis=0) if made[1:] else made[0]  # type: ignore[no-any-return]

        def weight(name: str, size: int, stated: AnyDistribution | None) -> ir.Value:
            return each(
                lambda way: site.parameter(
                    f"{way}{name}", (rows, size), stated, fan_in=size, fan_out=self.units, parts=rows // self.units
                )
            )

        def biases(way: str) -> ir.Value:
            stated = {"bias": self.init.bias, "recurrent_bias": self.init.recurrent_bias or self.init.bias}
            fans = {"fan_in": self.units, "fan_out": self.units}
            made = [site.parameter(f"{way}{name}", (rows,), init, **fans) for name, init in stated.items()]
            return op.Concat(*made, axis=0)  # type: ignore[no-any-return]

        return op.emit(  # type: ignore[no-any-return]
            self.operator,
            x,
            weight("weight", features, self.init.weight),
            weight("recurrent_weight", self.units, self.init.recurrent_weight or self.init.weight),
            each(biases) if self.bias else None,
            hidden_size=self.units,
            direction="bidirectional" if self.bidirectional else "forward",
            outputs=2,
            **self.attributes(len(ways)),
        )

    def _beside(self, site: Site, states: ir.Value, *, time_first: bool) -> ir.Value:
        """The directions' states beside each other: [time, batch, features] for a next layer, else [batch, time, features]."""
        op = site.op
        if not self.bidirectional:
            x = op.Squeeze(states, [1])
            return x if time_first else op.Transpose(x, perm=[1, 0, 2])  # type: ignore[no-any-return]
        x = op.Transpose(states, perm=[0, 2, 1, 3] if time_first else [2, 0, 1, 3])
        return op.Reshape(x, [0, 0, 2 * self.units])  # type: ignore[no-any-return]

    def _ends(self, site: Site, last: ir.Value) -> ir.Value:
        op = site.op
        if not self.bidirectional:
            return op.Squeeze(last, [0])  # type: ignore[no-any-return]
        return op.Reshape(op.Transpose(last, perm=[1, 0, 2]), [0, 2 * self.units])  # type: ignore[no-any-return]


class Rnn(_Recurrent):
    """Elman's: the new state is an activation of input and old state (Elman 1990)."""

    operator, gates = "RNN", 1
    kind: Literal["rnn"]
    activation: Literal["tanh", "relu"] = "tanh"

    def attributes(self, directions: int) -> dict[str, Any]:
        return {"activations": [self.activation.capitalize()] * directions}


class Gru(_Recurrent):
    """An update gate averages the old state and a new one, of which a reset gate decides how much it reads of the old."""

    operator, gates = "GRU", 3
    kind: Literal["gru"]
    reset_after: bool = Field(
        default=True, description="the reset gate follows the product R h, as in PyTorch and cuDNN, or goes before it"
    )

    def attributes(self, directions: int) -> dict[str, Any]:
        return {"linear_before_reset": int(self.reset_after)}


class Lstm(_Recurrent):
    """Gates decide what a cell forgets, takes in and gives out."""

    operator, gates = "LSTM", 4
    kind: Literal["lstm"]
