"""The parameters of a network under construction: made once, shared by name, given their first values.

Where a layer states no distribution, the last pattern of the model's ``init:`` counts that takes the parameter, then what the
layer is drawn from as a rule, then the model's default. What a weights file holds comes in the place of a draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

from vgcompile.errors import Complaint, UserError, nearest
from vgcompile.graph.emit import Emitter, dims
from vgcompile.graph.gains import gain_of
from vgcompile.graph.provenance import PREFIX
from vgcompile.graph.tensors import drawn, made_when_read
from vgcompile.graph.weights import Flaw, matched, numbers, open_weights
from vgcompile.initial import LARGEST, Initial
from vgcompile.layers.distribution import Distribution
from vgcompile.layers.initialization import Gained
from vgcompile.layers.layer import Layer, Unfit, show
from vgcompile.rules import shapes as rules

if TYPE_CHECKING:
    from vgcompile.layers.layer import Make
    from vgcompile.spec import Spec


class Fans(NamedTuple):
    """What a parameter's shape alone does not tell of it: the inputs that a unit sees, the outputs that an input reaches, and the
    matrices that stand one behind another along its first axis."""

    inputs: int = 1
    outputs: int = 1
    parts: int = 1


class Parameters:
    """What layers have made so far: ``held`` by full name, states that no gradient reaches among them; ``trainable`` in order."""

    def __init__(self, op: Emitter, spec: Spec, seed: int) -> None:
        self.op, self.spec, self.seed = op, spec, seed
        self.held: dict[str, ir.Value] = {}
        self.trainable: list[str] = []
        self._rules = tuple(spec.document.init.rules())
        self._used: set[int] = set()  # of the rules, by place

    def parameter(
        self, layer: Layer, owner: str, name: str, shape: tuple[int, ...], given: Distribution | None, fans: Fans
    ) -> ir.Value:
        """The parameter ``<owner>/<name>`` of a layer. Raises Unfit where it was made with another shape, or for first values
        that it cannot have."""
        full = f"{owner}/{name}"
        if (shared := self.held.get(full)) is not None:
            return _fitting(shared, shape)
        initial = self._initial(self._distribution(layer, owner, name, given), name, shape, fans)
        value = self._hold(full, drawn(initial, full, self.seed))
        value.metadata_props[PREFIX + "initial"] = initial.to_json()
        self.op.graph.inputs.append(value)
        self.trainable.append(str(value.name))
        return value

    def state(self, owner: str, name: str, shape: tuple[int, ...], make: Make) -> ir.Value:
        """An initializer that no gradient reaches."""
        full = f"{owner}/{name}"
        if full not in self.held:
            self._hold(full, made_when_read(partial(make, shape), shape, full))
        return self.held[full]

    def _hold(self, full: str, tensor: ir.LazyTensor) -> ir.Value:
        name = self.op.fresh_value_name(full)
        value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.op.graph.register_initializer(value)
        self.held[full] = value
        return value

    def _distribution(self, layer: Layer, owner: str, name: str, given: Distribution | None) -> Distribution:
        applying = [place for place, rule in enumerate(self._rules) if rule.applies(owner, name)]
        self._used.update(applying)
        if given is not None and any(given is stated for stated in _stated(layer)):
            return given
        return self._rules[applying[-1]].distribution if applying else given or self.spec.document.init.default(name)

    def _initial(self, stated: Distribution, name: str, shape: tuple[int, ...], fans: Fans) -> Initial:
        try:
            gain = gain_of(stated.gain) if isinstance(stated, Gained) else 1.0
            initial = stated.initial(shape, fans.inputs, fans.outputs, gain, fans.parts)
        except ValueError as error:
            raise Unfit(f"{name} {show(shape)}: {error}") from None
        if not initial.reach < LARGEST:
            raise Unfit(
                f"initial values of {name} are beyond the largest float32",
                "choose a smaller sd, gain or scale",
                rules.INFINITE_WEIGHTS,
            )
        return initial

    # Once all layers are placed

    def complaints(self) -> list[Complaint]:
        """Patterns of the model's ``init:`` that take no parameter, and whatever is wrong with the weights file. Its tensors,
        which are not read yet, are the parameters' values from then on."""
        return [*self._idle_patterns(), *self._load()]

    def _idle_patterns(self) -> Iterator[Complaint]:
        keys = self.spec.tree.children["init"].keys if self._rules else {}
        for place, rule in enumerate(self._rules):
            if place not in self._used:
                pattern = rule.written
                which = "" if rule.name in (None, pattern) else f" called {rule.name!r}"
                near = nearest(pattern, [*self.trainable, "weight", "bias"]) if not which else ""
                hint = near or _some(self.trainable)
                yield Complaint(keys[pattern], f"the pattern {pattern!r} takes no parameter{which}", hint, rules.IDLE_PATTERN)

    def _load(self) -> Iterator[Complaint]:
        stated = self.spec.document.weights
        if stated is None:
            return
        node = self.spec.tree.children["weights"]
        path = Path(node.mark.file).parent / stated.file
        try:
            stored = open_weights(path)
        except UserError as error:
            message, _, hint = str(error).replace(str(path), stated.file).partition("; ")
            yield Complaint((node.get("file") or node).mark, message, hint, rules.UNFIT_WEIGHTS)
            return
        shapes = {name: tuple(int(dim) for dim in dims(value)) for name, value in self.held.items()}
        found = matched(stored, shapes, stated.map, stated.transpose, stated.strict)
        for flaw in found.flaws:
            yield Complaint(self._place_of(flaw), f"{path.name}: {flaw.message}", flaw.hint, rules.UNFIT_WEIGHTS)
        if found.flaws:
            return
        for name, tensor in found.tensors.items():
            value = self.held[name]
            read = partial(numbers, tensor, f"{path}: the tensor for {name!r}")
            value.const_value = made_when_read(read, shapes[name], str(value.name))
            value.metadata_props.pop(PREFIX + "initial", None)

    def _place_of(self, flaw: Flaw) -> Any:
        node = self.spec.tree.children["weights"]
        keys = [node.children[part].keys for part in ("map",) if part in node.children]
        return next((found[flaw.key] for found in keys if flaw.key in found), (node.get("file") or node).mark)


def _stated(layer: Layer) -> tuple[Distribution, ...]:
    """The distributions that a layer's own ``init:`` states."""
    init = getattr(layer, "init", None)
    return tuple(getattr(init, name) for name in init.model_fields_set) if init is not None else ()


def _fitting(shared: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """A parameter that another layer has made. Raises Unfit where it has another shape."""
    if dims(shared) != shape:
        raise Unfit(
            f"the shared {shared.name} is {show(dims(shared))}, this layer needs {show(shape)}",
            "share among layers of one size",
            rules.UNFIT_SHARE,
        )
    return shared


def _some(names: Sequence[str]) -> str:
    return f"parameters: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "no layer has parameters"
