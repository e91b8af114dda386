"""Mutations of a tree: what comes out is YAML, and mostly a model, so that what is beyond the reader is reached."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from benchmarks.fuzz import sampling

Tree = dict[str, Any]
Place = tuple[Any, Any]  # a mapping or a list, and the key or index of an entry of it
Mutation = Callable[[Tree, random.Random], None]  # in place

PART = "part.yaml"  # the file that a model includes
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_VALUES = (
    None, "", [], {}, 0, -1, 1, 2, 3, 7, 2**31, 10**30, 0.5, -0.0, 1e-30, 1e38, float("nan"), float("inf"), True, [1, 2], [[[]]],
    "x", "input", "sum", "a/b", "same", "last", "relu", ["batch", 3], ["x", "y"], {"kind": "dense"},
    "${i}", "${width}", "${2 ** 9}", "${1 + 1}", "${'a' * 9}", "${[1, 2][i]}", "${1 / 0}", "${width", "${ }",
    "${i if i else 9 ** 99}", "${range(3)}",
)  # fmt: skip


def parsed(text: str) -> Tree | None:
    """The mapping of a text; None of another text, and of one whose aliases may grow without end."""
    if "&" in text:
        return None
    try:
        tree = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def written(tree: Any, rng: random.Random) -> str:
    style = rng.choice((None, None, False, True))
    return str(yaml.dump(tree, Dumper=_DUMPER, sort_keys=False, default_flow_style=style, allow_unicode=True, width=1000))


def mutated(tree: Tree, rng: random.Random) -> None:
    """One mutation, in place."""
    rng.choice(TREES)(tree, rng)


def _taken_out(tree: Tree, rng: random.Random) -> None:
    for holder, key in _chosen(tree, rng):
        del holder[key]


def _other_value(tree: Tree, rng: random.Random) -> None:
    for holder, key in _chosen(tree, rng):
        holder[key] = copy.deepcopy(rng.choice(_VALUES))


def _other_number(tree: Tree, rng: random.Random) -> None:
    for holder, key in _chosen(tree, rng, _is_number):
        holder[key] += rng.choice((-2, -1, -1, 1, 1, 2, 100, 0.5))


def _copied(tree: Tree, rng: random.Random) -> None:
    """A value in the place of another, or behind another in a list."""
    for (source, key), (holder, at) in zip(_chosen(tree, rng), _chosen(tree, rng), strict=False):
        value = copy.deepcopy(source[key])
        if isinstance(holder, list) and rng.random() < 0.7:
            holder.insert(at, value)
        else:
            holder[at] = value


def _other_key(tree: Tree, rng: random.Random) -> None:
    for holder, key in _chosen(tree, rng):
        if isinstance(holder, dict):
            names = [other for place, other in _places(tree) if isinstance(place, dict)]
            holder[rng.choice(names)] = holder.pop(key)


def _layer(tree: Tree, rng: random.Random) -> None:
    """Another layer, of any kind."""
    lists = [holder[key] for holder, key in _places(tree) if key in ("layers", "shortcut") and isinstance(holder[key], list)]
    if lists:
        found = rng.choice(lists)
        found.insert(rng.randrange(len(found) + 1), sampling.layer(rng))


def _section(tree: Tree, rng: random.Random) -> None:
    name = rng.choice(("loss", "penalty", "init", "data", "weights", "seed"))
    tree[name] = sampling.section(name, rng)


def _parameter(tree: Tree, rng: random.Random) -> None:
    """A number moved into params, which an expression reads and a variant changes."""
    for holder, key in _chosen(tree, rng, _is_number):
        name = rng.choice(("width", "depth", "p"))
        _entries(tree, "params")[name] = rng.choice((holder[key], {"type": "int", "default": holder[key]}))
        _entries(tree, "variants")[rng.choice(("small", "large"))] = {name: rng.choice((1, 3, "x"))}
        holder[key] = rng.choice((f"${{{name}}}", f"${{{name} * 2 ** i}}", f"${{{name} // 2}}", f"a${{{name}}}"))


def _variant(tree: Tree, rng: random.Random) -> None:
    """A variant that changes some place of the tree."""
    name = rng.choice(("small", "large"))
    _entries(tree, "variants")[name] = {path(tree, rng): copy.deepcopy(rng.choice(_VALUES))}


def _block(tree: Tree, rng: random.Random) -> None:
    """A few layers moved into a block of their own, which is called, once or more often."""
    layers = tree.get("layers")
    if not isinstance(layers, list) or not layers:
        return
    begin = rng.randrange(len(layers))
    end = begin + rng.randrange(1, 4)
    name = rng.choice(("own", "stage", "relu"))
    _entries(tree, "blocks")[name] = {"params": {"width": rng.choice((4, "int", None))}, "layers": layers[begin:end]}
    call: Tree = {"kind": name}
    if rng.random() < 0.5:
        call["repeat"] = rng.choice((1, 2, 3, 30))
    if rng.random() < 0.5:
        call["width"] = rng.choice((1, 4, "${i}", "${i + 1}", "wide"))
    if rng.random() < 0.2:
        call["when"] = rng.choice((False, "${i > 1}", "${width == 4}", "no"))
    layers[begin:end] = [call]


def _included(tree: Tree, rng: random.Random) -> None:
    tree["include"] = rng.choice((PART, [PART], [PART, PART], "model.yaml", "../model.yaml", [], [[PART]]))


TREES: tuple[Mutation, ...] = (
    _taken_out, _other_value, _other_value, _other_number, _copied, _other_key, _layer, _layer, _section, _parameter, _variant,
    _block, _included,
)  # fmt: skip


def path(tree: Tree, rng: random.Random) -> str:
    """What leads to some place, as --set and variants write it; at times past it."""
    steps: list[str] = []
    node: Any = tree
    while isinstance(node, dict | list) and node and len(steps) < 6 and (not steps or rng.random() < 0.8):
        step = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[step]
        steps.append(str(step))
    return ".".join([*steps, "units"] if rng.random() < 0.1 else steps)


def number(tree: Tree, rng: random.Random) -> str:
    """What leads to a number, as --set writes it; ``seed`` where there is none."""
    found = list(_numbers(tree, ()))
    return ".".join(map(str, rng.choice(found))) if found else "seed"


def _numbers(node: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        if _is_number(node[key]):
            yield (*above, key)
        yield from _numbers(node[key], (*above, key))


def _entries(tree: Tree, section: str) -> Tree:
    if not isinstance(tree.get(section), dict):
        tree[section] = {}
    found: Tree = tree[section]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _chosen(tree: Tree, rng: random.Random, suits: Callable[[Any], bool] = lambda value: True) -> list[Place]:
    """One place, or none where no value suits."""
    found = [(holder, key) for holder, key in _places(tree) if suits(holder[key])]
    return [rng.choice(found)] if found else []


def _places(node: Any) -> Iterator[Place]:
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])
