"""Which samples a batch is made of: a part of them, in an order."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vgcompile.errors import DataError, Fault
from vgcompile.initial import stream
from vgcompile.runtime.data.samples import Array
from vgcompile.spec.data import Shuffle, Split

PartName = Literal["train", "validation"]


def part_of(count: int, split: Split | None, part: PartName, what: str) -> Array:
    """The positions of a part's samples, in the file's order; without a split all are for training.

    Raises DataError where there is no such part, or too little to divide.
    """
    if split is None:
        if part == "validation":
            raise DataError(f"{what}: no samples are set apart for validation; state split: {{validation: 0.2}}")
        return np.arange(count)
    if count < 2:
        raise DataError(Fault(f"{what}: {count} samples cannot be split into two parts", field="split"))
    held = min(max(round(split.validation * count), 1), count - 1)
    order = stream(split.seed, "split").permutation(count)
    return np.sort(order[:held] if part == "validation" else order[held:])


def first(rows: Array, size: int | None, shuffle: Shuffle | None, what: str, whole: str) -> Array:
    """The first ``size`` of ``rows``, or all of them, after the shuffle. Raises DataError where ``whole`` holds too few."""
    if size is not None and size > len(rows):
        found = f"{what}: a batch of {size} samples is asked for, {whole} holds {len(rows)}"
        raise DataError(Fault(found, f"take --batch {len(rows)}, or fewer", field="batch"))
    order = rows if shuffle is None else rows[stream(shuffle.seed, "shuffle").permutation(len(rows))]
    return order[:size]
