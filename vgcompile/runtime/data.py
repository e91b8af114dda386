"""A batch for a network: from a file that is named, from the network's own file, or drawn from what each input declares.

Arrays come from .npz files without pickled objects. A drawn input's random stream is keyed by seed and input name, so that one
more input changes no other.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vgcompile.errors import DataError
from vgcompile.graph.network import DataFile, Input, Network
from vgcompile.initial import stream

Array = np.ndarray[Any, Any]
Rows = Literal["first", "random"]

DRAWN = 64  # samples in a batch that nobody sized


def batch(
    network: Network, *, file: str | None = None, size: int | None = None, seed: int = 0, rows: Rows = "first"
) -> dict[str, Array]:
    """One array for each input of ``network``, targets included, in the input's own type and with ``size`` samples.

    ``file`` is an .npz file with an array for each input, by the input's name or by the name that the network's own data give it;
    all of its samples are taken where ``size`` is None. Without ``file`` the network's own data file is read; where there is
    none, the inputs are drawn. ``rows`` takes the first samples of a file, or random ones of ``seed``.

    Raises DataError naming array, expected and found.
    """
    if size is not None and size < 1:
        raise DataError(f"a batch of {size} samples; it needs at least 1")
    if file is not None:
        return _read(network, Path(file), network.data, size, seed, rows)
    if network.data is not None:
        path = Path(network.source).parent / network.data.path
        return _read(network, path, network.data, network.data.batch if size is None else size, seed, rows)
    return {name: draw(declared, _drawn_size(network, size), seed) for name, declared in network.inputs.items()}


def draw(declared: Input, size: int, seed: int) -> Array:
    """``size`` samples of one input from its declared distribution. Raises DataError where it declares too little."""
    shape = _sized(declared, size)
    rng = stream(seed, declared.name)
    dtype = declared.dtype.numpy()
    if declared.distribution == "classes" or not declared.dtype.is_floating_point():
        if declared.classes is None:
            raise DataError(
                f"input {declared.name!r} holds {declared.dtype.name} numbers of unknown range; give it with --data FILE.npz"
            )
        return rng.integers(0, declared.classes, shape).astype(dtype)
    if declared.distribution == "uniform":
        if declared.range is None:
            raise DataError(f"input {declared.name!r} is uniform over a range that it does not state; give it a range")
        return rng.uniform(*declared.range, shape).astype(dtype)
    return rng.normal(declared.mean, declared.sd, shape).astype(dtype)


def _drawn_size(network: Network, size: int | None) -> int:
    """A model of fixed batch size wants just that one."""
    fixed = [declared.shape[0] for declared in network.inputs.values() if declared.shape and isinstance(declared.shape[0], int)]
    if size is None:
        return int(fixed[0]) if fixed else DRAWN
    if fixed and fixed[0] != size:
        raise DataError(f"the model's batch is fixed at {fixed[0]} samples; --batch {size} does not fit")
    return size


def _sized(declared: Input, size: int) -> tuple[int, ...]:
    """The shape with the batch filled in. Raises DataError for a second symbol."""
    symbols = dict.fromkeys(dim for dim in declared.shape if isinstance(dim, str))
    if len(symbols) > 1:
        free = list(symbols)[1]
        raise DataError(
            f"input {declared.name!r} has shape {_show(declared.shape)} of unknown {free}; give it with --data FILE.npz"
        )
    return tuple(size if isinstance(dim, str) else dim for dim in declared.shape)


def _read(network: Network, path: Path, data: DataFile | None, size: int | None, seed: int, rows: Rows) -> dict[str, Array]:
    arrays = _open(path)
    found = {name: _array(declared, arrays, data, path) for name, declared in network.inputs.items()}
    pick = _picker(found, size, seed, rows, path)
    return {name: pick(array) if array.ndim else array for name, array in found.items()}


def _open(path: Path) -> dict[str, Array]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path}: one bare array; save the arrays by name with numpy.savez")
        with file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such data file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not an .npz file") from None
    except PermissionError:
        raise DataError(f"{path}: may not be read; check the file's permissions") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):  # ValueError: among others, pickled objects
        raise DataError(f"{path}: not an .npz file of plain arrays; save them with numpy.savez") from None
    foreign = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if foreign is not None:
        raise DataError(f"{path}: {foreign!r} is no NumPy array; save the arrays with numpy.savez")
    return arrays


def _array(declared: Input, arrays: Mapping[str, Array], data: DataFile | None, path: Path) -> Array:
    """The input's array, by the network's own name for it (then scaled as the network says) or by the input's name."""
    mapped = data.arrays.get(declared.name) if data is not None else None
    name = mapped if mapped in arrays else declared.name
    if name is None or name not in arrays:
        wanted, there = mapped or declared.name, ", ".join(arrays) or "nothing"
        raise DataError(f"{path}: no array {wanted!r} for input {declared.name!r}; it holds {there}")
    scale = data.scale if data is not None and name == mapped and declared.role == "input" else 1.0
    return _fitted(declared, arrays[name], scale, f"{path}: array {name!r}")


