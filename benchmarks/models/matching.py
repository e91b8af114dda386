"""Which parameter of a PyTorch module is which of ours, without a list of names: both are used in the same order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

# The gates of PyTorch in the order of ONNX: i, o, f, c from i, f, g, o; z, r, h from r, z, n
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


@dataclass(frozen=True)
class Counterpart:
    """Where PyTorch holds a parameter of ours: ``read`` brings theirs, or its gradient, to our layout."""

    theirs: nn.Parameter
    read: Callable[[Array], Array]


def matched(network: Network, module: nn.Module, x: torch.Tensor) -> dict[str, Counterpart]:
    """Each parameter of ours with the first of PyTorch's, as they are called for ``x``, that has its shape and is left. Axes of
    extent 1 do not count where no shape is the same.

    Raises LookupError where either side has a parameter that the other has not.
    """
    left = called(module, x)
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
    """What stands for parameters of ours, in the order in which PyTorch's modules are called. One that is never called, but read
    by a module around it, has that one's place."""
    order: list[nn.Module] = []
    hooks = [part.register_forward_pre_hook(lambda called, _: order.append(called)) for part in module.modules()]
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


def layouts(owner: nn.Module) -> list[Callable[[Array], Array]]:
    """How ours are read from a parameter of theirs: what a module fuses are several of ours; a dense weight is turned."""
    if isinstance(owner, nn.RNNBase) and owner.mode in GATES:
        return [partial(_gates, order=GATES[owner.mode])]
    turned = isinstance(owner, nn.Linear | nn.MultiheadAttention)
    parts = fused(owner)
    return [partial(_part, part=part, parts=parts, turned=turned) for part in range(parts)]


def fused(owner: nn.Module) -> int:
    """How many of ours: attention has queries, keys and values in one, and so has transformers' ``Conv1D`` [n, 3n]."""
    if isinstance(owner, nn.MultiheadAttention):
        return 3
    if type(owner).__name__ != "Conv1D":
        return 1
    before, after = owner.get_parameter("weight").shape
    return 3 if after == 3 * before else 1


def _gates(array: Array, *, order: tuple[int, ...]) -> Array:
    gates = np.split(array, len(order))
    return np.concatenate([gates[gate] for gate in order])


def _part(array: Array, *, part: int, parts: int, turned: bool) -> Array:
    return np.split(array.T if turned else array, parts, axis=-1)[part] if array.ndim else array
