"""A network as every command takes it: THE graph (forward and loss, training mode) and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from vgcompile.errors import Complaint, Mark
from vgcompile.graph.provenance import fact
from vgcompile.initial import Initial

if TYPE_CHECKING:
    from vgcompile.spec.data import Columns, Images, Normalization, Shuffle, Split

Drawn = Literal["normal", "uniform", "classes", "bernoulli", "constant", "linear"]


@dataclass(frozen=True)
class Input:
    """A graph input that data are fed to.

    ``shape`` holds ints and symbols, of which ``batch_axis`` counts samples: the first one of a YAML model. ``range`` is the
    stated set [lo, hi] that every element lies in, or None: anywhere. ``distribution`` is what data are drawn from where none
    are given: ``normal`` (mean, sd), ``uniform`` over the range, ``classes`` each as likely as another, ``bernoulli`` (1 with
    probability mean), ``constant`` (mean), or ``linear``: what a teacher makes of the input ``of``, plus normal noise of standard
    deviation sd.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: ir.DataType
    range: tuple[float, float] | None = None
    distribution: Drawn = "normal"
    mean: float = 0.0
    sd: float = 1.0
    of: str = ""
    classes: int | None = None
    ignored: int | None = None  # a class number beside them, which the loss passes over
    role: Literal["input", "target"] = "input"
    batch_axis: int = 0
    mark: Mark | None = None  # where it is declared

    @property
    def samples(self) -> int | str | None:
        """How many samples it holds: a number or a symbol; None of a scalar."""
        return self.shape[self.batch_axis] if self.shape else None


@dataclass(frozen=True)
class Table:
    """How a .csv file is read: the columns of each input, and the words that are class numbers."""

    columns: Mapping[str, Columns] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    header: bool = True
    delimiter: str | None = None


@dataclass(frozen=True)
class DataFile:
    """Real data: a file and, for each graph input that is read from it, the name of its array in there; ``drawn`` are the others.

    ``path`` is an .npz file, a table, a folder of pictures (then ``images`` is given) or, where the arrays lie ``apart`` in .npy
    files, the folder that their names start from. It is empty where nothing is read.
    """

    path: str
    arrays: Mapping[str, str]
    batch: int = 64
    scale: float = 1.0
    drawn: Sequence[str] = ()
    table: Table = Table()
    images: Images | None = None
    apart: bool = False
    normalize: Mapping[str, Normalization] = field(default_factory=dict)
    shuffle: Shuffle | None = None
    split: Split | None = None
    places: Mapping[tuple[str, ...], Mark] = field(default_factory=dict)  # of its fields in the text, by their path

    def place(self, name: str, asked: str) -> Mark | None:
        """Where the text says what is read, in a field ``asked`` for or in any, for the input ``name``; else where the file is
        named."""
        ways = [(asked, name), (asked,)] if asked else [(way, name) for way in ("columns", "arrays", "files")]
        source = [("file",), ("images", "folder"), ("files",), ()]
        return next((self.places[way] for way in (*ways, *source) if way in self.places), None)


@dataclass(frozen=True)
class Network:
    """``model`` is normalized and not expanded; ``outputs`` are the values that enter the loss, y of docs/architecture.md."""

    name: str
    source: str
    model: ir.Model
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    loss: str | None = None
    parts: tuple[str, ...] = ()  # of the loss, where it is a sum: without their weights
    reduction: str = "mean"
    parameters: tuple[str, ...] = ()
    data: DataFile | None = None
    text: str = ""  # the YAML, for the report
    seed: int = 0
    notes: tuple[str, ...] = field(default=())  # what the loader did, for stderr
    warnings: tuple[Complaint, ...] = ()  # what is suspicious in the text, for `check`

    def sizes(self) -> dict[str, int]:
        """How many numbers each trainable parameter holds; none is drawn for it."""
        tensors = {name: self.model.graph.initializers[name].const_value for name in self.parameters}
        return {name: tensor.size for name, tensor in tensors.items() if tensor is not None}

    def parameter_values(self, seed: int | None = None) -> dict[str, np.ndarray]:
        """Each trainable parameter's array: as it stands in the model or, for a seed, drawn anew from its initial distribution.

        A parameter of a foreign file keeps its value.
        """
        values = {}
        for name in self.parameters:
            value = self.model.graph.initializers[name]
            initial = fact(value, "initial")
            if seed is None or initial is None:
                assert value.const_value is not None
                values[name] = value.const_value.numpy()
            else:
                values[name] = Initial.from_json(initial).draw(name, seed)
        return values
