"""Stretches of equal layers, stated by a ``repeat`` or written out, and ways around their layers."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vgcompile.fixing.sheet import Sheet, Stated, drop, less_one, put, text_of, tree
from vgcompile.layers import LAYERS
from vgcompile.layers.composite import WrittenOut
from vgcompile.layers.layer import Layer
from vgcompile.layers.weighted import Weighted
from vgcompile.spec.annotated import Collection, Entry, Scalar

REFERENCE = re.compile(r"\$\{\s*(\w+)\s*\}")
_RUN = 3  # equal layers behind each other that a person would have written as a repeat


def class_of(layer: Stated) -> type[Layer]:
    return LAYERS.get(layer.kind, Layer)


def repeated(sheet: Sheet) -> Iterator[Stated]:
    """Layers that repeat, hold no other that does, and have no way around them yet."""
    for layer in list(sheet.layers):
        inner = [other for other in sheet.layers if layer in _groups(other)]
        around = any(outer.kind == "residual" for outer in _groups(layer))
        closed = layer.kind == "residual" or issubclass(class_of(layer), WrittenOut)
        if layer.repeat and not closed and not around and not any(other.repeat or other.kind == "residual" for other in inner):
            yield layer


def written_out(sheet: Sheet) -> Iterator[list[Stated]]:
    """Runs of equal weighted layers behind each other that have no way around them; the first may have another input."""
    run: list[Stated] = []
    for layer in [*sheet.layers, None]:
        if layer is not None and run and layer.among is run[0].among and _likeness(layer) == _likeness(run[0]):
            run.append(layer)
            continue
        if len(run) >= _RUN and not any(outer.kind == "residual" for outer in _groups(run[0])):
            yield run
        starts = layer is not None and issubclass(class_of(layer), Weighted) and layer.fields.get("from") is None
        run = [layer] if layer is not None and starts else []


def _groups(layer: Stated) -> Iterator[Stated]:
    while layer.around is not None:
        layer = layer.around
        yield layer


def _likeness(layer: Stated) -> list[tuple[str, str]]:
    """All that a layer says but its name."""
    return sorted((key, said) for key, said in _said(layer.fields) if key != "name")


def _said(fields: Collection) -> Iterator[tuple[str, str]]:
    for entry in fields.entries:
        key = entry.key.value if isinstance(entry.key, Scalar) else ""
        value = entry.value
        yield key, str(list(_said(value))) if isinstance(value, Collection) else str(vars(value))


def wrap(stretch: Stated, fields: Mapping[str, Any], behind_first: bool) -> None:
    """Make each copy of a stretch a residual of these fields: a block becomes one, another layer goes into one. With
    ``behind_first`` the first copy stays as it was."""
    original = copy.deepcopy(stretch.fields)
    if stretch.kind != "block":
        inner = copy.deepcopy(stretch.fields)
        outer = {key: entry.value for key in ("name", "repeat", "index") if (entry := drop(inner, key)) is not None}
        stretch.entry.value = tree({**outer, "layers": Collection([Entry(value=inner)], False)})
    for key, value in {"kind": "residual", **fields}.items():
        put(stretch.fields, key, value)
    if behind_first:
        split(stretch, original)


def wrap_alone(layer: Stated, fields: Mapping[str, Any]) -> None:
    """Put a layer into a residual of its name."""
    inner = copy.deepcopy(layer.fields)
    name = drop(inner, "name")
    outer = {"kind": "residual", **({"name": name.value} if name else {}), **fields}
    layer.entry.value = tree({**outer, "layers": Collection([Entry(value=inner)], False)})


def split(stretch: Stated, first: Collection) -> None:
    """Put ``first`` before a stretch, which has one copy less from then on."""
    rest = less_one(stretch.repeat or "1")
    if rest is None:
        return
    for key in ("repeat", "index"):
        drop(first, key)
    put(first, "name", f"{stretch.name or stretch.kind}_first")
    put(stretch.fields, "repeat", rest)
    stretch.among.entries.insert(stretch.among.entries.index(stretch.entry), Entry(value=first, above=stretch.entry.above))
    stretch.entry.above = []


def put_through(sheet: Sheet, fields: Collection, key: str, value: Any) -> None:
    """State a field anew; where it reads a parameter of the file and nothing else, that one."""
    held = _parameter(sheet, text_of(fields, key))
    if held is not None:
        held.value = tree(value)
    else:
        put(fields, key, value)


def copies(sheet: Sheet, layer: Stated) -> int:
    """How often a layer repeats, by its parameter's default where it reads one; 1 where nobody can tell."""
    held = _parameter(sheet, layer.repeat)
    stated = held.value.value if held is not None and isinstance(held.value, Scalar) else layer.repeat
    return int(stated) if stated and stated.isdigit() else 1


def root_of_depth(layer: Stated) -> str | float:
    """1 / sqrt(copies), in terms of the parameter that states them where there is one."""
    lone = REFERENCE.fullmatch((layer.repeat or "1").strip())
    if lone is not None:
        return f"${{{lone[1]} ** -0.5}}"
    return round(int(layer.repeat) ** -0.5, 4) if layer.repeat and layer.repeat.isdigit() else 1.0


def _parameter(sheet: Sheet, text: str | None) -> Entry | None:
    """The entry of the parameter that is all that a field reads."""
    lone = REFERENCE.fullmatch((text or "").strip())
    params = sheet.document.get("params")
    held = params.value.get(lone[1]) if lone and params is not None and isinstance(params.value, Collection) else None
    return held if held is not None and isinstance(held.value, Scalar) else None
