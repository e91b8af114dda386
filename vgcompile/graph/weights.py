"""Files of weights: what tensors they hold, and which of them is which parameter. Numbers are read when they are used.

    conv1.weight [64, 3, 7, 7]  --  map: {"conv1.weight": "stem/weight"}  -->  stem/weight

Of ``.npz``, ``.safetensors`` and ``.onnx`` files names and shapes are read first, so that a file of any size is judged at once.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from vgcompile.errors import UserError, nearest
from vgcompile.graph.skeleton import stripped
from vgcompile.layers.pattern import matches

Array = np.ndarray[Any, Any]
LISTED = 4  # names in one complaint
KINDS = (".npz", ".safetensors", ".onnx")
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, DecodeError, onnx.checker.ValidationError)


@dataclass(frozen=True)
class Stored:
    """A tensor of a file; ``real`` says whether it holds real numbers."""

    shape: tuple[int, ...]
    real: bool
    read: Callable[[], Array]


@dataclass(frozen=True)
class Flaw:
    """One thing that does not fit; ``key`` is the entry of the map that it is about."""

    message: str
    hint: str = ""
    key: str = ""


@dataclass(frozen=True)
class Matched:
    """A tensor for each parameter that has one, turned already where that was asked for."""

    tensors: Mapping[str, Stored] = field(default_factory=dict)
    flaws: tuple[Flaw, ...] = ()


def open_weights(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name. Raises UserError where it is missing, unreadable or of no known kind."""
    readers = {".npz": _npz, ".safetensors": _safetensors, ".onnx": _onnx}
    if path.suffix not in readers:
        raise UserError(f"{path.name} is no file of weights; give one of {', '.join(KINDS)}")
    if path.is_dir() or not path.exists():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}; the path starts from the model file's folder")
    try:
        tensors = readers[path.suffix](path)
        if not tensors:
            raise ValueError("it holds no tensors")
        return tensors
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a {path.suffix} file that can be read: {reason}") from None


def numbers(tensor: Stored, what: str) -> Array:
    """The tensor in float32. Raises UserError where it cannot be read, or holds what is not finite."""
    try:
        array = tensor.read()
    except _UNREADABLE as error:
        raise UserError(f"{what} cannot be read: {' '.join(str(error).split())}") from None
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{what} holds numbers that are not finite in float32")
    return array


def _npz(path: Path) -> dict[str, Stored]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = header(file)
            name = member.removesuffix(".npy")
            found[name] = Stored(tuple(shape), dtype.kind == "f", partial(_array_of, path, name))
    return found


def _array_of(path: Path, name: str) -> Array:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Array:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_tensor(name))

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Stored(tuple(part.get_shape()), part.get_dtype() in ("F16", "BF16", "F32", "F64"), partial(read, name))
                for name, part in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _onnx(path: Path) -> dict[str, Stored]:
    _, held = stripped(onnx.load(path, load_external_data=False), path.parent)
    return {
        name: Stored(tuple(tensor.shape.numpy()), tensor.dtype.is_floating_point(), tensor.numpy) for name, tensor in held.items()
    }


def matched(
    stored: Mapping[str, Stored],
    wanted: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str | None],
    transposed: Sequence[str],
    strict: bool,
) -> Matched:
    """Which tensor is which of the ``wanted`` parameters (name -> shape).

    A tensor has its own name, ``.`` for ``/``, or the one that the first entry of ``names`` gives it whose pattern takes it; None
    leaves it out. Matrices of parameters that a pattern of ``transposed`` takes are turned. With ``strict`` every parameter and
    every tensor has to be used.
    """
    pairs, left_out, flaws = _paired(stored, wanted, names)
    tensors: dict[str, Stored] = {}
    for theirs, ours in pairs:
        if ours in tensors:
            flaws.append(Flaw(f"{theirs!r} is the second tensor for {ours!r}", "let the map tell them apart"))
        turned = any(matches(pattern, ours) for pattern in transposed)
        tensor = _turned(stored[theirs]) if turned else stored[theirs]
        tensors[ours] = tensor
        flaws += _misfit(theirs, stored[theirs], ours, tensor.shape, wanted[ours])
    if strict:
        used = {theirs for theirs, _ in pairs} | left_out
        missing, unused = [name for name in wanted if name not in tensors], [name for name in stored if name not in used]
        flaws += _unmatched(missing, unused)
    idle = [pattern for pattern in transposed if not any(matches(pattern, name) for name in wanted)]
    flaws += [Flaw(f"transpose: {pattern!r} takes no parameter", nearest(pattern, wanted)) for pattern in idle]
    return Matched(tensors, tuple(flaws))


