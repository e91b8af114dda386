"""A batch for a network: from a file that is named, from the network's own files, or drawn from what each input declares.

Each format has a file of its own, which makes ``Samples`` of it: arrays that are read sample by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vgcompile.errors import Complaint, DataError, Fault, Note, nearest
from vgcompile.graph.network import DataFile, Input, Network
from vgcompile.rules.data import UNFIT_DATA
from vgcompile.runtime.data.arrays import npz, single
from vgcompile.runtime.data.choosing import PartName, first, part_of
from vgcompile.runtime.data.drawing import draw, taught
from vgcompile.runtime.data.normalization import affine
from vgcompile.runtime.data.samples import Affine, Array, Samples, fitting, read
from vgcompile.runtime.data.table import table
from vgcompile.spec.data import TABLES

__all__ = ["PartName", "batch", "draw"]

DRAWN = 64  # samples in a batch that nobody sized
_NOTHING = DataFile("", {})


def batch(
    network: Network, *, file: str | None = None, size: int | None = None, seed: int = 0, part: PartName | None = None
) -> dict[str, Array]:
    """One array for each input of ``network``, targets included, in the input's own type and with ``size`` samples.

    ``file`` is read in place of the network's own data, whole where ``size`` is None: an .npz file with an array for each input,
    by the input's name or by the name that the network's own data give it, or a table or a folder of pictures like the
    network's own. Without ``file`` the network's own data are read, of these the ``part`` for training or for validation.
    What neither gives is drawn.

    Raises DataError naming the array or the row, expected and found.
    """
    if size is not None and size < 1:
        raise DataError(f"a batch of {size} samples; it needs at least 1")
    led = replace(network, inputs={name: _led(declared) for name, declared in network.inputs.items()})
    found = _batch(led, file, size, seed, part)
    return {name: _back(array, network.inputs[name].batch_axis) for name, array in found.items()}


def _back(array: Array, axis: int) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array


def _led(declared: Input) -> Input:
    """The input with its samples in front, as everything below has it."""
    axis, shape = declared.batch_axis, declared.shape
    return replace(declared, shape=(*shape[axis : axis + 1], *shape[:axis], *shape[axis + 1 :]))


def _batch(network: Network, file: str | None, size: int | None, seed: int, part: PartName | None) -> dict[str, Array]:
    own = network.data or _NOTHING
    if file is not None:
        if part is not None:
            raise DataError(f"--part {part} divides the model's own data; leave it out, or --data {file}")
        return _read(
            network, network.inputs, Path(file), replace(own, apart=False, split=None, shuffle=None), size, seed, None, False
        )
    try:
        return _own(network, own, size, seed, part)
    except DataError as error:
        raise _located(network, own, error) from None


def _located(network: Network, data: DataFile, error: DataError) -> DataError:
    """The error at the places of the model's text that ask for what is wrong; as it is where one is unknown."""
    complaints = []
    for fault in error.faults:
        declared = network.inputs[fault.input].mark if fault.input in network.inputs else None
        mark = declared if fault.field == "inputs" else data.place(fault.input, fault.field)
        if mark is None:
            return error
        shown = [Note(f"input {fault.input!r}", declared)] if declared not in (None, mark) else []
        complaints.append(Complaint(mark, fault.message, fault.hint, UNFIT_DATA, fault.notes or tuple(shown)))
    return DataError(*error.faults, complaints=complaints)


def _own(network: Network, own: DataFile, size: int | None, seed: int, part: PartName | None) -> dict[str, Array]:
    """A batch of the network's own data; all of it drawn where it names none."""
    if own.path:
        path = Path(network.source).parent / own.path
        inputs = {name: declared for name, declared in network.inputs.items() if name not in own.drawn}
        return _read(network, inputs, path, own, own.batch if size is None else size, seed, part, True)
    if part is not None:
        raise DataError(f"--part {part}: the model names no data files to divide; its inputs are drawn")
    count = _drawn_size(network, size or (network.data.batch if network.data is not None else None))
    return _completed(network, {}, count, seed, "")


@dataclass(frozen=True)
class _Given:
    """What one input is read from; ``ready`` where its numbers are taken as they are."""

    declared: Input
    samples: Samples
    ready: bool


