"""The loss of a file, known by the values that it gives, or one that is added to a file without."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.errors import ModelError, nearest
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.importing.trial import Array, Trial

ADDED = ("cross_entropy", "mse", "mae", "huber", "binary_cross_entropy")
_BATCH, _OTHER = 3, 4  # extents of a trial
_LARGEST = 1 << 24  # elements that are tried
Elements = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Stated:
    """``fields`` of the loss but for its input and target; none where the model is written without one. ``target`` is an input
    that the file does not have."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def _huber(y: Array, t: Array) -> Array:
    size = np.abs(y - t)
    return np.asarray(np.where(size <= 1.0, 0.5 * size * size, size - 0.5))


# The formulas of layers/criterion.py once more, on numbers: what a file's loss is compared with.
_ELEMENTWISE: Mapping[str, Elements] = {
    "mse": lambda y, t: (y - t) ** 2,
    "mae": lambda y, t: np.abs(y - t),
    "huber": _huber,
    "binary_cross_entropy": lambda y, t: np.logaddexp(0.0, y) - t * y,
}


def stated_loss(network: Network) -> Stated:
    """The loss of a file, where it is one of the language's."""
    if network.loss is None:
        return Stated()
    values = {value.name: value for node in network.model.graph for value in node.outputs}
    values |= {value.name: value for value in network.model.graph.inputs}
    loss = values[network.loss]
    producer = loss.producer()
    left_out = Stated(
        notes=(f"the loss {network.loss!r} ({producer.op_type if producer else ''}) is left out: state one under loss:",)
    )
    targets = [values[name] for name, declared in network.inputs.items() if declared.role == "target"]
    if len(targets) != 1 or len(network.outputs) != 1:
        return left_out
    fields = _known(loss, values[network.outputs[0]], targets[0], network.model.opset_imports[""])
    return left_out if fields is None else Stated(fields)


def _known(loss: ir.Value, output: ir.Value, target: ir.Value, opset: int) -> dict[str, Any] | None:
    """The fields of the kind that takes the loss's values at two drawn batches."""
    symbols = {str(dim) for value in (output, target) for dim in dims(value)}
    trial = Trial(opset, dict.fromkeys(symbols, _OTHER) | {str(dims(output)[0]): _BATCH})
    shape, other = trial.shape(output), trial.shape(target)
    if shape is None or other is None or math.prod(shape) > _LARGEST:
        return None
    draws, candidates = np.random.default_rng(0), list(_candidates(shape, other, labels=not is_real(target)))
    for _ in range(2):
        y = 2.0 * draws.normal(size=shape)
        t = draws.random(size=other) if is_real(target) else _labels(draws, shape, other)
        made = trial.run(loss, {output: y, target: t})
        if made is None or made.size != 1:
            return None
        candidates = [
            (fields, formula) for fields, formula in candidates if np.isclose(made.reshape(-1)[0], formula(y, t), rtol=1e-6)
        ]
    return candidates[0][0] if candidates else None


def _candidates(
    shape: Sequence[int], target: Sequence[int], *, labels: bool
) -> Iterator[tuple[dict[str, Any], Callable[[Array, Array], float]]]:
    """Each loss with its formula: of class numbers the cross entropy, of real targets what is taken element by element."""
    for reduction in ("mean", "sum"):
        if labels:
            for axis in _class_axes(shape, target):
                stated = {"class_axis": axis} if axis != 1 else {}
                yield (
                    {"kind": "cross_entropy", **stated, "reduction": reduction},
                    partial(_reduced, reduction, partial(_cross_entropy, axis)),
                )
        elif tuple(shape) == tuple(target):
            for kind, formula in _ELEMENTWISE.items():
                yield {"kind": kind, "reduction": reduction}, partial(_reduced, reduction, formula)


def _reduced(reduction: str, formula: Elements, y: Array, t: Array) -> float:
    return float(getattr(np, reduction)(formula(y, t)))


def _cross_entropy(axis: int, y: Array, t: Array) -> Array:
    x = y - y.max(axis, keepdims=True)
    chosen = np.take_along_axis(x, np.expand_dims(t, axis), axis)
    return np.asarray(np.log(np.exp(x).sum(axis, keepdims=True)) - chosen)


def _class_axes(shape: Sequence[int], target: Sequence[int]) -> list[int]:
    """Along which the classes of logits may lie, by the labels' shape."""
    axes = dict.fromkeys((1, len(shape) - 1)) if len(shape) > 1 else {}
    return [axis if axis == 1 else -1 for axis in axes if (*shape[:axis], *shape[axis + 1 :]) == tuple(target)]


def _labels(draws: np.random.Generator, shape: Sequence[int], target: Sequence[int]) -> Array:
    axes = _class_axes(shape, target)
    return draws.integers(0, min((shape[axis] for axis in axes), default=1), size=tuple(target))


def added_loss(network: Network, kind: str) -> Stated:
    """A loss of this kind for a file without one. Raises ModelError where the file does not suit."""
    if kind not in ADDED:
        raise ModelError(f"--loss {kind!r} is none that can be added: " + (nearest(kind, ADDED) or f"choose {', '.join(ADDED)}"))
    if network.loss is not None:
        raise ModelError(f"{network.source}: it holds the loss {network.loss!r} already; import it without --loss")
    if len(network.outputs) != 1:
        raise ModelError(
            f"{network.source}: --loss is of one output, the file has {len(network.outputs)}; state losses under loss:"
        )
    (output,) = (v for node in network.model.graph for v in node.outputs if v.name == network.outputs[0])
    shape = ["batch" if position == 0 else dim for position, dim in enumerate(dims(output))]
    batches = {str(declared.shape[0]) for declared in network.inputs.values() if declared.shape}
    shape[0] = next((name for name in sorted(batches) if not name.isdigit()), "batch")
    if kind != "cross_entropy":
        return Stated({"kind": kind}, {"shape": shape})
    axis = (
        1 if len(shape) != 3 else 2
    )  # [batch, time, classes] is a label for each word, [batch, classes, ...] one for each place
    if len(shape) < 2 or not isinstance(shape[axis], int):
        raise ModelError(
            f"{network.source}: the number of classes of the output {output.name!r} is not known; state the loss under loss:"
        )
    labels = {"shape": [*shape[:axis], *shape[axis + 1 :]], "type": "int64", "classes": shape[axis]}
    return Stated({"kind": kind, **({"class_axis": -1} if axis == 2 else {})}, labels)
