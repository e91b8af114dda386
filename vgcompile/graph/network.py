"""A network as every command takes it: THE graph (forward and loss, training mode) and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from vgcompile.graph.provenance import fact
from vgcompile.initial import Initial


@dataclass(frozen=True)
class Input:
    """A graph input that data are fed to.

    ``shape`` holds ints and symbols (the first symbol is the batch). ``range`` is the stated set [lo, hi] that every element
    lies in, or None: anywhere. ``distribution`` is what data are drawn from where none are given: ``normal`` (mean 0, sd 1),
    ``uniform`` over the range, or for integers uniform over ``classes``.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: ir.DataType
    range: tuple[float, float] | None = None
    distribution: Literal["normal", "uniform", "classes"] = "normal"
    mean: float = 0.0
    sd: float = 1.0
    classes: int | None = None
    role: Literal["input", "target"] = "input"


@dataclass(frozen=True)
class DataFile:
    """Real data: an .npz file and, for each graph input, the name of its array in there."""

    path: str
    arrays: Mapping[str, str]
    batch: int = 64
    scale: float = 1.0


@dataclass(frozen=True)
class Network:
    """``model`` is normalized and not expanded; ``outputs`` are the values that enter the loss, y of docs/architecture.md."""

    name: str
    source: str
    model: ir.Model
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    loss: str | None = None
    reduction: str = "mean"
    parameters: tuple[str, ...] = ()
    data: DataFile | None = None
    text: str = ""  # the YAML, for the report
    seed: int = 0
    notes: tuple[str, ...] = field(default=())  # what the loader did, for stderr

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
