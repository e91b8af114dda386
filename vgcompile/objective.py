"""The loss of a network under construction: the weighted sum of its losses and penalties, one scalar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

from vgcompile.errors import Mark, ModelError, nearest
from vgcompile.graph.emit import Emitter
from vgcompile.layers.layer import Site, Unfit
from vgcompile.layers.loss import Loss
from vgcompile.layers.pattern import matches, matching
from vgcompile.layers.penalty import Penalty
from vgcompile.rules import shapes as rules

if TYPE_CHECKING:
    from vgcompile.spec import Spec
    from vgcompile.spec.wiring import PlacedLoss

TOTAL = "loss"  # the scalar that is differentiated, and the layer of every node that leads to it alone


class LossSite(Site, Protocol):
    """Where losses are built: a layer's site, and whom to tell what does not fit."""

    values: dict[str, ir.Value | None]

    def at(self, name: str, kind: str, mark: Mark, owner: str) -> AbstractContextManager[Emitter]: ...

    def complain(self, mark: Mark, error: Unfit | ModelError, sources: Sequence[str] = ()) -> None: ...


@dataclass(frozen=True)
class Objective:
    """``total`` is None where there is no loss or one was complained about; ``parts`` names its terms, each without its weight,
    where the total is not the only one itself."""

    total: ir.Value | None = None
    parts: tuple[str, ...] = ()


def objective(site: LossSite, spec: Spec, parameters: Mapping[str, ir.Value]) -> Objective:
    """Emit every loss and penalty of a model, and their sum. ``parameters`` are those that are trained."""
    losses, penalties = spec.document.loss, spec.document.penalty
    several = len(losses) + len(penalties) > 1
    summed = several or any(loss.weight != 1.0 for loss in losses)
    found = [_loss(site, placed, loss) for placed, loss in zip(spec.losses, losses, strict=True)]
    found += [_penalty(site, _mark(spec, "penalty", index), penalty, parameters) for index, penalty in enumerate(penalties)]
    terms = [term for term in found if term is not None]
    if len(terms) < len(found) or not terms:
        return Objective()
    names = [
        *(f"{TOTAL}/{placed.name}" for placed in spec.losses),
        *(f"{TOTAL}/{name}" for name in _penalty_names(len(penalties))),
    ]
    if summed:
        for term, name in zip(terms, names, strict=True):
            term.name = site.op.fresh_value_name(name)
    with site.at(TOTAL, "sum" if several else losses[0].kind, spec.mark("loss"), TOTAL) as op:
        weights = [*(loss.weight for loss in losses), *(1.0 for _ in penalties)]
        weighted = [term if weight == 1.0 else op.Mul(term, weight) for term, weight in zip(terms, weights, strict=True)]
        total = op.Sum(*weighted) if several else weighted[0]
    total.name = site.op.fresh_value_name(TOTAL)
    return Objective(total, tuple(str(term.name) for term in terms) if summed else ())


def _loss(site: LossSite, placed: PlacedLoss, loss: Loss) -> ir.Value | None:
    compared = (*placed.sources, placed.target)
    present = [value for value in map(site.values.__getitem__, compared) if value is not None]
    if len(present) < len(compared):
        return None
    with site.at(TOTAL, loss.kind, placed.mark, TOTAL):
        try:
            return loss.emit(site, present[:-1], present[-1])
        except (Unfit, ModelError) as error:
            site.complain(placed.mark, error, compared)
            return None


def _penalty(site: LossSite, mark: Mark, penalty: Penalty, parameters: Mapping[str, ir.Value]) -> ir.Value | None:
    idle = [pattern for pattern in penalty.on if not any(matches(pattern, name) for name in parameters)]
    for pattern in idle:
        hint = nearest(pattern, parameters) or f"parameters: {', '.join(list(parameters)[:6])}"
        site.complain(mark, Unfit(f"the penalty's pattern {pattern!r} takes no parameter", hint, rules.IDLE_PATTERN))
    if idle:
        return None
    with site.at(TOTAL, "penalty", mark, TOTAL) as op, op.scope("penalty"):
        return penalty.emit(op, [parameters[name] for name in matching(penalty.on, parameters)])


def _penalty_names(count: int) -> list[str]:
    return ["penalty" if index == 0 else f"penalty_{index + 1}" for index in range(count)]


def _mark(spec: Spec, field: str, index: int) -> Mark:
    """Of one of several, or of the only one, which may be written without a list."""
    node = spec.tree.at((field,))
    return (node.get(index) or node).mark
