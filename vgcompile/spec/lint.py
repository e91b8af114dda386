"""Designs that compile, and are known not to do what their author meant: one small function for each rule over a wired model.

    lint(spec, shapes) -> warnings, sorted by place

``# vgcompile: ignore VG501`` on a warning's line takes it back; an ignore that takes nothing back is itself one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vgcompile.errors import Complaint, Mark, Note
from vgcompile.layers.activation import Activated
from vgcompile.layers.distribution import Constant, Distribution, Fixed
from vgcompile.layers.function import Activation
from vgcompile.layers.initialization import Init, NormalizationInit
from vgcompile.layers.layer import Layer, Shape
from vgcompile.layers.loss import Loss
from vgcompile.layers.recurrent import Rnn
from vgcompile.rules import designs as rules
from vgcompile.rules.rule import Rule
from vgcompile.spec import Spec
from vgcompile.spec.ignoring import without_ignored
from vgcompile.spec.traps import traps
from vgcompile.spec.wiring import Placed, PlacedLoss

BATCH_STATISTICS = ("batch_norm", "instance_norm")
SATURATING = ("sigmoid", "hard_sigmoid", "tanh", "softsign")
LOGIT_LOSSES = ("cross_entropy", "binary_cross_entropy")
SQUASHING = ("softmax", "sigmoid", "hard_sigmoid", "tanh", "relu")


def lint(spec: Spec, shapes: Mapping[str, Shape] = MappingProxyType({})) -> list[Complaint]:
    """The warnings about a model, each place of the text once a rule, without those that the text ignores. What depends on
    ``shapes``, those that layers give, is not said of layers without one."""
    wired = _Wired(spec, shapes)
    first: dict[tuple[Mark, str], Complaint] = {}  # copies of a block repeat their text's faults
    texts = {spec.file: spec.text, **spec.included}
    trapped = [found for file, text in texts.items() for found in traps(text, file)]
    for complaint in (*trapped, *spec.unused, *(found for rule in DESIGNS for found in rule(wired))):
        first.setdefault((complaint.mark, complaint.rule.code), complaint)
    kept: list[Complaint] = []
    for file in {*texts, *(mark.file for mark, _ in first)}:  # an option is no text
        here = [complaint for complaint in first.values() if complaint.mark.file == file]
        kept += without_ignored(here, texts.get(file, ""), file)
    return sorted(kept, key=lambda complaint: complaint.mark)


@dataclass(frozen=True)
class _Step:
    """A layer in its place: its fields, and who reads it."""

    placed: Placed
    layer: Layer
    readers: list[_Step]

    @property
    def mark(self) -> Mark:
        return self.placed.mark

    def stated(self, field: str) -> Any:
        """A field that not every layer has, or None; looked up where pydantic keeps them, for what is absent takes its time."""
        return vars(self.layer).get(field)

    @property
    def own_activation(self) -> str | None:
        """The function that ends it; one of a feed-forward layer stands inside."""
        stated = self.layer.activation if isinstance(self.layer, Activated | Rnn) else None
        return stated.kind if isinstance(stated, Activation) else stated

    @property
    def activation(self) -> str | None:
        """The function that its output goes through: its own, or that of its only reader."""
        own = self.own_activation
        if own is not None:
            return own
        if len(self.readers) == 1 and isinstance(self.readers[0].layer, Activation):
            return self.readers[0].layer.kind
        return None

    @property
    def is_linear(self) -> bool:
        return self.stated("activation") is None


class _Wired:
    def __init__(self, spec: Spec, shapes: Mapping[str, Shape]) -> None:
        self.spec, self.shapes = spec, shapes
        self.steps = {placed.name: _Step(placed, spec.layer(placed), []) for placed in spec.layers}
        for step in self.steps.values():
            for source in step.placed.sources:
                if source in self.steps:
                    self.steps[source].readers.append(step)

    def __iter__(self) -> Iterator[_Step]:
        return iter(self.steps.values())

    def sources(self, step: _Step) -> list[_Step]:
        return [self.steps[name] for name in step.placed.sources if name in self.steps]

    def weights(self, step: _Step) -> Distribution | None:
        """What a layer's weights are drawn from; None of a layer without any."""
        init = step.stated("init")
        if isinstance(init, Init):
            return init.weight or self.spec.document.init.weight
        return init.scale if isinstance(init, NormalizationInit) else None

    @property
    def judged(self) -> Iterator[tuple[_Step, Loss, PlacedLoss]]:
        """The layers whose outputs enter a loss, each with that loss and its place."""
        for loss, placed in zip(self.spec.document.loss, self.spec.losses, strict=True):
            yield from ((self.steps[name], loss, placed) for name in placed.sources if name in self.steps)


