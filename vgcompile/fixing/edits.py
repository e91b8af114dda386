"""What may be changed in a model's text; each edit returns whether it found anything to change.

Hidden layers are meant throughout: the layer that leaves the net keeps its function, and so does a gate, whose output multiplies
another layer's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from vgcompile.fixing.sheet import Sheet, Stated, drop, put, text_of
from vgcompile.fixing.stretches import (
    class_of,
    copies,
    put_through,
    repeated,
    root_of_depth,
    split,
    wrap,
    wrap_alone,
    written_out,
)
from vgcompile.layers import LAYERS
from vgcompile.layers.composite import WrittenOut
from vgcompile.layers.convolution import Conv, ConvTranspose, DepthwiseConv, SeparableConv
from vgcompile.layers.function import FUNCTIONS
from vgcompile.layers.layer import Layer
from vgcompile.layers.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm
from vgcompile.layers.recurrent import Rnn
from vgcompile.layers.weighted import Weighted
from vgcompile.spec.annotated import Collection

Edit = Callable[[Sheet], bool]

PER_DEPTH = "1/sqrt(depth)"  # a scale
_ACTIVATIONS = frozenset(kind for cls in FUNCTIONS for kind in get_args(cls.model_fields["kind"].annotation))
_NORMS = (BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RmsNorm)
_RECURRENT = ("rnn", "gru", "lstm")
_CONVOLUTIONS = (Conv, DepthwiseConv, SeparableConv, ConvTranspose)


def activations(to: str) -> Edit:
    """``to`` in the place of every hidden activation."""

    def edit(sheet: Sheet) -> bool:
        alone = [layer for layer in _hidden(sheet) if layer.kind in _ACTIVATIONS and layer.kind != to]
        inside = [layer for layer in _hidden(sheet) if _activation(layer) not in (None, to)]
        for layer in alone:
            kept = {key: entry for key in ("name", "from") if (entry := layer.fields.get(key)) is not None}
            layer.fields.entries[:] = [*kept.values()]
            put(layer.fields, "kind", to)
        for layer in inside:
            put(layer.fields, "activation", to)
        return bool(alone or inside)

    return edit


def weights(distribution: Any) -> Edit:
    """First values of every hidden weight, where the file or a layer states them; those that start at 0 do so for a reason."""

    def edit(sheet: Sheet) -> bool:
        weighted = [layer for layer in _hidden(sheet) if issubclass(class_of(layer), Weighted)]
        for layer in weighted:
            own = layer.fields.get("init")
            stated = own.value.get("weight") if own is not None and isinstance(own.value, Collection) else None
            if stated is not None and own is not None and text_of(own.value, "weight") != "zeros":
                put(own.value, "weight", distribution)  # type: ignore[arg-type]
        if weighted:
            _put_init(sheet.document, "weight", distribution)
        return bool(weighted)

    return edit


def gates(bias: float) -> Edit:
    """First biases of the gates: far below 0 they begin shut."""

    def edit(sheet: Sheet) -> bool:
        found = [layer for layer in sheet.layers if id(layer.fields) in sheet.gates and _activation(layer) == "sigmoid"]
        for layer in found:
            _put_init(layer.fields, "bias", {"kind": "constant", "value": bias})
        return bool(found)

    return edit


def residual(*, behind_first: bool, scale: Any = None) -> Edit:
    """A way around each layer of a stretch of equal ones; ``behind_first`` leaves out the first, whose input may have another
    width. ``scale`` multiplies what the layers make."""

    def edit(sheet: Sheet) -> bool:
        stretches, runs = list(repeated(sheet)), list(written_out(sheet))
        for stretch in stretches:
            wrap(stretch, _scale(scale, root_of_depth(stretch)), behind_first)
        for run in runs:
            for layer in run[1:] if behind_first else run:
                wrap_alone(layer, _scale(scale, round(len(run) ** -0.5, 4)))
        return bool(stretches or runs)

    return edit


def highway(bias: float, *, behind_first: bool) -> Edit:
    """Each dense layer h of a stretch becomes T h(x) + (1 - T) x, with a gate T that begins nearly shut (Srivastava et al. 2015,
    eq. 3)."""

    def edit(sheet: Sheet) -> bool:
        found = [(stretch, dense) for stretch in repeated(sheet) if (dense := _only_dense(sheet, stretch)) is not None]
        for stretch, dense in found:
            original = copy.deepcopy(stretch.fields)
            dense.replace(*_gated(dense.fields, bias))
            if behind_first:
                split(stretch, original)
        return bool(found)

    return edit


def normalized(kind: str) -> Edit:
    """A normalization behind every hidden weight and before its activation; batch normalization takes the bias out."""

    def edit(sheet: Sheet) -> bool:
        if kind == "layer_norm" and any(issubclass(class_of(layer), _CONVOLUTIONS) for layer in sheet.layers):
            return False  # over the last axis, which of an image is its width
        found = [layer for layer in _hidden(sheet) if issubclass(class_of(layer), Weighted) and not _is_normalized(layer)]
        for layer in found:
            _normalize(layer, kind, keeps_name=layer.name in sheet.read_by_name)
        return bool(found)

    return edit


def scaled_branches(scale: Any) -> Edit:
    """What every residual multiplies its layers' output by; None for 1."""

    def edit(sheet: Sheet) -> bool:
        found = [layer for layer in sheet.layers if layer.kind == "residual"]
        depth = sum(copies(sheet, layer) for layer in found)
        for layer in found:
            drop(layer.fields, "scale")
            for key, value in _scale(scale, round(depth**-0.5, 4)).items():
                put(layer.fields, key, value)
        return bool(found)

    return edit


