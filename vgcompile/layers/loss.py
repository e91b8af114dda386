"""Losses: one number from what layers give and a target, as a model file states them. The formulas are criterion.py's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vgcompile.layers import alignment, criterion
from vgcompile.layers.layer import Name, Reference, References, Shape, Site, Unfit, show
from vgcompile.layers.part import Finite, Natural, NotEmpty, Part, PositiveFloat

if TYPE_CHECKING:
    import onnx_ir as ir

_Weights = Annotated[tuple[Annotated[Finite, Field(ge=0)], ...], NotEmpty]
_Smoothing = Annotated[float, Field(ge=0, lt=1)]


class Loss(Part):
    """The fields that every loss has. ``most`` is the greatest number of layers that it compares with its target."""

    most: ClassVar[int] = 1

    kind: str
    name: Name | None = Field(default=None, description="of its part, the output loss/NAME, where there are several losses")
    input: References | None = Field(default=None, description="the layer that enters the loss; the last one where absent")
    target: Reference = Field(description="the input, or the layer, that it is compared with")
    weight: PositiveFloat = Field(default=1.0, description="its factor in the sum of all losses")
    reduction: Literal["mean", "sum"] = "mean"

    @abstractmethod
    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        """The loss, without its ``weight``, of shape []. Raises Unfit where output and target do not suit each other."""

    @property
    def ignored(self) -> int | None:
        """A class number of the target that counts nowhere."""
        return getattr(self, "ignore_index", None)


class _Elementwise(Loss):
    """An output and a target of real numbers, in one shape."""

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        (x,) = inputs
        _require_real(self.kind, site, target)
        if site.shape(x) != site.shape(target):
            raise Unfit(f"{self.kind} needs an output and a target of one shape")
        return self.compare(site, x, target)

    @abstractmethod
    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value: ...


class _OfClasses(Loss):
    """Scores [batch, classes, ...] and class numbers [batch, ...]."""

    class_axis: int = Field(default=1, description="the axis of the classes; -1 for [batch, time, classes]")
    class_weights: _Weights | None = Field(default=None, description="one for each class: how much its samples count")

    def require_classes(self, site: Site, scores: ir.Value, target: ir.Value) -> None:
        """Raises Unfit unless scores and class numbers suit each other."""
        classes, shape, labels = site.classes(target), site.shape(scores), site.shape(target)
        if classes is None:
            raise Unfit(f"{self.kind} needs a target of class numbers", "give the target type: int64 and its number of classes")
        axis = self.axis(shape)
        if labels != (*shape[:axis], *shape[axis + 1 :]):
            where = "[batch, classes, ...]" if axis == 1 else f"with classes along axis {self.class_axis}"
            hint = "state class_axis: -1 where the classes come last" if labels == shape[:-1] else ""
            raise Unfit(f"{self.kind} needs logits {where} and a target of that shape without the classes", hint)
        if shape[axis] != classes:
            raise Unfit(f"the target has {classes} classes, the logits have {shape[axis]}", "make both numbers equal")
        self.require_weights(classes)

    def axis(self, shape: Shape) -> int:
        if not -len(shape) < self.class_axis < len(shape) or self.class_axis == 0:
            raise Unfit(
                f"class_axis {self.class_axis} is not an axis of {show(shape)} behind the batch", "use -1 for the last one"
            )
        return self.class_axis % len(shape)

    def require_weights(self, classes: int | str) -> None:
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise Unfit(f"class_weights holds {len(self.class_weights)} numbers for {classes} classes", "state one for each")

    def options(self) -> dict[str, Any]:
        return {"class_axis": self.class_axis, "class_weights": self.class_weights}


class CrossEntropy(_OfClasses):
    """-log softmax(x)[target] along the class axis; the target holds class numbers, or probabilities in the logits' shape."""

    kind: Literal["cross_entropy"]
    ignore_index: int | None = Field(default=None, description="a class number that marks positions which do not count")
    label_smoothing: _Smoothing = Field(default=0.0, description="share of the target that is spread evenly over all classes")

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        (x,), shape = inputs, site.shape(inputs[0])
        smoothed = {**self.options(), "label_smoothing": self.label_smoothing}
        if not _is_real(target) or shape != site.shape(target):
            self.require_classes(site, x, target)
            return criterion.cross_entropy(  # type: ignore[no-any-return]
                site.op, x, target, self.reduction, **smoothed, ignore_index=self.ignore_index
            )
        if self.ignore_index is not None:
            raise Unfit("ignore_index names a class number, this target holds probabilities", "drop ignore_index")
        self.require_weights(shape[self.axis(shape)])
        if self.label_smoothing and isinstance(shape[self.axis(shape)], str):
            raise Unfit("label_smoothing needs a known number of classes", "give the logits a fixed size")
        return criterion.soft_cross_entropy(site.op, x, target, self.reduction, **smoothed)  # type: ignore[no-any-return]