def _read(
    network: Network,
    inputs: Mapping[str, Input],
    path: Path,
    data: DataFile,
    size: int | None,
    seed: int,
    part: PartName | None,
    own: bool,
) -> dict[str, Array]:
    """``inputs`` are those that may be read; the others are drawn."""
    given = _given(inputs, path, data, own)
    for one in given.values():
        fitting(one.declared, one.samples)
    count = _count(given, path)
    training = part_of(count, data.split, "train", str(path))
    wanted: PartName = part or "train"
    whole = "the file" if data.split is None else f"the {wanted} part"
    rows = first(part_of(count, data.split, wanted, str(path)), size, data.shuffle, str(path), whole)
    feeds = {}
    for name, one in given.items():
        scale = data.scale if one.declared.role == "input" and not one.ready else 1.0
        prepare = _prepare(one, data, training, scale)
        feeds[name] = read(one.declared, one.samples, rows, scale, prepare)
    return _completed(network, feeds, len(rows), seed, part if part == "validation" else "")


def _prepare(given: _Given, data: DataFile, training: Array, scale: float) -> Affine | None:
    wanted = data.normalize.get(given.declared.name)
    return affine(given.declared, given.samples, wanted, training, scale) if wanted is not None and not given.ready else None


def _given(inputs: Mapping[str, Input], path: Path, data: DataFile, own: bool) -> dict[str, _Given]:
    """What each input is read from. One that is drawn as a rule is read where the file has it; a file that is not the model's
    ``own`` may call arrays by the inputs' names."""
    arrays = _arrays(path, data, {name: declared for name, declared in inputs.items() if name not in data.drawn})
    given = {}
    for name, declared in inputs.items():
        mapped = data.arrays.get(name)
        found = mapped if mapped is not None and (own or mapped in arrays) else name
        if found in arrays:
            as_it_is = path.suffix.lower() == ".npz" or data.apart
            samples = arrays[found].led(declared.batch_axis) if as_it_is else arrays[found]
            given[name] = _Given(declared, samples, ready=found != mapped)
        elif name not in data.drawn:
            hint = nearest(mapped or name, arrays)
            there = (f"{hint} " if hint else "") + f"it holds {', '.join(arrays) or 'nothing'}"
            raise DataError(Fault(f"{path}: no array {mapped or name!r} for input {name!r}", there, name))
    return given


def _arrays(path: Path, data: DataFile, inputs: Mapping[str, Input]) -> Mapping[str, Samples]:
    if data.apart:
        return {file: _apart(path / file, name) for name, file in data.arrays.items()}
    if path.suffix.lower() in TABLES:
        return table(path, data.table, inputs)
    if data.images is not None and path.suffix.lower() != ".npz":
        from vgcompile.runtime.data.images import images

        return images(path, data.images)
    return npz(path)


def _apart(path: Path, name: str) -> Samples:
    try:
        return single(path)
    except DataError as error:
        raise error.about(name) from None


def _count(given: Mapping[str, _Given], path: Path) -> int:
    """The number of samples. Raises DataError where arrays hold different numbers of them, or none."""
    counts = {name: one.samples.shape[0] for name, one in given.items() if one.samples.shape}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{path}: arrays of different numbers of samples: {listed}")
    there = next(iter(counts.values()), 1)
    if there == 0:
        raise DataError(f"{path}: the arrays hold no samples; at least 1 is needed")
    return there


def _completed(network: Network, feeds: Mapping[str, Array], size: int, seed: int, part: str) -> dict[str, Array]:
    """``feeds``, and what is drawn for the other inputs: first what a teacher may read, then its answers."""
    inputs = network.inputs
    drawn = {
        name: draw(declared, size, seed, part)
        for name, declared in inputs.items()
        if name not in feeds and declared.distribution != "linear"
    }
    known = {**feeds, **drawn}
    return {
        name: known[name] if name in known else taught(declared, known[declared.of], seed, part)
        for name, declared in inputs.items()
    }


def _drawn_size(network: Network, size: int | None) -> int:
    """A model of fixed batch size wants just that one."""
    fixed = [declared.shape[0] for declared in network.inputs.values() if declared.shape and isinstance(declared.shape[0], int)]
    if size is None:
        return int(fixed[0]) if fixed else DRAWN
    if fixed and fixed[0] != size:
        other = "" if network.text else "; where another axis counts the samples, --batch-axis names it"
        raise DataError(f"the model's batch is fixed at {fixed[0]} samples; --batch {size} does not fit{other}")
    return size
