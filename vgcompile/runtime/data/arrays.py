""".npz and .npy files without pickled objects. Of an array in C order only the samples that are wanted are read."""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from vgcompile.errors import DataError
from vgcompile.runtime.data.samples import Array, Samples, absent

_PIECE = 2**18  # bytes
Opener = Callable[[ExitStack], IO[bytes]]
# What reading a broken file raises. A header is Python text to NumPy, which reads it by tokens and by syntax tree; an unknown zip
# method is a NotImplementedError, text nested too deep a RecursionError.
_OF_TEXT = (SyntaxError, TokenError, TypeError, KeyError, IndexError, RuntimeError)
_OF_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_BROKEN = (OSError, EOFError, ValueError, OverflowError, *_OF_TEXT, *_OF_ZIP)


def npz(path: Path) -> Mapping[str, Samples]:
    """The arrays of an .npz file, by name. Raises DataError for a file that is none."""
    with _readable(path, f"{path}: not an .npz file of plain arrays; save them with numpy.savez"):
        if not zipfile.is_zipfile(path):
            if _is_npy(path):
                raise DataError(f"{path}: one bare array; save the arrays by name with numpy.savez")
            raise ValueError
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
    found = {}
    for member, size in sizes.items():
        name = member.removesuffix(".npy")
        found[name] = _samples(partial(_member, path, member), size, f"{path}: array {name!r}")
    return found


def single(path: Path) -> Samples:
    """The array of an .npy file. Raises DataError for a file that is none."""
    with _readable(path, f"{path}: not an .npy file; save the array with numpy.save"):
        size = path.stat().st_size
        if not _is_npy(path):
            raise ValueError
    return _samples(lambda stack: stack.enter_context(path.open("rb")), size, str(path))


def _member(path: Path, name: str, stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(name))


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX


def _samples(opened: Opener, size: int, what: str) -> Samples:
    """Raises DataError for what is no array of numbers, or shorter than it says."""
    complaint = f"{what} is no NumPy array; save plain arrays of numbers with numpy.save or numpy.savez"
    with _readable(None, complaint), ExitStack() as stack:
        file = opened(stack)
        shape, fortran, dtype = _header(file)
        start = file.tell()
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled objects, not an .npz file of plain arrays; save them with numpy.savez")
    if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize > size:
        raise DataError(f"{what} is cut off: it should hold {list(shape)} {dtype}; save it again")

    def take(rows: Array) -> Array:
        with _readable(None, f"{what} is damaged, or does not fit into memory; save it again"), ExitStack() as stack:
            file = opened(stack)
            if fortran or not shape:
                array: Array = npy.read_array(file, allow_pickle=False)
                return array[rows] if shape else array
            return _rows(file, start, shape[1:], dtype, rows)

    return Samples(what, shape, dtype, take, lambda row: f"{what}, sample {row}" if shape else what)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"NPY format {version}: only names of fields need a newer one than 2.0, and tables have no place here")


def _rows(file: IO[bytes], start: int, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Array) -> Array:
    """The samples at ``rows``: those that stand beside each other in one read, in the file's order."""
    wanted, where = np.unique(rows, return_inverse=True)
    each = math.prod(shape) * dtype.itemsize
    content = bytearray()
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1) if len(wanted) else ():
        _forward(file, start + int(run[0]) * each)
        content += file.read(len(run) * each)
    if len(content) != len(wanted) * each:
        raise EOFError
    array = np.frombuffer(content, dtype).reshape(len(wanted), *shape) if each else np.empty((len(wanted), *shape), dtype)
    return array[where]


def _forward(file: IO[bytes], position: int) -> None:
    """A zip member has no other way on than reading, and its own ``seek`` does that in pieces of 16 MB."""
    if not isinstance(file, zipfile.ZipExtFile):
        file.seek(position)
        return
    while (left := position - file.tell()) > 0 and file.read(min(left, _PIECE)):
        pass


@contextmanager
def _readable(path: Path | None, otherwise: str) -> Iterator[None]:
    """Turns what reading raises into DataError: by what is at ``path``, or else in the words of ``otherwise``."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(absent(path, "data file") if path is not None else otherwise) from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not an .npz file" if path is not None else otherwise) from None
    except PermissionError:
        raise DataError(f"{path}: may not be read; check the file's permissions" if path is not None else otherwise) from None
    except (*_BROKEN, MemoryError):
        raise DataError(otherwise) from None