def pre_norm(sheet: Sheet) -> bool:
    """Norms before what a residual goes around, in composites that say where they stand."""
    found = [layer for layer in sheet.layers if issubclass(class_of(layer), WrittenOut) and layer.fields.get("norm") is not None]
    for layer in found:
        put_through(sheet, layer.fields, "norm", "pre")
    return bool(found)


def recurrent(kind: str) -> Edit:
    """A gated cell in the place of a plain one."""

    def edit(sheet: Sheet) -> bool:
        found = [layer for layer in sheet.layers if class_of(layer) is Rnn]
        for layer in found:
            put(layer.fields, "kind", kind)
            drop(layer.fields, "activation")
        return bool(found)

    return edit


def recurrent_init(init: Mapping[str, Any], *kinds: str) -> Edit:
    """First values of recurrent layers of some kinds: of the matrices that lead from one step to the next, of those that read the
    input, of the biases."""

    def edit(sheet: Sheet) -> bool:
        found = [layer for layer in sheet.layers if layer.kind in kinds]
        for layer in found:
            for name, distribution in init.items():
                _put_init(layer.fields, name, distribution)
        return bool(found)

    return edit


def every_step(sheet: Sheet) -> bool:
    """The mean over the steps in the place of the last one's state: each step's gradient comes from its own place."""
    found = [layer for layer in sheet.layers if layer.kind in _RECURRENT and text_of(layer.fields, "output") == "last"]
    for layer in found:
        memory = copy.deepcopy(layer.fields)
        drop(memory, "output")
        _follow(layer, memory, {"kind": "time_pool"}, keeps_name=layer.name in sheet.read_by_name)
    return bool(found)


def depth(number: int) -> Edit:
    """So many copies of what repeats most."""

    def edit(sheet: Sheet) -> bool:
        most = max((layer for layer in sheet.layers if layer.repeat), key=lambda layer: copies(sheet, layer), default=None)
        if most is None or copies(sheet, most) <= number:
            return False
        put_through(sheet, most.fields, "repeat", number)
        return True

    return edit


def most_copies(sheet: Sheet) -> int:
    """The copies that ``depth`` would change; 0 where nothing repeats."""
    return max((copies(sheet, layer) for layer in sheet.layers if layer.repeat), default=0)


def main_activation(sheet: Sheet) -> str | None:
    """The function that most hidden layers end in."""
    found = [layer.kind if layer.kind in _ACTIVATIONS else _activation(layer) for layer in _hidden(sheet)]
    named = [kind for kind in found if kind is not None]
    return max(dict.fromkeys(named), key=named.count) if named else None


def _hidden(sheet: Sheet) -> Iterator[Stated]:
    """Not the layer that leaves the net, nor one that a loss reads, nor a gate."""
    for layer in list(sheet.layers):
        ends = layer is sheet.last or layer.name in sheet.read_by_a_loss
        if not ends and id(layer.fields) not in sheet.gates:
            yield layer


def _activation(layer: Stated) -> str | None:
    """The kind of a layer's ``activation``."""
    entry = layer.fields.get("activation")
    return None if entry is None else text_of(layer.fields, "activation") or text_of(entry.value, "kind")


def _scale(scale: Any, per_depth: Any) -> dict[str, Any]:
    return {} if scale is None else {"scale": per_depth if scale == PER_DEPTH else scale}


def _only_dense(sheet: Sheet, stretch: Stated) -> Stated | None:
    """The layer of a block that is one dense layer and its activation."""
    inside = [layer for layer in sheet.layers if layer.around is stretch]
    plain = stretch.kind == "block" and len(inside) == 1 and inside[0].kind == "dense" and _activation(inside[0]) is not None
    return inside[0] if plain else None


def _gated(dense: Collection, bias: float) -> list[Any]:
    transform, gate = copy.deepcopy(dense), copy.deepcopy(dense)
    for part, name in ((transform, "transform"), (gate, "gate")):
        put(part, "name", name)
        put(part, "from", "input")
    put(gate, "activation", "sigmoid")
    _put_init(gate, "bias", {"kind": "constant", "value": bias})
    formula = "gate * transform + (1 - gate) * input"
    return [
        transform,
        gate,
        {"kind": "expression", "name": "carried", "from": ["gate", "transform", "input"], "formula": formula},
    ]


def _is_normalized(layer: Stated) -> bool:
    place = layer.among.entries.index(layer.entry)
    beside = [*layer.among.entries[max(place - 1, 0) : place], *layer.among.entries[place + 1 : place + 2]]
    return any(issubclass(LAYERS.get(text_of(entry.value, "kind") or "", Layer), _NORMS) for entry in beside)


def _normalize(layer: Stated, kind: str, *, keeps_name: bool) -> None:
    weighted, norm = copy.deepcopy(layer.fields), {"kind": kind}
    if (activation := drop(weighted, "activation")) is not None:
        norm["activation"] = activation.value  # type: ignore[assignment]
    if kind == "batch_norm":
        put(weighted, "bias", False)
    _follow(layer, weighted, norm, keeps_name=keeps_name)


def _follow(layer: Stated, first: Collection, second: Mapping[str, Any], *, keeps_name: bool) -> None:
    """Two layers in the place of one; in a block of its name, where others read it."""
    name = drop(first, "name") if keeps_name else None
    if name is None:
        layer.replace(first, second)
    else:
        layer.replace({"kind": "block", "name": name.value, "layers": [first, second]})


def _put_init(fields: Collection, name: str, distribution: Any) -> None:
    init = fields.get("init")
    if init is None or not isinstance(init.value, Collection):
        put(fields, "init", {name: distribution})
    else:
        put(init.value, name, distribution)
