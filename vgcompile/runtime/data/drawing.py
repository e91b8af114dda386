"""Inputs that are drawn: each from a random stream of its own, so that one more input changes no other."""

from __future__ import annotations

import math

import numpy as np

from vgcompile.errors import DataError, Fault
from vgcompile.graph.network import Input
from vgcompile.initial import stream
from vgcompile.runtime.data.samples import Array, show


def draw(declared: Input, size: int, seed: int, part: str = "") -> Array:
    """``size`` samples of one input from its declared distribution; each ``part`` of the data has other ones.

    Raises DataError where the input declares too little.
    """
    shape = sized(declared, size)
    rng = stream(seed, f"{declared.name}/{part}" if part else declared.name)
    dtype = declared.dtype.numpy()
    if declared.distribution == "classes" or not declared.dtype.is_floating_point():
        if declared.classes is None:
            found = f"input {declared.name!r} holds {declared.dtype.name} numbers of unknown range"
            raise DataError(Fault(found, "give it with --data FILE.npz", declared.name, "inputs"))
        return rng.integers(0, declared.classes, shape).astype(dtype)
    if declared.distribution == "uniform":
        if declared.range is None:
            found = f"input {declared.name!r} is uniform over a range that it does not state"
            raise DataError(Fault(found, "give it a range", declared.name, "inputs"))
        return rng.uniform(*declared.range, shape).astype(dtype)
    if declared.distribution == "bernoulli":
        return (rng.random(shape) < declared.mean).astype(dtype)
    if declared.distribution == "constant":
        return np.full(shape, declared.mean, dtype)
    return rng.normal(declared.mean, declared.sd, shape).astype(dtype)


def taught(declared: Input, x: Array, seed: int, part: str = "") -> Array:
    """What a linear teacher answers to ``x`` [N, ...]: x W + noise, W of variance 1 / (size of a sample), one for all parts.

    An input of class numbers gets the largest of as many answers as it has classes.
    """
    shape = sized(declared, len(x))
    flat = x.reshape(len(x), -1).astype(np.float64)
    answers = math.prod(shape[1:]) * (declared.classes or 1)
    w = stream(seed, f"{declared.name}/teacher").normal(0.0, 1.0 / math.sqrt(max(flat.shape[1], 1)), (flat.shape[1], answers))
    rng = stream(seed, f"{declared.name}/{part}" if part else declared.name)
    y = flat @ w + rng.normal(0.0, declared.sd, (len(x), answers))
    if declared.classes is not None:
        y = y.reshape(len(x), math.prod(shape[1:]), declared.classes).argmax(axis=2)
    return y.reshape(shape).astype(declared.dtype.numpy())


def sized(declared: Input, size: int) -> tuple[int, ...]:
    """The shape with the batch filled in. Raises DataError for a second symbol."""
    symbols = dict.fromkeys(dim for dim in declared.shape if isinstance(dim, str))
    if len(symbols) > 1:
        free = list(symbols)[1]
        found = f"input {declared.name!r} has shape {show(declared.shape)} of unknown {free}"
        raise DataError(Fault(found, "give it with --data FILE.npz", declared.name, "inputs"))
    return tuple(size if isinstance(dim, str) else dim for dim in declared.shape)
