"""Writing a model: one file, or beside it one of its weights where they are large; as a whole or not at all.

    NAME.onnx           nodes, small tensors
    NAME.onnx.data      large tensors, above 256 MB in all; several models may share one such file

All are written aside and renamed, the weights first: an interrupted command leaves what was there before.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from vgcompile.errors import UserError
from vgcompile.graph.skeleton import IN_MEMORY, Outline, outlined

ALIGNED = 4096  # offsets of tensors, so that a reader may map them
SMALL = 1024  # bytes of a tensor that stays in the model's own file


@dataclass(frozen=True)
class _Placed:
    tensor: ir.TensorProtocol
    offset: int


def save_model(model: ir.Model | Outline, path: str | Path, *, in_one_file: int = IN_MEMORY) -> tuple[Path, ...]:
    """Write ``model`` to ``path``; returns the files that it made.

    Tensors of more than ``in_one_file`` bytes together go to ``path`` with ``.data`` behind it. They are copied one by one, from
    the files that they may lie in, so that a model larger than memory can be written. ``model`` is the same afterwards. Raises
    UserError where the place cannot be written.
    """
    path = Path(path)
    outline = model if isinstance(model, Outline) else outlined(model)
    return save_models({path: outline}, path.with_name(path.name + ".data"), in_one_file=in_one_file)


def save_models(models: Mapping[Path, Outline], data: Path, *, in_one_file: int = IN_MEMORY) -> tuple[Path, ...]:
    """Write several models; returns the files that it made.

    Where the tensors of all, each counted once, are more than ``in_one_file`` bytes, they go to ``data``, beside the models: a
    tensor that models have in common is written once. Raises UserError where the place cannot be written.
    """
    path = next(iter(models))
    try:
        for path in models:
            path.parent.mkdir(parents=True, exist_ok=True)
        placed = _places(tensor for outline in models.values() for tensor in outline.held.values())
        if sum(part.tensor.nbytes for part in placed.values()) <= in_one_file:
            for path, outline in models.items():
                with aside(path) as file:
                    file.write(outline.whole().SerializeToString(deterministic=True))
            return tuple(models)
        with ExitStack() as files:
            for path, outline in models.items():
                content = outline.filled({name: _stored(tensor, placed, data) for name, tensor in outline.held.items()})
                files.enter_context(aside(path)).write(content.SerializeToString(deterministic=True))
            weights = files.enter_context(aside(data))  # the last to be entered takes its place first
            for part in placed.values():
                if part.tensor.nbytes > SMALL:
                    weights.seek(part.offset)
                    _copy(part.tensor, weights)
        return (*models, data)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """Why nothing can be written to ``path``, and what would do."""
    in_the_way = next((above for above in path.parents if above.exists() and not above.is_dir()), None)
    if in_the_way is not None:
        return UserError(
            f"cannot write {path}: {in_the_way} is a file, not a folder; name another place with -o, or move the file"
        )
    if path.is_dir():
        return UserError(f"cannot write {path}: it is a folder; name another place with -o, such as {path}/NAME")
    return UserError(f"cannot write {path}: {error.strerror or error}; name another place with -o")


def _stored(tensor: ir.TensorProtocol, placed: Mapping[int, _Placed], data: Path) -> ir.TensorProtocol:
    part = placed[id(tensor)]
    return tensor if tensor.nbytes <= SMALL else _reference(part, data.name)


def _copy(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)  # from file to file, in pieces
    else:
        file.write(tensor.tobytes())


class aside:
    """What is written within takes the place of ``path`` when the block ends well, and is gone when it does not.

    A link stays one; what is no ordinary file, a device or a pipe, is written to as it is."""

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))

    def __enter__(self) -> BinaryIO:
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._in_place = self._path.exists() and not self._path.is_file()
        if self._in_place:
            self._file = open(self._path, "wb")
        else:
            handle, self._name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            self._file = os.fdopen(handle, "wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._in_place:
            self._file.close()
            return
        try:
            self._file.close()  # what is buffered may not fit on the disk
            if kind is None:
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(self._name, 0o666 & ~umask)  # mkstemp keeps others out, an ordinary file does not
                os.replace(self._name, self._path)
        finally:
            Path(self._name).unlink(missing_ok=True)


def _places(tensors: Iterable[ir.TensorProtocol]) -> dict[int, _Placed]:
    """Each tensor once, by identity, and where it goes, if it is not small."""
    placed: dict[int, _Placed] = {}
    offset = 0
    for tensor in tensors:
        if id(tensor) not in placed:
            placed[id(tensor)] = _Placed(tensor, offset)
            offset += -(-tensor.nbytes // ALIGNED) * ALIGNED if tensor.nbytes > SMALL else 0
    return placed


def _reference(part: _Placed, location: str) -> ir.ExternalTensor:
    """The tensor as it stands in the file of weights."""
    tensor, shape = part.tensor, ir.Shape(part.tensor.shape.numpy())
    return ir.ExternalTensor(location, part.offset, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or "")
