"""Folds repeats: consecutive copies of one structure become one stack, so that a net of a thousand layers is one page.

    stem, hidden/1/dense, hidden/1/tanh, ..., hidden/99/tanh, head      a chain of 200 layers
    stem, [hidden x92], [hidden x4], [hidden x3], head                  one stack for each class of gradient

A repeat is a tandem repeat of signatures in the order of the layers; a signature holds the layer's kind, its name without digits,
and how far back each of its inputs comes from. Copies are parted where the class of their gradient changes, so that folding
cannot hide the place where it dies, and each stack names its worst copy.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from vgcompile.analysis.result import Elements, Tiers
from vgcompile.ops.op import Dim
from vgcompile.render.labels import best, extreme
from vgcompile.render.layergraph import Arrow, LayerGraph, Vertex
from vgcompile.render.style import band

BUDGET = 75  # boxes; the butterfly draws each twice
SMALL = 16  # a net of so few layers is drawn as it is
PERIOD = 128  # layers in a copy, at most: keeps the search linear
COPIES = 3  # fewer copies are not worth a stack
STACKS = 6  # more stacks than this out of one repeat say less than one


@dataclass(frozen=True)
class Repeat:
    """``copies`` copies of ``period`` layers each, from place ``start`` on."""

    start: int
    period: int
    copies: int


@dataclass(frozen=True)
class Box:
    """What is drawn as one node: a layer, a stack of whole copies, or, of copies with branches, the same layer of each copy; the
    boxes of one copy then share a ``cluster``."""

    number: int
    members: tuple[Vertex, ...]
    copies: int = 1
    cluster: int | None = None

    @property
    def name(self) -> str:
        return self.members[0].name


@dataclass(frozen=True)
class Flow:
    """A drawn edge: all the uses that it stands for."""

    source: int
    target: int
    shape: tuple[Dim, ...]
    gains: tuple[Tiers, ...]  # empty where no gradient flows
    elements: tuple[Elements, ...]  # empty where they were not asked for
    skips: bool  # goes past other boxes


@dataclass(frozen=True)
class Drawing:
    """What the pictures draw."""

    boxes: tuple[Box, ...]
    flows: tuple[Flow, ...]
    layers: int


def fold(graph: LayerGraph, wanted: bool = True, budget: int = BUDGET) -> Drawing:
    """Fold until at most ``budget`` boxes are left or nothing is left to fold; a small net, or one not ``wanted`` so, stays."""
    if not wanted or len(graph.vertices) <= SMALL:
        return _drawing(graph, [])
    drawings = (_drawing(graph, _folds(graph, named, parted)) for named in (True, False) for parted in (True, False))
    tried = []
    for drawing in drawings:
        if len(drawing.boxes) <= budget:
            return drawing
        tried.append(drawing)
    return min(tried, key=lambda drawing: len(drawing.boxes))


def repeats(signatures: Sequence[Hashable], copies: int = COPIES, period: int = PERIOD) -> Iterator[Repeat]:
    """Tandem repeats from left to right, each the one that covers most (of equals the shortest period); O(len * period).

    >>> list(repeats("xabababy"))
    [Repeat(start=1, period=2, copies=3)]
    """
    size = len(signatures)
    lengths = [_agreement(signatures, p) for p in range(1, min(period, size // copies) + 1)]
    place = 0
    while place < size:
        covers = [(length[place] // p + 1) * p for p, length in enumerate(lengths, 1)]
        options = [(cover, -p) for p, cover in enumerate(covers, 1) if cover >= copies * p]
        if not options:
            place += 1
            continue
        cover, p = max(options)
        yield Repeat(place, -p, cover // -p)
        place += cover


def _agreement(signatures: Sequence[Hashable], period: int) -> list[int]:
    """For each place, how many signatures from there on equal the one a period later."""
    lengths = [0] * (len(signatures) + 1)
    for place in range(len(signatures) - period - 1, -1, -1):
        lengths[place] = lengths[place + 1] + 1 if signatures[place] == signatures[place + period] else 0
    return lengths


def _folds(graph: LayerGraph, named: bool, parted: bool) -> list[Repeat]:
    found = list(repeats(_signatures(graph, named)))
    return [part for repeat in found for part in _part(graph, repeat)] if parted else found


def _signatures(graph: LayerGraph, named: bool) -> list[Hashable]:
    """Kind, name without digits if ``named``, and where each input comes from: a distance, or a source that many copies share."""
    stems = [re.sub(r"[\W\d_]+", "/", vertex.name).strip("/") if named else "" for vertex in graph.vertices]
    uses = Counter((arrow.source, stems[arrow.target]) for arrow in graph.arrows)
    sources: defaultdict[int, list[Hashable]] = defaultdict(list)
    for arrow in graph.arrows:
        source, distance = graph.vertices[arrow.source], arrow.target - arrow.source
        shared = uses[arrow.source, stems[arrow.target]] >= COPIES if named else source.role != "layer" and distance > 1
        sources[arrow.target].append(source.name if shared else distance)
    return [
        (vertex.role, vertex.kind, stem, tuple(sources[vertex.order])) if vertex.role == "layer" else (vertex.role, vertex.order)
        for vertex, stem in zip(graph.vertices, stems, strict=True)
    ]


def _part(graph: LayerGraph, repeat: Repeat) -> list[Repeat]:
    """Part the copies where the class of their gradient changes, unless that gives many stacks."""
    classes = [band(value).name for value in _values(graph, repeat)]
    parts, start = [], repeat.start
    for _, group in groupby(classes):
        copies = len(list(group))
        parts.append(Repeat(start, repeat.period, copies))
        start += copies * repeat.period
    return parts if len(parts) <= STACKS else [repeat]


def _values(graph: LayerGraph, repeat: Repeat) -> list[float | None]:
    """Each copy's worst gain or, for copies without parameters, the worst gain on the edges into it."""
    inside = range(repeat.start, repeat.start + repeat.period * repeat.copies)
    relative: defaultdict[int, list[float]] = defaultdict(list)
    entering: defaultdict[int, list[float]] = defaultdict(list)
    for place in inside:
        vertex = graph.vertices[place]
        if vertex.found is not None and (value := best(vertex.found.worst)) is not None:
            relative[(place - repeat.start) // repeat.period].append(value)
    if not relative:
        for arrow in graph.arrows:
            if arrow.target in inside and arrow.gain is not None and (value := best(arrow.gain)) is not None:
                entering[(arrow.target - repeat.start) // repeat.period].append(value)
    values = relative or entering
    return [extreme(values[copy]) if values[copy] else None for copy in range(repeat.copies)]


def _drawing(graph: LayerGraph, folds: Sequence[Repeat]) -> Drawing:
    folds = [repeat for repeat in folds if repeat.copies > 1]
    boxes = _boxes(graph, folds)
    box_of = {vertex.order: box.number for box in boxes for vertex in box.members}
    home = _home(folds)
    merged: dict[tuple[int, int], list[Arrow]] = {}
    for arrow in graph.arrows:
        inside_stack = box_of[arrow.source] == box_of[arrow.target] and boxes[box_of[arrow.target]].cluster is None
        if not inside_stack:
            merged.setdefault((box_of[_as_in_first_copy(arrow, home)], box_of[arrow.target]), []).append(arrow)
    flows = tuple(_flow(source, target, arrows) for (source, target), arrows in merged.items())
    return Drawing(tuple(boxes), flows, len(graph.vertices))


def _flow(source: int, target: int, arrows: Sequence[Arrow]) -> Flow:
    gains = tuple(arrow.gain for arrow in arrows if arrow.gain is not None)
    elements = tuple(arrow.elements for arrow in arrows if arrow.elements is not None)
    return Flow(source, target, arrows[0].shape, gains, elements, skips=abs(target - source) > 1)


def _as_in_first_copy(arrow: Arrow, home: dict[int, Repeat]) -> int:
    """The source of an arrow; of one from copy to copy, the source of its counterpart that enters the first copy."""
    repeat = home.get(arrow.target)
    if repeat is None or home.get(arrow.source) is not repeat:
        return arrow.source
    copy = (arrow.target - repeat.start) // repeat.period
    if copy == (arrow.source - repeat.start) // repeat.period:
        return arrow.source
    return arrow.source - copy * repeat.period


def _home(folds: Sequence[Repeat]) -> dict[int, Repeat]:
    return {place: repeat for repeat in folds for place in range(repeat.start, repeat.start + repeat.period * repeat.copies)}


def _boxes(graph: LayerGraph, folds: Sequence[Repeat]) -> list[Box]:
    boxes: list[Box] = []
    starts = {repeat.start: repeat for repeat in folds}
    chains = _chains(graph, folds)
    place = 0
    while place < len(graph.vertices):
        repeat = starts.get(place)
        if repeat is None:
            boxes.append(Box(len(boxes), (graph.vertices[place],)))
            place += 1
            continue
        members = graph.vertices[place : place + repeat.period * repeat.copies]
        if repeat in chains:
            boxes.append(Box(len(boxes), members, repeat.copies))
        else:
            for role in range(repeat.period):
                boxes.append(Box(len(boxes), members[role :: repeat.period], repeat.copies, repeat.start))
        place += len(members)
    return boxes


def _chains(graph: LayerGraph, folds: Sequence[Repeat]) -> set[Repeat]:
    """The repeats whose copies are plain chains: every inner edge goes to the next layer, so that one box hides no branch."""
    home = _home(folds)
    chains = set(folds)
    for arrow in graph.arrows:
        repeat = home.get(arrow.target)
        if repeat is not None and arrow.gain is not None and arrow.target - arrow.source != 1:
            chains.discard(repeat)
        tapped = home.get(arrow.source)
        if tapped is not None and tapped is not repeat and arrow.target - arrow.source != 1:
            last = (arrow.source - tapped.start + 1) % tapped.period == 0
            if not last:
                chains.discard(tapped)
    return chains


def title(box: Box) -> tuple[str, str]:
    """``("hidden x20", "hidden/1 .. hidden/20")``: what repeats and how often, and the first and the last copy."""
    if box.copies == 1:
        return box.name, ""
    period = 1 if box.cluster is not None else len(box.members) // box.copies
    first, last = (_scope([vertex.name for vertex in part]) for part in (box.members[:period], box.members[-period:]))
    kinds = "+".join(dict.fromkeys(vertex.kind for vertex in box.members[:period]))
    common = "" if box.cluster is not None else _scope([first, last])
    repeated = common if common not in ("", first) else _pattern(first, last) or kinds
    return f"{repeated} x{box.copies}", f"{first} .. {last}"


def _pattern(first: str, last: str) -> str:
    """``hidden/*/dense`` for two names that differ in numbers alone; nothing where they differ in more or hold nothing else."""
    parts = [re.split(r"(\d+)", name) for name in (first, last)]
    if parts[0][::2] != parts[1][::2] or not "".join(parts[0][::2]):
        return ""
    return "".join(a if a == b else "*" for a, b in zip(*parts, strict=True))


def _scope(names: Sequence[str]) -> str:
    """The path that all names share; the first name where they share none."""
    return posixpath.commonpath([name.strip("/") for name in names]) or names[0]


def worst(members: Sequence[Vertex]) -> tuple[Vertex, float] | None:
    """The member whose gain, through the layers or through its steps, is furthest from 1; None where none holds parameters."""
    known = [(vertex, value) for vertex in members if vertex.found and (value := best(vertex.found.worst)) is not None]
    return max(known, key=lambda pair: abs(pair[1]), default=None)
