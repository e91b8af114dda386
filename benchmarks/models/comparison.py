"""One network, ours and PyTorch's, with the same weights: output, and the gradient of the loss by all parameters and the real input.

Float32 cannot decide where batch statistics over few samples amplify rounding a hundred thousand times. So our joint graph is
evaluated in float64 as well, by ONNX's reference evaluator, which shares nothing with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import vgcompile
from benchmarks.models.references import Reference
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import GRADIENT, gradient
from vgcompile.reference import OPERATORS, in_float64
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session

MODELS = Path(__file__).parents[2] / "models"
ALLOWED = 1e-5  # relative l2 error in float64
ZERO = 1e-8  # of the whole gradient: a parameter whose gradient is smaller is measured beside this (a bias of keys has none)

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Outcome = dict[str, Array]  # the output, by its name, and the gradients, by the parameter's or the input's


@dataclass(frozen=True)
class Errors:
    """Relative l2 errors: of the output, of the gradient by all parameters, by the worst of them, and by the inputs (0 where none
    is real)."""

    output: float
    parameters: float
    worst: float
    inputs: float

    @property
    def largest(self) -> float:
        return max(self.output, self.parameters, self.worst, self.inputs)


@dataclass(frozen=True)
class Comparison:
    """``double``: ours in float64 against PyTorch in float64. ``single``: ours as it is written, in ONNX Runtime, against the same;
    ``theirs``: PyTorch in float32 against the same."""

    double: Errors
    single: Errors
    theirs: Errors

    @property
    def equal(self) -> bool:
        return self.double.largest <= ALLOWED


@dataclass(frozen=True)
class Counterpart:
    """Where PyTorch holds a parameter of ours: ``read`` brings theirs, or its gradient, to our layout."""

    theirs: nn.Parameter
    read: Callable[[Array], Array]


def compared(name: str, reference: Reference, module: nn.Module) -> Comparison:
    """Raises LookupError where a parameter, of ours or of PyTorch's, has no counterpart."""
    network = vgcompile.open_network(MODELS / f"{name}.yaml", variant=reference.variant, settings=reference.settings)
    feeds = batch(network, size=reference.batch, seed=0)
    unsettle(module)
    counterparts = matched(network, module, feeds)
    fed = {**feeds, **{ours: at.read(at.theirs.detach().numpy()) for ours, at in counterparts.items()}}
    joint = check(gradient(network, [*counterparts, *real(feeds)]))
    written = executed(joint, fed)
    evaluated = evaluated_in_float64(joint, fed)
    rough, exact = (torchs(module.to(dtype), network, feeds, counterparts) for dtype in (torch.float32, torch.float64))
    errors = partial(errors_of, network=network, truth=exact, inputs=real(feeds))
    return Comparison(errors(evaluated), errors(written), errors(rough))


def real(feeds: Mapping[str, Array]) -> list[str]:
    return [name for name, array in feeds.items() if np.issubdtype(array.dtype, np.floating)]


def unsettle(module: nn.Module) -> None:
    """Weights that start at one number would hide others: a branch whose last weights are 0 has no gradient."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() == 1 or parameter.std() == 0:
                spread = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter += spread * torch.randn(parameter.shape, generator=random)


# ---- ours


def executed(joint: onnx.ModelProto, fed: Mapping[str, Array]) -> Outcome:
    session = Session(joint, "cpu")
    known = {*session.required, *session.overridable}
    return session.run(None, {name: array for name, array in fed.items() if name in known})


def evaluated_in_float64(joint: onnx.ModelProto, fed: Mapping[str, Array]) -> Outcome:
    """Every parameter is fed, so that their defaults need not be carried along."""
    kept = [tensor for tensor in joint.graph.initializer if tensor.name not in fed]
    del joint.graph.initializer[:]
    joint.graph.initializer.extend(kept)
    names = {value.name for value in joint.graph.input}
    feeds = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in fed.items()}
    evaluator = ReferenceEvaluator(in_float64(joint), new_ops=OPERATORS)
    found = evaluator.run(None, {name: array for name, array in feeds.items() if name in names})
    return dict(zip([value.name for value in joint.graph.output], found, strict=True))


# ---- PyTorch's


def torchs(
    module: nn.Module, network: Network, feeds: Mapping[str, Array], counterparts: Mapping[str, Counterpart]
) -> Outcome:
    module.train()
    module.zero_grad()
    source, target = sides(network)
    x, labels = torch.tensor(feeds[source]), torch.tensor(feeds[target])
    if x.is_floating_point():
        x = x.to(next(module.parameters()).dtype).requires_grad_()
    y = module(x)
    scores = y.movedim(-1, 1) if y.shape[:-1] == labels.shape else y
    nn.functional.cross_entropy(scores, labels).backward()
    found = {f"{GRADIENT}{ours}": at.read(_slope(at.theirs)) for ours, at in counterparts.items()}
    if x.grad is not None:
        found[f"{GRADIENT}{source}"] = x.grad.numpy()
    return {**found, network.outputs[0]: y.detach().numpy().copy()}


def _slope(parameter: nn.Parameter) -> Array:
    assert parameter.grad is not None
    return parameter.grad.numpy().copy()


def sides(network: Network) -> tuple[str, str]:
    """The network's one input, and its one target."""
    (target,) = (name for name, declared in network.inputs.items() if declared.role == "target")
    (source,) = (name for name in network.inputs if name != target)
    return source, target


