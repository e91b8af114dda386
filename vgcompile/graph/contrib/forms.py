"""What the formulas share: sums of what there is, fused activations, axes of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgcompile.errors import ModelError


def covered(condition: bool, otherwise: str) -> None:
    """Raises ModelError, with what would do, unless ``condition`` holds."""
    if not condition:
        raise ModelError(otherwise)


def plus(*terms: Any) -> Any:
    """The sum of the operands that there are."""
    first, *rest = [term for term in terms if term is not None]
    for term in rest:
        first = first + term
    return first


def activated(op: Any, x: Any, activation: str, parameters: Sequence[float] = ()) -> Any:
    """The activation that is fused behind a product, with its parameters in the order of their names."""
    if not activation:
        return x
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",)}
    if activation == "Clip":
        return op.Clip(x, *(float(limit) for limit in parameters))
    known = activation in {"Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Softsign", *names}
    covered(known, f"its activation {activation} is not known; export it unfused")
    return op.emit(activation, x, **dict(zip(names.get(activation, ()), map(float, parameters), strict=False)))


def to_channels_first(op: Any, x: Any) -> Any:
    """[batch, places ..., channels] as [batch, channels, places ...]."""
    rank = len(x.shape)
    return op.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def to_channels_last(op: Any, x: Any) -> Any:
    """The reverse."""
    return op.Transpose(x, perm=[0, *range(2, len(x.shape)), 1])
