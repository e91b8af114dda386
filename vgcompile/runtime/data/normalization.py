"""Inputs brought to a mean and a standard deviation that are stated, or to 0 and 1 over the training part."""

from __future__ import annotations

import numpy as np

from vgcompile.errors import DataError, Fault
from vgcompile.graph.network import Input
from vgcompile.runtime.data.samples import Affine, Array, Samples, chunks, raw
from vgcompile.spec.data import Moments, Normalization


def affine(declared: Input, given: Samples, wanted: Normalization, training: Array, scale: float) -> Affine:
    """The map for one input; ``training`` are the positions that ``standard`` takes its statistics from.

    Raises DataError where a list does not have one number for each entry of axis 1, or where statistics are not finite.
    """
    if isinstance(wanted, Moments):
        return Affine(_spread(declared, wanted.mean, "mean"), _spread(declared, wanted.sd, "sd"))
    return _standard(declared, given, training, scale)


def _spread(declared: Input, stated: float | tuple[float, ...], name: str) -> Array:
    if not isinstance(stated, tuple):
        return np.asarray(stated, np.float64)
    channels = declared.shape[1] if len(declared.shape) > 1 else "no axis 1"
    if channels != len(stated):
        found = f"normalize: {name} of input {declared.name!r} has {len(stated)} numbers, axis 1 has {channels}"
        raise DataError(Fault(found, input=declared.name, field="normalize"))
    return _behind_batch(np.array(stated), len(declared.shape))


def _behind_batch(channels: Array, rank: int) -> Array:
    return channels.reshape(-1, *[1] * (rank - 2))


def _standard(declared: Input, given: Samples, training: Array, scale: float) -> Affine:
    """Mean and standard deviation of each entry of axis 1, piece by piece (Chan, Golub & LeVeque 1979). What does not vary
    is only moved to 0."""
    rank = len(declared.shape)
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for rows in chunks(training):
        x = raw(declared, given, rows).astype(np.float64) * scale
        with np.errstate(over="ignore", invalid="ignore"):
            x = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) if rank > 1 else x.reshape(-1, 1)
            here, far = x.mean(axis=0), x.mean(axis=0) - mean
            total = count + len(x)
            squares = squares + ((x - here) ** 2).sum(axis=0) + far**2 * (count * len(x) / total)
            mean, count = mean + far * (len(x) / total), total
    sd = np.sqrt(squares / count)
    if not np.isfinite(sd).all():
        found = f"{given.what}: normalize: standard needs finite numbers in every sample of the training part"
        raise DataError(Fault(found, input=declared.name, field="normalize"))
    sd = np.where(sd > np.abs(mean) * 1e-12, sd, 1.0)
    return Affine(_behind_batch(mean, rank), _behind_batch(sd, rank)) if rank > 1 else Affine(mean[0], sd[0])