def _fitted(declared: Input, given: Array, scale: float, what: str) -> Array:
    """In the input's type and shape; samples may come flat, or without axes of extent 1."""
    real = declared.dtype.is_floating_point()
    array = _reshaped(given, declared.shape)
    if array is None or given.dtype.kind not in ("fiub" if real else "iub"):
        expected = f"{declared.dtype.name.lower()} {_show(declared.shape)}"
        raise DataError(f"{what}: input {declared.name!r} needs {expected}, found {given.dtype} {_show(given.shape)}")
    if real:
        with np.errstate(over="ignore"):
            array = (array * scale if scale != 1.0 else array).astype(declared.dtype.numpy())
        if not np.isfinite(array).all():
            raise DataError(f"{what}: holds numbers that are not finite in {declared.dtype.name.lower()}")
        return array
    if declared.classes is not None and array.size and (array.min() < 0 or array.max() >= declared.classes):
        classes = f"classes 0 to {declared.classes - 1}"
        raise DataError(f"{what}: input {declared.name!r} takes {classes}, found {array.min()} to {array.max()}")
    return array.astype(declared.dtype.numpy())


def _reshaped(array: Array, shape: tuple[int | str, ...]) -> Array | None:
    """``array`` in a declared shape, or None where it does not fit.

    Samples that are flat, or that differ by extents of 1, are laid out anew.
    """
    if array.ndim == len(shape) and _agree(array.shape, shape):
        return array
    fixed = [dim for dim in shape[1:] if isinstance(dim, int)]
    if not array.ndim or len(fixed) != len(shape) - 1 or not _agree(array.shape[:1], shape[:1]):
        return None
    flat = array.ndim == 2 and array.shape[1] == math.prod(fixed)
    if flat or [dim for dim in array.shape[1:] if dim != 1] == [dim for dim in fixed if dim != 1]:
        return array.reshape(array.shape[0], *fixed)
    return None


def _agree(found: tuple[int, ...], shape: tuple[int | str, ...]) -> bool:
    """Fixed extents are equal, and equal symbols stand for equal extents."""
    symbols: dict[str, int] = {}
    return all(
        symbols.setdefault(dim, have) == have if isinstance(dim, str) else dim == have
        for have, dim in zip(found, shape, strict=True)
    )


def _picker(found: Mapping[str, Array], size: int | None, seed: int, rows: Rows, path: Path) -> Callable[[Array], Array]:
    """The function that takes the batch's samples from each array.

    Raises DataError where the arrays hold different numbers of samples, or too few.
    """
    counts = {name: array.shape[0] for name, array in found.items() if array.ndim}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path}: arrays of different numbers of samples: {', '.join(f'{name} {count}' for name, count in counts.items())}"
        )
    there = next(iter(counts.values()), 1)
    if there == 0:
        raise DataError(f"{path}: the arrays hold no samples; at least 1 is needed")
    if size is not None and size > there:
        raise DataError(f"{path}: a batch of {size} samples is asked for, the file holds {there}")
    if size is None or rows == "first":
        return lambda array: array[:size]
    picked = np.random.Generator(np.random.PCG64(seed)).choice(there, size, replace=False)
    return lambda array: array[picked]


def _show(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
