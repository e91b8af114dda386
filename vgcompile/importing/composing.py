"""Layers that together are the block of a transformer become that block.

    layer_norm, attention, add, layer_norm, dense, dense, add        becomes    {kind: transformer_encoder, heads: 8}

The parts of such a block follow from its fields, so that nothing is lost: the layers have to be those that it is written out in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from vgcompile.importing.layers import Read, Stack
from vgcompile.importing.trial import Array

_NORMS = frozenset({"layer_norm", "rms_norm"})
_GATES = {"sigmoid": "glu", "relu": "reglu", "gelu": "geglu", "silu": "swiglu"}
_ATTENTION = frozenset({"heads", "kv_heads", "head_size", "causal", "bias", "dropout", "rotary", "qk_norm"})
_PASSED_ON = ("heads", "kv_heads", "head_size", "rotary", "qk_norm")


def composed(stack: Stack) -> Stack:
    """The stack with blocks of transformers in the place of their layers."""
    layers: list[Read] = []
    places: dict[int, int] = {}
    at = 0
    while at < len(stack.layers):
        block = _block(stack, at)
        places[at + (block.count if block is not None else 1) - 1] = len(layers)
        layers.append(block.read if block is not None else stack.layers[at])
        at += block.count if block is not None else 1
    moved = [replace(layer, sources=_moved(layer.sources, places), share=_at(layer.share, places)) for layer in layers]
    return Stack(tuple(moved), tuple(places[place] for place in stack.outputs))


def _moved(sources: Sequence[str | int], places: Mapping[int, int]) -> tuple[str | int, ...]:
    return tuple(source if isinstance(source, str) else places[source] for source in sources)


def _at(place: int | None, places: Mapping[int, int]) -> int | None:
    return None if place is None else places[place]


@dataclass(frozen=True)
class _Block:
    read: Read
    count: int


class _Other(Exception):
    """The layers are no block."""


@dataclass
class _Parts:
    """Takes layers one by one, each of which reads what the block has made so far."""

    stack: Stack
    at: int
    weights: dict[str, Array] = field(default_factory=dict)
    taken: list[Read] = field(default_factory=list)

    def peek(self, offset: int = 0) -> Read:
        place = self.at + offset
        if place >= len(self.stack.layers):
            raise _Other
        return self.stack.layers[place]

    def take(self, kinds: frozenset[str] | str, sources: Sequence[str | int], prefix: str = "") -> Read:
        layer = self.peek()
        if layer.kind not in kinds or sorted(map(str, layer.sources)) != sorted(map(str, sources)) or layer.share is not None:
            raise _Other
        if layer.kind == "dropout" and set(layer.fields) - {"rate"}:
            raise _Other
        self.weights |= {f"{prefix}/{name}": array for name, array in layer.weights.items()}
        self.taken.append(layer)
        self.at += 1
        return layer

    @property
    def last(self) -> int:
        return self.at - 1

    def dropped(self) -> float:
        """The rate of a dropout, where there is one."""
        if self.peek().kind != "dropout":
            return 0.0
        return float(self.take(frozenset({"dropout"}), [self.last]).fields.get("rate", 0.5))


def _block(stack: Stack, start: int) -> _Block | None:
    first = stack.layers[start]
    if first.kind not in _NORMS | {"attention"} or len(first.sources) != 1:
        return None
    parts = _Parts(stack, start)
    try:
        fields = _fields(parts, first.sources[0], pre=first.kind in _NORMS)
        if _is_read_inside(stack, start, parts.at):
            return None
    except _Other:
        return None
    causal = fields.pop("causal")
    common = takewhile(
        lambda names: len(set(names)) == 1, zip(*(layer.path for layer in parts.taken if layer.path), strict=False)
    )
    kind = "transformer_decoder" if causal else "transformer_encoder"
    read = Read(kind, fields, first.sources, parts.weights, tuple(names[0] for names in common))
    return _Block(read, parts.at - start)


def _fields(parts: _Parts, x: str | int, *, pre: bool) -> dict[str, Any]:
    """Those of the block that begins here and reads ``x``, which takes its layers from ``parts``. Raises _Other."""
    norms = [parts.take(_NORMS, [x], "attention/norm")] if pre else []
    attention = parts.take(frozenset({"attention"}), [parts.last if pre else x], "attention/attention")
    rates = [parts.dropped()]
    parts.take(frozenset({"add"}), [parts.last, x])
    middle: str | int = parts.last
    norms.append(parts.take(_NORMS, [middle], "feed_forward/norm" if pre else "attention_norm"))
    entry = parts.last
    features = attention.weights["output/weight"].shape[1]
    units, activation, inner, biases = _feed_forward(parts, entry, features)
    rates += [inner, parts.dropped()]
    parts.take(frozenset({"add"}), [parts.last, middle if pre else entry])
    if not pre:
        norms.append(parts.take(_NORMS, [parts.last], "feed_forward_norm"))
    if set(attention.fields) - _ATTENTION or len(set(rates)) > 1 or {layer.kind for layer in norms} != {norms[0].kind}:
        raise _Other
    epsilons = {layer.fields.get("epsilon") for layer in norms}
    if len(epsilons) > 1 or any(set(layer.fields) - {"epsilon"} for layer in norms):
        raise _Other
    bias = attention.fields.get("bias", True)
    if any(other != bias for other in biases):
        raise _Other
    rate, on_weights, epsilon = rates[0], attention.fields.get("dropout", 0.0), epsilons.pop()
    return {
        "causal": attention.fields.get("causal", False),
        **{name: attention.fields[name] for name in _PASSED_ON if name in attention.fields},
        **({"feed_forward": units} if units != 4 * features else {}),
        **({"activation": activation} if activation != "gelu" else {}),
        **({} if pre else {"norm": "post"}),
        **({"norm_kind": "rms_norm"} if norms[0].kind == "rms_norm" else {}),
        **({"epsilon": epsilon} if epsilon is not None else {}),
        **({} if bias else {"bias": False}),
        **({"dropout": rate} if rate else {}),
        **({"attention_dropout": on_weights} if on_weights != rate else {}),
    }


def _feed_forward(parts: _Parts, entry: int, features: int) -> tuple[int, Any, float, list[bool]]:
    """Units, activation, the rate behind it, and which of the dense layers have a bias."""
    prefix, gated = "feed_forward/feed_forward", parts.peek(1).kind == "dense" and parts.peek(1).sources == (entry,)
    if gated:
        ahead = [parts.peek(), parts.peek(1)]
        order = ["gate", "expand"] if "activation" in ahead[0].fields else ["expand", "gate"]
        dense = [parts.take(frozenset({"dense"}), [entry], f"{prefix}/{part}") for part in order]
        gate, value = dense if order[0] == "gate" else dense[::-1]
        activation = _GATES.get(gate.fields.get("activation", ""))
        parts.take(frozenset({"multiply"}), [parts.last - 1, parts.last])
        if activation is None or "activation" in value.fields:
            raise _Other
    else:
        dense = [parts.take(frozenset({"dense"}), [entry], f"{prefix}/expand")]
        activation = dense[0].fields.get("activation")
        if activation is None:
            raise _Other
    rate = parts.dropped()
    dense.append(parts.take(frozenset({"dense"}), [parts.last], f"{prefix}/contract"))
    if any(set(layer.fields) - {"units", "bias", "activation"} for layer in dense):
        raise _Other
    if dense[-1].fields["units"] != features or "activation" in dense[-1].fields:
        raise _Other
    return dense[0].fields["units"], activation, rate, [layer.fields.get("bias", True) for layer in dense]


def _is_read_inside(stack: Stack, start: int, end: int) -> bool:
    """Whether somebody outside reads a layer within, or has its parameters."""
    inside = range(start, end)
    outside = [layer for place, layer in enumerate(stack.layers) if place not in inside]
    read = {source for layer in outside for source in (*layer.sources, layer.share)} | set(stack.outputs)
    return any(place in read for place in inside[:-1]) or any(layer.share in inside for layer in outside)