def _paired(
    stored: Mapping[str, Stored], wanted: Mapping[str, object], names: Mapping[str, str | None]
) -> tuple[list[tuple[str, str]], set[str], list[Flaw]]:
    """(tensor, parameter) by name, the tensors that the map leaves out, and entries of the map that lead nowhere."""
    pairs, left_out, flaws = [], set(), []
    own, used = {_dotted(name): name for name in wanted}, set()
    for theirs in stored:
        key = next((pattern for pattern in names if matches(pattern, theirs)), None)
        if key is None:
            if (ours := own.get(_dotted(theirs))) is not None:
                pairs.append((theirs, ours))
            continue
        used.add(key)
        target = names[key]
        if target is None:
            left_out.add(theirs)
            continue
        named = _named(key, target, theirs)
        if (ours := own.get(_dotted(named))) is not None:
            pairs.append((theirs, ours))
        else:
            flaws.append(Flaw(f"{theirs!r} is to be {named!r}, which the model lacks", nearest(named, wanted), key))
    for pattern in names:
        if pattern not in used:
            flaws.append(Flaw(f"{pattern!r} takes no tensor", nearest(pattern, stored) or _list(stored), pattern))
    return pairs, left_out, flaws


def _named(pattern: str, target: str, name: str) -> str:
    """``target`` with what each ``*`` of the pattern stands for in ``name`` in the place of its own, in order; ``*+1`` and
    ``*-1`` are a number moved on, for frameworks that count from 0."""
    parts = re.split(r"(\*)", _dotted(pattern))
    found = re.fullmatch("".join("(.*)" if part == "*" else re.escape(part) for part in parts), _dotted(name))
    stars = iter(found.groups() if found is not None else ())

    def filled(star: re.Match[str]) -> str:
        text = next(stars, "*")
        return str(int(text) + int(star[1])) if star[1] and text.isdigit() else text

    return re.sub(r"\*([+-]\d+)?", filled, target)


def _turned(tensor: Stored) -> Stored:
    if len(tensor.shape) != 2:
        return tensor
    return Stored(tensor.shape[::-1], tensor.real, lambda: tensor.read().T)


def _misfit(theirs: str, stored: Stored, ours: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[Flaw]:
    if not stored.real:
        return [Flaw(f"{theirs!r} holds no real numbers, {ours!r} takes them")]
    if shape == wanted:
        return []
    hint = ""
    if len(wanted) == 2 and shape == wanted[::-1]:
        hint = f"list {ours!r} under transpose:" if shape == stored.shape else f"do not list {ours!r} under transpose:"
    turned = "" if shape == stored.shape else ", turned,"
    return [Flaw(f"{theirs!r} {list(shape)}{turned} does not fit {ours!r} {list(wanted)}", hint)]


def _unmatched(missing: Sequence[str], unused: Sequence[str]) -> list[Flaw]:
    flaws = []
    if missing:
        near = [f"{name!r} ({hint})" if (hint := nearest(_dotted(name), unused)) else repr(name) for name in missing[:LISTED]]
        flaws.append(Flaw(f"no tensor for {_and_more(near, missing)}", "name it under map:, or state strict: false"))
    if unused:
        names = [repr(name) for name in unused[:LISTED]]
        flaws.append(
            Flaw(
                f"no parameter for {_and_more(names, unused)}",
                "map it to one, or to null to leave it out, or state strict: false",
            )
        )
    return flaws


def _and_more(shown: Sequence[str], all_of_them: Sequence[str]) -> str:
    rest = len(all_of_them) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return f"it holds {_and_more(names[:LISTED], names)}" if names else "it holds none"


def _dotted(name: str) -> str:
    return name.replace("/", ".")