def _bias_before_norm(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        norms = [reader for reader in step.readers if reader.layer.kind in BATCH_STATISTICS]
        # A dense layer has a bias for each entry of the last axis, a convolution one for each of axis 1, which statistics are of.
        shape = wired.shapes.get(step.placed.name, ())
        by_channel = len(shape) == 2 or (len(shape) > 2 and step.layer.kind != "dense")
        biased = step.stated("bias") is True and step.is_linear and by_channel
        if biased and norms and len(norms) == len(step.readers):
            message = f"the bias of {step.placed.name!r} is subtracted again by {norms[0].placed.name!r}"
            yield _warning(step, message, "write bias: false", rules.BIAS_BEFORE_NORM, norms[0], "its mean is subtracted here")


def _squashed_logits(wired: _Wired) -> Iterable[Complaint]:
    for step, loss, placed in wired.judged:
        function = step.layer.kind if isinstance(step.layer, Activation) else step.activation
        if loss.kind in LOGIT_LOSSES and function in SQUASHING:
            note = Note(f"{loss.kind} takes logits", placed.mark)
            message = f"{function} before {loss.kind}, which takes logits as they are"
            yield Complaint(step.mark, message, f"leave {function} out", rules.SQUASHED_LOGITS, (note,))


def _dropout_before_norm(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        for source in wired.sources(step) if step.layer.kind == "batch_norm" else ():
            if source.layer.kind == "dropout":
                message = f"dropout {source.placed.name!r} before batch_norm {step.placed.name!r}"
                yield _warning(
                    source, message, "put it behind", rules.DROPOUT_BEFORE_NORM, step, "counts a variance without dropout"
                )


def _he_before_saturation(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        drawn = wired.weights(step)
        if drawn is not None and drawn.kind.startswith("he_") and step.activation in SATURATING:
            message = f"{drawn.kind} is for rectifiers, and {step.activation} follows {step.placed.name!r}"
            yield _warning(step, message, "draw from glorot_normal or lecun_normal", rules.HE_BEFORE_SATURATION)


def _constant_weights(wired: _Wired) -> Iterable[Complaint]:
    """Hidden layers only: of the last one every unit has a target of its own. A branch that ends in a sum may begin at 0."""
    for step in wired:
        drawn, value = wired.weights(step), None
        if isinstance(drawn, Fixed | Constant):
            value = drawn.initial((1,), 1, 1).mean
        is_norm = isinstance(step.stated("init"), NormalizationInit)
        if value is None or (is_norm and value != 0.0) or not step.readers or _ends_branch(step):
            continue
        what = "scale" if is_norm else "weights"
        consequence = "nothing passes, in either direction" if value == 0.0 else "its units stay alike for ever"
        message = f"all {what} of {step.placed.name!r} begin at {value:g}: {consequence}"
        yield _warning(step, message, "draw them at random", rules.CONSTANT_WEIGHTS)


def _ends_branch(step: _Step) -> bool:
    """Whether everything that it makes goes, at most through a normalization, into a sum."""
    return bool(step.readers) and all(
        reader.layer.kind in ("add", "residual") or (reader.layer.kind.endswith("_norm") and _ends_branch(reader))
        for reader in step.readers
    )


def _linear_stack(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        if step.layer.kind != "dense" or not step.is_linear or len(step.readers) != 1:
            continue
        (reader,) = step.readers
        first, second = step.stated("units"), reader.stated("units")
        if reader.layer.kind == "dense" and first is not None and second is not None and first >= second:
            message = (
                f"nothing is between the dense layers {step.placed.name!r} and {reader.placed.name!r}: they are one linear map"
            )
            yield _warning(step, message, "give the first one an activation", rules.LINEAR_STACK, reader, "the second one")


def _repeated_activation(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        for source in wired.sources(step) if isinstance(step.layer, Activation) else ():
            before = source.own_activation or source.layer.kind
            if before == step.layer.kind:
                message = f"{before} {step.placed.name!r} directly behind another {before}"
                yield _warning(step, message, "leave one of them out", rules.REPEATED_ACTIVATION, source, "the first one")


def _dropout_before_loss(wired: _Wired) -> Iterable[Complaint]:
    for step, *_ in wired.judged:
        if step.layer.kind == "dropout":
            yield _warning(step, "dropout of what enters the loss", "put it before the last layer", rules.DROPOUT_BEFORE_LOSS)


def _no_effect(wired: _Wired) -> Iterable[Complaint]:
    for step in wired:
        fields: Any = step.layer
        is_idle_pool = fields.kind in ("max_pool", "average_pool") and _ones(fields.kernel) and _ones(fields.stride or 1)
        if (fields.kind == "dropout" and fields.rate == 0) or is_idle_pool:
            message = f"{fields.kind} {step.placed.name!r} hands on its input as it is"
            yield _warning(step, message, "remove it, or change its fields", rules.NO_EFFECT)


def _ones(size: Any) -> bool:
    return all(extent == 1 for extent in (size if isinstance(size, tuple) else (size,)))


def _one_class(wired: _Wired) -> Iterable[Complaint]:
    for loss in wired.spec.document.loss:
        target = wired.spec.document.inputs.get(loss.target)
        if loss.kind == "cross_entropy" and target is not None and target.classes == 1:
            mark = wired.spec.mark("inputs", loss.target)
            message, hint = "the cross-entropy over one class is always 0", "for yes and no write classes: 2"
            yield Complaint(mark, message, hint, rules.ONE_CLASS)


DESIGNS: tuple[Callable[[_Wired], Iterable[Complaint]], ...] = (
    _bias_before_norm,
    _squashed_logits,
    _dropout_before_norm,
    _he_before_saturation,
    _constant_weights,
    _linear_stack,
    _repeated_activation,
    _dropout_before_loss,
    _no_effect,
    _one_class,
)


def _warning(step: _Step, message: str, hint: str, rule: Rule, other: _Step | None = None, there: str = "") -> Complaint:
    return Complaint(step.mark, message, hint, rule, () if other is None else (Note(there, other.mark),))