class Nll(_OfClasses):
    """-x[target] along the class axis, for logarithms of probabilities: what follows a log_softmax."""

    kind: Literal["nll"]
    ignore_index: int | None = Field(default=None, description="a class number that marks positions which do not count")

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        self.require_classes(site, inputs[0], target)
        return criterion.nll(  # type: ignore[no-any-return]
            site.op, inputs[0], target, self.reduction, **self.options(), ignore_index=self.ignore_index
        )


class Hinge(_OfClasses):
    """max(0, margin - t x) for targets of -1 and 1; for class numbers the multi-class margin, averaged over the classes."""

    kind: Literal["hinge"]
    margin: PositiveFloat = 1.0
    power: Literal[1, 2] = Field(default=1, description="2 for the squared hinge")

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        (x,) = inputs
        given: dict[str, Any] = {"margin": self.margin, "power": self.power}
        if not _is_real(target):
            self.require_classes(site, x, target)
            return criterion.class_hinge(site.op, x, target, self.reduction, **self.options(), **given)  # type: ignore[no-any-return]
        if site.shape(x) != site.shape(target) or self.class_weights is not None:
            raise Unfit(
                "hinge needs a target of class numbers, or one of -1 and 1 in the output's shape, without class_weights",
                "give the target type: int64 and its number of classes, or the output's shape",
            )
        return criterion.hinge(site.op, x, target, self.reduction, **given)  # type: ignore[no-any-return]


class Mse(_Elementwise):
    """The mean (or sum) of (x - target)^2 over all elements."""

    kind: Literal["mse"]

    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value:
        return criterion.mse(site.op, x, target, self.reduction)  # type: ignore[no-any-return]


class Mae(_Elementwise):
    """The mean (or sum) of |x - target| over all elements."""

    kind: Literal["mae"]

    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value:
        return criterion.mae(site.op, x, target, self.reduction)  # type: ignore[no-any-return]


class Huber(_Elementwise):
    """e^2 / 2 up to an error of ``delta``, beyond it delta (|e| - delta / 2)."""

    kind: Literal["huber"]
    delta: PositiveFloat = 1.0

    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value:
        return criterion.huber(site.op, x, target, self.reduction, delta=self.delta)  # type: ignore[no-any-return]


