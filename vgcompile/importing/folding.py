"""Layers that repeat are written once: runs of equal units become blocks.

    dense norm relu dense norm relu ... (20 times)   ->   {kind: block, repeat: 20, layers: [dense, norm, relu]}

Units are equal where their kinds, fields and wires are, each reading what the unit before it gives. What is inside of one must be
read from inside alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgcompile.importing.layers import Read, Stack
from vgcompile.layers import LAYERS

FEWEST_COPIES = 3  # of a single layer
FEWEST_LAYERS = 4  # of two copies
LONGEST_UNIT = 64  # layers: the search takes their square for each layer


@dataclass(frozen=True)
class Run:
    """``copies`` units of ``size`` layers each, from the layer at ``start`` on; a layer that does not repeat is one of one."""

    start: int
    size: int = 1
    copies: int = 1

    @property
    def end(self) -> int:
        return self.start + self.size * self.copies


def runs(stack: Stack) -> list[Run]:
    """The stack cut into runs, from the front: each time the one that covers the most layers, of the shortest unit."""
    readers = _readers(stack)
    found, at = [], 0
    while at < len(stack.layers):
        sizes = range(1, min((len(stack.layers) - at) // 2, LONGEST_UNIT) + 1)
        candidates = (
            _longest(stack.layers, readers, at, size) for size in sizes if _same(stack.layers[at], stack.layers[at + size])
        )
        worth = [run for run in candidates if run.copies >= _fewest(stack, run)]
        found.append(max(worth, key=lambda run: (run.end, -run.size), default=Run(at)))
        at = found[-1].end
    return found


def _fewest(stack: Stack, run: Run) -> int:
    """From how many copies on a run reads better than its layers; a layer that repeats itself does from two on."""
    if run.size == 1 and repeats(stack.layers[run.start]):
        return 2
    return FEWEST_COPIES if run.size * run.copies < FEWEST_LAYERS else 2


def repeats(layer: Read) -> bool:
    """Whether the layer has a field ``repeat``."""
    return "repeat" in LAYERS[layer.kind].model_fields


def _readers(stack: Stack) -> list[int]:
    """Of each layer the last one that reads it, or itself; an output is read from beyond the end."""
    last = list(range(len(stack.layers)))
    for place, layer in enumerate(stack.layers):
        for source in (*layer.sources, *([layer.share] if layer.share is not None else [])):
            if isinstance(source, int):
                last[source] = max(last[source], place)
    for place in stack.outputs:
        last[place] = len(stack.layers)
    return last


def _longest(layers: Sequence[Read], readers: Sequence[int], start: int, size: int) -> Run:
    """The run of most copies of the unit that starts here; one copy where it cannot be a unit."""
    if not _closed(layers, readers, start, size) or len(_entries(layers, start, size)) != 1:
        return Run(start, size)
    copies = 1
    while (
        (at := start + copies * size) + size <= len(layers)
        and _closed(layers, readers, at, size)
        and readers[at - 1] < at + size
        and all(_equal(layers, start, at, place) for place in range(size))
        and _entries(layers, at, size) == {at - 1}
    ):
        copies += 1
    return Run(start, size, copies)


def _closed(layers: Sequence[Read], readers: Sequence[int], start: int, size: int) -> bool:
    """Whether only the last layer of a unit is read from outside, and none has its weights from elsewhere."""
    inside = range(start, start + size)
    return all(layers[place].share is None for place in inside) and all(readers[place] < start + size for place in inside[:-1])


def _entries(layers: Sequence[Read], start: int, size: int) -> set[str | int]:
    sources = {source for place in range(start, start + size) for source in layers[place].sources}
    return {source for source in sources if isinstance(source, str) or source < start}


def _equal(layers: Sequence[Read], first: int, other: int, place: int) -> bool:
    a, b = layers[first + place], layers[other + place]
    return _same(a, b) and _wires(a, first) == _wires(b, other)


def _same(a: Read, b: Read) -> bool:
    return (a.kind, a.fields, tuple(a.weights)) == (b.kind, b.fields, tuple(b.weights))


def _wires(layer: Read, start: int) -> list[int]:
    """Sources by their place in the unit, -1 for what enters it."""
    return [source - start if isinstance(source, int) and source >= start else -1 for source in layer.sources]
