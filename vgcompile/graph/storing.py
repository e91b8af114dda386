"""Writing a model: one file, or beside it one of its weights where they are large; as a whole or not at all.

    NAME.onnx           nodes, small tensors
    NAME.onnx.data      large tensors, above 256 MB in all

Both are written aside and renamed, the weights first: an interrupted command leaves what was there before.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from vgcompile.errors import UserError
from vgcompile.graph.skeleton import IN_MEMORY, Held, Outline, outlined

ALIGNED = 4096  # offsets of tensors, so that a reader may map them
SMALL = 1024  # bytes of a tensor that stays in the model's own file


@dataclass(frozen=True)
class _Placed:
    name: str
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sum(tensor.nbytes for tensor in outline.held.values()) <= in_one_file:
            with _aside(path) as file:
                file.write(outline.whole().SerializeToString(deterministic=True))
            return (path,)
        data = path.with_name(path.name + ".data")
        placed = _places(outline.held)
        content = outline.filled({**outline.held, **{part.name: _reference(part, data.name) for part in placed}})
        with _aside(data) as weights, _aside(path) as file:
            for part in placed:
                weights.seek(part.offset)
                _copy(part.tensor, weights)
            file.write(content.SerializeToString(deterministic=True))
        return (path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another place with -o") from None


def _copy(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)  # from file to file, in pieces
    else:
        file.write(tensor.tobytes())


class _aside:
    """A file beside ``path`` that takes its place when the block ends well, and is gone when it does not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> BinaryIO:
        handle, self._name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        self._file = os.fdopen(handle, "wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()
        if kind is not None:
            os.unlink(self._name)
            return
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(self._name, 0o666 & ~umask)  # mkstemp keeps others out, an ordinary file does not
        os.replace(self._name, self._path)


def _places(tensors: Held) -> list[_Placed]:
    placed, offset = [], 0
    for name, tensor in tensors.items():
        if tensor.nbytes > SMALL:
            placed.append(_Placed(name, tensor, offset))
            offset += -(-tensor.nbytes // ALIGNED) * ALIGNED
    return placed


def _reference(part: _Placed, location: str) -> ir.ExternalTensor:
    """The tensor as it stands in the file of weights."""
    tensor, shape = part.tensor, ir.Shape(part.tensor.shape.numpy())
    return ir.ExternalTensor(location, part.offset, tensor.nbytes, tensor.dtype, shape=shape, name=part.name)
