"""A case for each number: a text, what it includes, and what is asked for on the command line."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

from benchmarks.fuzz import sampling, text, trees
from vgcompile.rules import CATALOGUE

ROOT = Path(__file__).parents[2]
LONGEST = 10_000


@dataclass(frozen=True)
class Case:
    """``part`` is the text of the file ``part.yaml`` beside it, which includes may name; None where there is no such file."""

    text: str
    part: str | None = None
    variant: str | None = None
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = [*(["--variant", self.variant] if self.variant is not None else []), *(f"--set {s!r}" for s in self.settings)]
        behind = "" if self.part is None else f"\n# {trees.PART}\n{self.part}"
        return f"{self.text}{behind}" + (f"\n# {' '.join(asked)}\n" if asked else "")


@cache
def originals() -> tuple[str, ...]:
    """The texts that are mutated: every other one is good, as models and repaired examples are."""
    good = [*_texts("models/*.yaml"), *(rule.repaired for rule in CATALOGUE.values())]
    bad = [*_texts("tests/cases/spec/*.yaml"), *(rule.failing for rule in CATALOGUE.values())]
    return tuple(text for pair in zip(cycle(filter(None, good)), filter(None, bad), strict=False) for text in pair)


def _texts(pattern: str) -> list[str]:
    found = (path.read_bytes().decode(errors="replace") for path in sorted(ROOT.glob(pattern)))
    return [text for text in found if len(text) < LONGEST]


def case(seed: int) -> Case:
    """The same for the same seed."""
    rng = random.Random(seed)
    made, tree = _original(rng)
    if tree is None:
        made = _mutated(made, rng, rng.choice((1, 1, 1, 2, 2, 3, 4)))
        return Case(made, _original(rng)[0] if trees.PART in made else None)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        trees.mutated(tree, rng)
    part = _moved_out(tree, rng) if rng.random() < 0.1 else None
    variant, settings = _asked(tree, rng) if rng.random() < 0.2 else (None, ())
    return Case(_mutated(trees.written(tree, rng), rng, int(rng.random() < 0.1)), part, variant, settings)


def _original(rng: random.Random) -> tuple[str, trees.Tree | None]:
    """A text and, for most of those that have one, the tree that is mutated in its place."""
    if rng.random() < 0.3:
        tree = sampling.model(rng)
        return trees.written(tree, rng), tree if rng.random() < 0.8 else None
    made = rng.choice(originals())
    return made, trees.parsed(made) if rng.random() < 0.7 else None


def _mutated(made: str, rng: random.Random, times: int) -> str:
    for _ in range(times):
        made = rng.choice(text.TEXT)(made, rng, originals())
    return made


def _moved_out(tree: trees.Tree, rng: random.Random) -> str:
    """A few sections of the tree as the text of a file, which the tree includes from then on."""
    names = rng.sample(list(tree), min(len(tree), rng.choice((1, 1, 2, 3))))
    part = {name: tree.pop(name) for name in names}
    tree["include"] = rng.choice((trees.PART, [trees.PART]))
    if rng.random() < 0.2:
        trees.mutated(part, rng)
    return _mutated(trees.written(part, rng), rng, int(rng.random() < 0.2))


def _asked(tree: trees.Tree, rng: random.Random) -> tuple[str | None, tuple[str, ...]]:
    """A variant and settings, most of them of things that are there."""
    stated = tree.get("variants")
    names = [*map(str, stated if isinstance(stated, dict) else ())]
    if rng.random() < 0.05:
        names = ["tiny"]
    variant = rng.choice(names) if names and rng.random() < 0.7 else None
    return variant, tuple(_setting(tree, rng) for _ in range(rng.choice((0, 1, 1, 2))))


def _setting(tree: trees.Tree, rng: random.Random) -> str:
    if rng.random() < 0.7:
        return f"{trees.number(tree, rng)}={rng.choice((1, 2, 3, 4, 4, 8, 8, 0.5))}"
    where = trees.path(tree, rng) if rng.random() < 0.8 else rng.choice(text.WORD.findall(rng.choice(originals())) or ["a"])
    return f"{where}{rng.choice(('=', '=', '=', '=', '=', '=', ''))}{rng.choice((*text.NUMBERS, *text.ODD))}"
