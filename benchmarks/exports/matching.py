"""Which element of which PyTorch parameter stands where in the file.

Exporters transpose, stack, reorder, split and repeat weights (an LSTM's gates, a tied embedding), and rename them. Every
parameter element has a value of its own (exporting.py sees to it), so a value found in an initializer says which element it is.
The gradient of a PyTorch parameter is then the sum over all places where its elements stand. What an exporter folded into another
weight is found nowhere, and said to be folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Matching:
    """``places[name]`` are, for each element of an initializer, positions among all parameter elements."""

    places: Mapping[str, Array]
    renamed: int  # initializers that carry another name than what they hold
    rearranged: int  # initializers whose shape or order is another than any parameter's
    constants: tuple[str, ...]  # trainable as the file has it, and no parameter of the module
    starts: Mapping[str, tuple[int, tuple[int, ...]]]
    size: int
    covered: Array

    def folded(self) -> list[str]:
        """Parameters with an element that stands nowhere in the file."""
        return [name for name, (start, shape) in self.starts.items() if not self.covered[start : start + _count(shape)].all()]

    def gathered(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """The file's gradients, in the shapes of the module's parameters."""
        total = np.zeros(self.size)
        for name, where in self.places.items():
            np.add.at(total, where, gradients[name].reshape(-1).astype(np.float64))
        return {name: total[start : start + _count(shape)].reshape(shape) for name, (start, shape) in self.starts.items()}


def match(parameters: Mapping[str, Array], initializers: Mapping[str, Array]) -> Matching:
    """Find the elements of ``parameters`` in ``initializers``."""
    starts, start = {}, 0
    for name, array in parameters.items():
        starts[name] = (start, array.shape)
        start += array.size
    values = np.concatenate([array.reshape(-1) for array in parameters.values()])
    order = np.argsort(values)
    ordered = values[order]
    assert (np.diff(ordered) > 0).all(), "parameter elements are to be unique"
    places, constants, covered, renamed, rearranged = {}, [], np.zeros(start, bool), 0, 0
    for name, array in initializers.items():
        flat = array.reshape(-1).astype(values.dtype)
        found = np.minimum(np.searchsorted(ordered, flat), len(ordered) - 1)
        if flat.size == 0 or not (ordered[found] == flat).all():
            constants.append(name)
            continue
        where = order[found]
        places[name] = where
        covered[where] = True
        begin, _ = starts.get(name, starts.get(name.removeprefix("model."), (-1, ())))
        kept = begin == where[0]
        renamed += not kept
        rearranged += not ((np.diff(where) == 1).all() and array.shape in [s for b, s in starts.values() if b == where[0]])
    return Matching(places, renamed, rearranged, tuple(constants), starts, start, covered)


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