class BinaryCrossEntropy(_Elementwise):
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), for logits x and targets t from 0 to 1."""

    kind: Literal["binary_cross_entropy"]
    pos_weight: PositiveFloat | tuple[PositiveFloat, ...] | None = Field(
        default=None, description="how much a target of 1 counts; a list has one for each entry of the last axis"
    )

    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value:
        last = (site.shape(x) or (1,))[-1]
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != last:
            raise Unfit(f"pos_weight holds {len(self.pos_weight)} numbers, the last axis is {last}", "state one for each entry")
        return criterion.binary_cross_entropy(  # type: ignore[no-any-return]
            site.op, x, target, self.reduction, pos_weight=self.pos_weight
        )


class Kl(_Elementwise):
    """sum t (log t - log p) over the classes, for target probabilities t; its mean is over the distributions."""

    kind: Literal["kl"]
    class_axis: int = Field(default=-1, description="the axis that a distribution lies along")
    logits: bool = Field(default=True, description="false: the input holds logarithms of probabilities already")

    def compare(self, site: Site, x: ir.Value, target: ir.Value) -> ir.Value:
        _require_axis(self.class_axis, site.shape(x))
        return criterion.kl(  # type: ignore[no-any-return]
            site.op, x, target, self.reduction, class_axis=self.class_axis, logits=self.logits
        )


class Cosine(Loss):
    """1 - cos(x, target) along an axis; for two inputs, and a target of two classes, 1 - cos where it is 1 (alike), and where it
    is 0 what the cosine is above ``margin``."""

    most: ClassVar[int] = 2

    kind: Literal["cosine"]
    axis: int = Field(default=-1, description="the axis that a vector lies along")
    margin: Annotated[float, Field(ge=-1, le=1)] = Field(default=0.0, description="the cosine that a pair unlike may have")

    @model_validator(mode="after")
    def _margin_of_pairs(self) -> Self:
        if "margin" in self.model_fields_set and len(self.input or ()) != 2:
            raise ValueError("margin: is for pairs: input: [a, b]")
        return self

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        shape = site.shape(inputs[0])
        _require_axis(self.axis, shape)
        if len(inputs) == 1:
            _require_real(self.kind, site, target)
            if shape != site.shape(target):
                raise Unfit("cosine needs an output and a target of one shape")
            return criterion.cosine(site.op, inputs[0], target, self.reduction, axis=self.axis)  # type: ignore[no-any-return]
        axis = self.axis % len(shape)
        if site.shape(inputs[1]) != shape or site.shape(target) != (*shape[:axis], *shape[axis + 1 :]):
            raise Unfit("cosine needs two inputs of one shape, and a target of that shape without the vectors' axis")
        if site.classes(target) != 2:
            raise Unfit("cosine of pairs needs a target that says 1 for alike, 0 for unlike", "give it type: int64, classes: 2")
        return criterion.cosine_of_pairs(  # type: ignore[no-any-return]
            site.op, inputs, target, self.reduction, axis=self.axis, margin=self.margin
        )


class Ctc(Loss):
    """-log of the probability of all alignments of a label sequence with the time steps (Graves et al. 2006).

    Logits [batch, time, classes], labels [batch, length], filled up at their ends with ``blank``. The mean divides each sample's
    loss by its number of labels first, as in PyTorch.
    """

    kind: Literal["ctc"]
    blank: Natural = Field(default=0, description="the class that stands for no label")
    logits: bool = Field(default=True, description="false: the input holds logarithms of probabilities already")

    def emit(self, site: Site, inputs: Sequence[ir.Value], target: ir.Value) -> ir.Value:
        (x,), classes = inputs, site.classes(target)
        shape, labels = site.shape(x), site.shape(target)
        if len(shape) != 3 or len(labels) != 2 or shape[0] != labels[0]:
            raise Unfit("ctc needs logits [batch, time, classes] and labels [batch, length]")
        if classes is None or shape[2] != classes or self.blank >= classes:
            raise Unfit(
                f"ctc needs labels of as many classes as the logits have, {self.blank} for no label among them",
                "give the target type: int64 and its number of classes, the blank counted",
            )
        if isinstance(shape[1], str) or isinstance(labels[1], str):
            raise Unfit("ctc needs a known number of time steps, and of labels", "give the inputs fixed sizes beyond the batch")
        return alignment.ctc(site.op, x, target, self.reduction, blank=self.blank, logits=self.logits)  # type: ignore[no-any-return]


def _is_real(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _require_real(kind: str, site: Site, target: ir.Value) -> None:
    if not _is_real(target):
        raise Unfit(f"{kind} needs a target of real numbers, found class numbers", "use cross_entropy, or drop type: int64")


def _require_axis(axis: int, shape: Shape) -> None:
    if not -len(shape) < axis < len(shape) or axis == 0:
        raise Unfit(f"axis {axis} is not an axis of {show(shape)} behind the batch", "use -1 for the last one")


LOSSES: tuple[type[Loss], ...] = (CrossEntropy, Nll, Mse, Mae, Huber, BinaryCrossEntropy, Kl, Cosine, Hinge, Ctc)


def _listed(given: object) -> object:
    return (given,) if isinstance(given, dict) else given


if TYPE_CHECKING:
    AnyLoss = Loss
    Losses = tuple[Loss, ...]
else:
    AnyLoss = Annotated[reduce(or_, LOSSES), Field(discriminator="kind")]
    Losses = Annotated[
        tuple[AnyLoss, ...], NotEmpty, BeforeValidator(_listed, json_schema_input_type=AnyLoss | tuple[AnyLoss, ...])
    ]
