"""The set of inputs that bounds hold for: everywhere, the declared ranges, or a ball around every sample of a batch.

    everywhere        any number
    range             each input within its declared range
    ball:0.1          the l2 ball of this radius around each sample, all elements of an input together
    ball:0.1@linf     every element within this distance of the sample's

A region is a union of pieces, one for each sample; what holds on every piece holds on the region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from vgcompile.analysis.bounds.support import Support
from vgcompile.errors import UserError, nearest
from vgcompile.graph.network import Input, Network
from vgcompile.interval import WHOLE, Array, Interval, corners, interval, point

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")
FORMS = "everywhere, range, ball:RADIUS (in the l2 norm) or ball:RADIUS@linf"


@dataclass(frozen=True)
class Ball:
    """All x with ||x - centre|| <= radius, in the norm over all elements of one sample."""

    centre: Array
    radius: float
    norm: Norm

    @property
    def box(self) -> Interval:
        return corners(np.add, [point(self.centre), interval(-self.radius, self.radius)])


@dataclass(frozen=True)
class InputSet:
    """Where one input lies: in a box and, where there is one, in a ball inside it."""

    box: Interval
    ball: Ball | None = None


Piece = Mapping[str, InputSet]


@dataclass(frozen=True)
class Region:
    """``text`` says in words which set it is; ``form`` is how it was asked for. ``parameters`` are those that may lie anywhere in
    their support; the others are taken as they stand."""

    form: str
    text: str
    pieces: tuple[Piece, ...]
    parameters: Mapping[str, Support] = field(default_factory=dict)

    def over(self, parameters: Mapping[str, Support]) -> Region:
        """The same inputs, and these parameters anywhere in their support."""
        return replace(self, text=f"{self.text}; all weights that their initializers may draw", parameters=parameters)

    def contains(self, feeds: Mapping[str, Array]) -> bool:
        """Whether a batch lies in it. A batch that a ball was laid around does."""
        if self.form.startswith("ball"):
            return True
        (piece,) = self.pieces
        return all(known.box.contains(feeds[name].astype(np.float64)) for name, known in piece.items() if name in feeds)


@dataclass(frozen=True)
class Form:
    """A region as it is written."""

    kind: Literal["everywhere", "range", "ball"]
    radius: float = 0.0
    norm: Norm = "l2"


def parse(text: str) -> Form:
    """Read a region's text. Raises UserError for one that is none, with what would do."""
    word, _, rest = text.partition(":")
    if word in ("everywhere", "range") and not rest:
        return Form("everywhere" if word == "everywhere" else "range")
    if word != "ball":
        raise UserError(f"--region {text!r}: " + (nearest(word, ("everywhere", "range", "ball")) or f"it takes {FORMS}"))
    number, _, norm = rest.partition("@")
    try:
        radius = float(number)
    except ValueError:
        radius = math.nan
    if not 0.0 <= radius < math.inf:
        raise UserError(f"--region {text!r}: the radius is a number that is not negative, as in ball:0.1")
    if norm and norm not in NORMS:
        raise UserError(f"--region {text!r}: " + (nearest(norm, NORMS) or f"balls are of the norms {' and '.join(NORMS)}"))
    return Form("ball", radius, "linf" if norm == "linf" else "l2")


def region(network: Network, text: str, feeds: Mapping[str, Array] | None = None) -> Region:
    """The set that a text asks for; ``feeds`` is the batch that balls lie around, and else they do around the ranges' centres.

    Raises UserError for a text that is no region, and for a ball around an input of which neither data nor a range are known.
    """
    form = parse(text)
    real = {name: declared for name, declared in network.inputs.items() if declared.dtype.is_floating_point()}
    if form.kind != "ball":
        boxes = {name: declared_box(declared) if form.kind == "range" else WHOLE for name, declared in real.items()}
        return Region(text, _words(text, boxes), ({name: InputSet(box) for name, box in boxes.items()},))
    centred = {name for name, declared in real.items() if declared.role == "input"}
    beside = {name: InputSet(declared_box(declared)) for name, declared in real.items() if name not in centred}
    points = [_centres(real[name], (feeds or {}).get(name)) for name in sorted(centred)]
    count = max((len(each) for each in points), default=1)
    pieces = []
    for index in range(count):
        balls = [Ball(each[index % len(each)], form.radius, form.norm) for each in points]
        pieces.append({**beside, **{name: InputSet(ball.box, ball) for name, ball in zip(sorted(centred), balls, strict=True)}})
    around = f"each of {count} samples" if feeds else "the centre of the declared range"
    return Region(text, f"ball: {form.norm} distance {form.radius:g} around {around}", tuple(pieces))


def hull(pieces: Sequence[Piece]) -> Piece:
    """One box around all pieces."""
    first, *others = pieces
    boxes = {name: known.box for name, known in first.items()}
    for piece in others:
        boxes = {name: box.hull(piece[name].box) for name, box in boxes.items()}
    return {name: InputSet(box) for name, box in boxes.items()}


def declared_box(declared: Input) -> Interval:
    return WHOLE if declared.range is None else interval(*declared.range)


def _centres(declared: Input, batch: np.ndarray[Any, Any] | None) -> list[Array]:
    """The points that balls lie around, each with an axis of one sample where samples are counted."""
    if batch is not None:
        whole = np.asarray(batch, np.float64)
        axis = declared.batch_axis
        return np.split(whole, whole.shape[axis], axis) if isinstance(declared.samples, str) else [whole]
    if declared.range is None:
        raise UserError(
            f"--region ball: input {declared.name!r} has neither data nor a range that a ball could lie around; "
            "give --data FILE.npz, or the input a range"
        )
    if any(isinstance(dim, str) for axis, dim in enumerate(declared.shape) if axis != declared.batch_axis):
        raise UserError(f"--region ball: input {declared.name!r} is of no known extent; give --data FILE.npz")
    dims = [1 if isinstance(dim, str) else dim for dim in declared.shape]
    return [np.full(dims, 0.5 * (declared.range[0] + declared.range[1]))]


def _words(form: str, boxes: Mapping[str, Interval]) -> str:
    parts = [f"{name} in [{box.lo:g}, {box.hi:g}]" if box.bounded else f"{name} anywhere" for name, box in boxes.items()]
    return f"{form}: " + (", ".join(parts) or "no real inputs")
