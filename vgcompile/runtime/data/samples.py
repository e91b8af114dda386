"""An array whose samples are read when they are wanted, and what becomes of them: the input's shape, type and scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgcompile.errors import DataError, Fault, nearest
from vgcompile.graph.network import Input

Array = np.ndarray[Any, Any]
Shape = tuple[int | str, ...]
CHUNK = 4096  # samples that are held at once where all of them pass by


@dataclass(frozen=True)
class Samples:
    """``shape`` begins with the number of samples. ``take`` reads those at the given positions, in their order, or raises
    DataError; ``place`` says where a sample stands, for messages."""

    what: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    take: Callable[[Array], Array]
    place: Callable[[int], str]

    @classmethod
    def of(cls, array: Array, what: str, place: Callable[[int], str]) -> Samples:
        """Of an array that is there."""
        return cls(what, array.shape, array.dtype, lambda rows: array[rows] if array.ndim else array, place)

    def led(self, axis: int) -> Samples:
        """The same array with its samples, which this axis counts, in front."""
        if not axis or len(self.shape) <= axis:
            return self
        shape = (self.shape[axis], *self.shape[:axis], *self.shape[axis + 1 :])

        def take(rows: Array) -> Array:
            return np.asarray(np.moveaxis(self.take(np.arange(self.shape[0])), axis, 0)[rows])

        what = f"{self.what}, its samples (axis {axis}) first"
        return Samples(what, shape, self.dtype, take, lambda at: f"{self.what}, sample {at}")


@dataclass(frozen=True)
class Affine:
    """x becomes (x - mean) / sd, where mean and sd are numbers, or arrays that fit behind the batch axis."""

    mean: Array
    sd: Array

    def __call__(self, x: Array) -> Array:
        return (x - self.mean) / self.sd


def absent(path: Path, what: str) -> str:
    """That there is nothing at a path, with the nearest name beside it."""
    folder = path.parent
    hint = nearest(path.name, sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else ""
    return f"{path}: no such {what}" + (f"; {hint}" if hint else "")


def fitting(declared: Input, given: Samples) -> tuple[int, ...]:
    """The shape of all samples, as the input wants them: they may come flat, or without axes of extent 1.

    Raises DataError where shape or type do not fit.
    """
    real = declared.dtype.is_floating_point()
    shape = _laid_out(given.shape, declared.shape)
    if shape is None or given.dtype.kind not in ("fiub" if real else "iub"):
        expected = f"{declared.dtype.name.lower()} {show(declared.shape)}"
        found = f"{given.dtype} {show(given.shape)}"
        raise DataError(Fault(f"{given.what}: input {declared.name!r} needs {expected}, found {found}", input=declared.name))
    return shape


def read(declared: Input, given: Samples, rows: Array, scale: float = 1.0, prepare: Affine | None = None) -> Array:
    """The samples at ``rows`` in the input's shape and type, real numbers times ``scale`` and prepared.

    Raises DataError with the place of the first sample that does not fit.
    """
    array, dtype = raw(declared, given, rows), declared.dtype.numpy()
    if declared.dtype.is_floating_point():
        with np.errstate(over="ignore", invalid="ignore"):
            array = array * scale if scale != 1.0 else array
            array = (prepare(array) if prepare is not None else array).astype(dtype)
        if (at := _first(~np.isfinite(array), rows)) is not None:
            found = f"holds numbers that are not finite in {declared.dtype.name.lower()}"
            raise DataError(Fault(f"{given.place(at)}: {found}", input=declared.name))
        return array
    if declared.classes is not None and array.size:
        outside = (array < 0) | (array >= declared.classes)
        if declared.ignored is not None:
            outside &= array != declared.ignored
        if (at := _first(outside, rows)) is not None:
            classes = f"classes 0 to {declared.classes - 1}"
            found = f"found {array.min()} to {array.max()}"
            raise DataError(Fault(f"{given.place(at)}: input {declared.name!r} takes {classes}, {found}", input=declared.name))
    return array.astype(dtype)


def raw(declared: Input, given: Samples, rows: Array) -> Array:
    """The samples at ``rows`` in the input's shape, numbers as they are."""
    shape = fitting(declared, given)
    array = given.take(rows)
    return array.reshape(array.shape[0], *shape[1:]) if array.ndim else array


def chunks(rows: Array) -> Iterator[Array]:
    """``rows`` in pieces that fit into memory."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def show(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _first(wrong: Array, rows: Array) -> int | None:
    """The position of the first sample with something wrong."""
    if not wrong.any():
        return None
    return int(rows[np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0]]) if wrong.ndim else 0


def _laid_out(found: tuple[int, ...], shape: Shape) -> tuple[int, ...] | None:
    if len(found) == len(shape) and _agree(found, shape):
        return found
    fixed = [dim for dim in shape[1:] if isinstance(dim, int)]
    if not found or len(fixed) != len(shape) - 1 or not _agree(found[:1], shape[:1]):
        return None
    flat = len(found) == 2 and found[1] == math.prod(fixed)
    if flat or [dim for dim in found[1:] if dim != 1] == [dim for dim in fixed if dim != 1]:
        return (found[0], *fixed)
    return None


def _agree(found: tuple[int, ...], shape: Shape) -> bool:
    """Fixed extents are equal, and equal symbols stand for equal extents."""
    symbols: dict[str, int] = {}
    return all(
        symbols.setdefault(dim, have) == have if isinstance(dim, str) else dim == have
        for have, dim in zip(found, shape, strict=True)
    )
