"""Statistics of the data that a network is fed: of given arrays, or of each input's declared distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vgcompile.graph.network import Input, Network
from vgcompile.ops import lookup
from vgcompile.ops.moments import role
from vgcompile.signal import Signal

Array = np.ndarray[Any, Any]
LARGEST_GRAM = 1024  # samples of the data that the alignment is taken from


def input_signals(network: Network, feeds: Mapping[str, Array] | None) -> dict[str, Signal]:
    """Statistics of the data: of the given arrays, or else of each input's declared distribution. Of given class numbers, how
    often two are the same, as the moment of a onehot vector."""
    read_by_kernels = _kernels_read(network)
    classes = {
        name: _of_classes(_led(feeds[name], declared))
        for name, declared in network.inputs.items()
        if feeds is not None and name in feeds and declared.classes is not None and not declared.dtype.is_floating_point()
    }
    return classes | {
        name: _of_array(_led(feeds[name], declared), name in read_by_kernels)
        if feeds is not None and name in feeds
        else _of_distribution(declared.mean, declared.sd)
        for name, declared in network.inputs.items()
        if declared.dtype.is_floating_point()
    }


def _led(x: Array, declared: Input) -> Array:
    return np.moveaxis(x, declared.batch_axis, 0) if declared.batch_axis else x


def _of_distribution(mean: float, sd: float) -> Signal:
    return Signal(mean, mean * mean + sd * sd, mean * mean, mean * mean)


def _of_classes(x: Array) -> Signal:
    """Class numbers [N, positions...]: the shares of pairs, of two positions of a sample and of two samples, that are equal."""
    rows = x.reshape(len(x), -1)[:LARGEST_GRAM]
    n, p = rows.shape
    _, numbers = np.unique(rows, return_inverse=True)
    counts = np.zeros((n, int(numbers.max(initial=0)) + 1))
    np.add.at(counts, (np.arange(n)[:, None], numbers.reshape(n, p)), 1.0)
    inside = float((counts**2).sum()) - n * p
    every = float((counts.sum(0) ** 2).sum()) - n * p
    within = inside / (n * p * (p - 1)) if p > 1 else 1.0
    across = (every - inside) / (n * (n - 1) * p * p) if n > 1 else within
    return Signal(0.0, 1.0, within, across)


def _kernels_read(network: Network) -> set[str]:
    """Inputs [batch, channels, positions] of a kernel of the same rank: their features are the second axis, not the last. What
    goes step by step has its weights by direction, and no kernel."""
    kernels = set(network.model.graph.initializers.values())
    ranked = {v: len(v.shape) for v in (*network.model.graph.inputs, *kernels) if v.shape is not None}
    return {
        value.name or ""
        for value in network.model.graph.inputs
        if any(
            v is not None and ranked.get(v) == ranked.get(value)
            for node in value.consumers()
            if (row := lookup(node.op_type, node.domain)) is None or row.through is None
            for v in node.inputs
            if v in kernels
        )
    }


def _of_array(x: Array, kernel: bool = False) -> Signal:
    """Moments of a batch, its axes read by ``role``; cross terms over pairs of distinct samples and positions."""
    features = [axis for axis in range(1, x.ndim) if (axis == 1 if kernel else role(x.shape, axis) == "features")]
    x = np.moveaxis(x.astype(np.float64), features, range(1, 1 + len(features)))
    x = x.reshape(*x.shape[:2], -1) if x.ndim > 1 else x.reshape(-1, 1, 1)
    n, _, p = x.shape
    square = float((x * x).mean())
    across = float(((x.sum(axis=0) ** 2).mean() - n * square) / (n * (n - 1))) if n > 1 else float(x.mean() ** 2)
    within = float(((x.sum(axis=2) ** 2).mean() - p * square) / (p * (p - 1))) if p > 1 else square
    return Signal(float(x.mean()), square, within, across, _alignment(x))


def _alignment(x: Array) -> float:
    """E[cos^2] between the centred samples of a batch [N, features, positions], each position a sample of its own, above the
    1/(N - 1)^2 that centring alone makes."""
    vectors = np.moveaxis(x, 1, 2).reshape(-1, x.shape[1])[:LARGEST_GRAM]
    vectors = vectors - vectors.mean(axis=0)
    gram = vectors @ vectors.T
    n, total = len(gram), float(np.trace(gram))
    if n < 2 or total <= 0:
        return 0.0
    cosines = float((gram**2).sum() - (np.diag(gram) ** 2).sum()) * n / ((n - 1) * total**2)
    return max(cosines - 1.0 / (n - 1) ** 2, 0.0)