# ---- errors


def errors_of(found: Outcome, *, network: Network, truth: Outcome, inputs: list[str]) -> Errors:
    slopes = [f"{GRADIENT}{name}" for name in network.parameters]
    (output,) = network.outputs
    whole = _norm(truth, slopes)
    worst = max(_distance(found, truth, [name]) / max(_norm(truth, [name]), ZERO * whole) for name in slopes)
    at = [f"{GRADIENT}{name}" for name in inputs]
    return Errors(relative(found, truth, [output]), relative(found, truth, slopes), worst, relative(found, truth, at))


def relative(found: Outcome, truth: Outcome, names: list[str]) -> float:
    return _distance(found, truth, names) / _norm(truth, names) if names else 0.0


def _distance(found: Outcome, truth: Outcome, names: list[str]) -> float:
    return float(np.sqrt(sum(np.sum((found[name].astype(np.float64) - truth[name]) ** 2) for name in names)))


def _norm(truth: Outcome, names: list[str]) -> float:
    return float(np.sqrt(sum(np.sum(truth[name].astype(np.float64) ** 2) for name in names)))


# ---- which parameter is which


def matched(network: Network, module: nn.Module, feeds: Mapping[str, Array]) -> dict[str, Counterpart]:
    """Ours stand in the order of the layers, PyTorch's in that in which its modules are called: the first of its shape that is left;
    PyTorch holds axes of extent 1 where ours has none, or none where ours broadcasts."""
    source, _ = sides(network)
    left = called(module, torch.tensor(feeds[source]))
    values = {value.name: value for value in network.model.graph.inputs}
    pairs = {}
    for ours in network.parameters:
        shape = tuple(int(dim) for dim in dims(values[ours]))
        shapes = [at.read(at.theirs.detach().numpy()).shape for at in left]
        places = [i for i, theirs in enumerate(shapes) if long(theirs) == long(shape)]
        place = next((i for i in places if shapes[i] == shape), next(iter(places), None))
        if place is None:
            raise LookupError(f"{ours} {shape} has no counterpart in {type(module).__name__}")
        at = left.pop(place)
        pairs[ours] = Counterpart(at.theirs, partial(_shaped, read=at.read, shape=shape))
    if left:
        raise LookupError(f"{type(module).__name__} has parameters that the model has not: {[at.theirs.shape for at in left]}")
    return pairs


def _shaped(array: Array, *, read: Callable[[Array], Array], shape: Shape) -> Array:
    return np.ascontiguousarray(read(array)).reshape(shape)


def long(shape: Shape) -> Shape:
    """Without axes of extent 1."""
    return tuple(n for n in shape if n != 1)


def called(module: nn.Module, x: torch.Tensor) -> list[Counterpart]:
    """What stands for parameters of ours, in the order in which PyTorch's modules are called; a module that is not, but read by one
    around it, counts as that."""
    order: list[nn.Module] = []
    hooks = [part.register_forward_pre_hook(lambda part, _: order.append(part)) for part in module.modules()]
    with torch.no_grad():
        module.train()(x)
    for hook in hooks:
        hook.remove()
    turns = {part: turn for turn, part in reversed(list(enumerate(order)))}

    def turn(name: str) -> int:
        part = module.get_submodule(name)
        return turns[part] if part in turns else turn(name.rpartition(".")[0])

    owners = sorted(module.named_modules(), key=lambda named: turn(named[0]))
    first: dict[nn.Parameter, nn.Module] = {}  # a tied one is laid out as where it is called first
    for _, owner in owners:
        for parameter in owner.parameters(recurse=False):
            first.setdefault(parameter, owner)
    return [Counterpart(parameter, layout) for parameter, owner in first.items() for layout in layouts(owner)]


# PyTorch's gates in ONNX's order: i, o, f, c of i, f, g, o; z, r, h of r, z, n
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


def layouts(owner: nn.Module) -> list[Callable[[Array], Array]]:
    """How ours are read from a parameter of theirs: what a module fuses are several of ours, and a dense weight lies the other way
    round."""
    if isinstance(owner, nn.RNNBase) and owner.mode in GATES:
        return [partial(_gates, order=GATES[owner.mode])]
    turned = isinstance(owner, nn.Linear | nn.MultiheadAttention)
    parts = fused(owner)
    return [partial(_part, part=part, parts=parts, turned=turned) for part in range(parts)]


def fused(owner: nn.Module) -> int:
    """How many of ours: queries, keys and values are one in PyTorch's attention, and in transformers' ``Conv1D`` three times as wide
    as it is high."""
    if isinstance(owner, nn.MultiheadAttention):
        return 3
    thrice = type(owner).__name__ == "Conv1D" and owner.weight.shape[1] == 3 * owner.weight.shape[0]  # type: ignore[operator, union-attr, index]
    return 3 if thrice else 1


def _gates(array: Array, *, order: tuple[int, ...]) -> Array:
    gates = np.split(array, len(order))
    return np.concatenate([gates[gate] for gate in order])


def _part(array: Array, *, part: int, parts: int, turned: bool) -> Array:
    return np.split(array.T if turned else array, parts, axis=-1)[part] if array.ndim else array
