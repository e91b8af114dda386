"""Which input gets what from ``data:``, a matter of names alone: read off the text's tree, like the wires."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vgcompile.errors import Complaint, Mark, nearest
from vgcompile.rules.wires import MISSING_ARRAY, UNFIT_FEED, UNKNOWN_INPUT
from vgcompile.spec.data import OFFERED
from vgcompile.spec.reading import Node

_NAMED = ("arrays", "columns", "files")  # each names what every input is read from


def feeding(root: Node) -> Iterator[Complaint]:
    """What is wrong with the inputs' names under ``data:``, and with those that a linear teacher reads."""
    inputs = root.get("inputs")
    if inputs is None or not inputs.keys:
        return
    yield from _teachers(inputs)
    data = root.get("data")
    if data is None or not data.keys:
        return
    for field in (*_NAMED, "categories", "normalize"):
        stated = data.get(field)
        for name, mark in stated.keys.items() if stated is not None else ():
            if name not in inputs.keys:
                yield unknown_input(name, mark, inputs.keys)
            elif field == "categories" and not _counted(inputs.children[name]):
                message = f"input {name!r} takes real numbers, categories become class numbers"
                yield Complaint(mark, message, "state its classes:", UNFIT_FEED)
            elif field == "normalize" and _counted(inputs.children[name]):
                message = f"input {name!r} takes class numbers, which are not normalized"
                yield Complaint(mark, message, "remove it", UNFIT_FEED)
    yield from _missing(inputs, data)


def unknown_input(name: str, mark: Mark, inputs: Mapping[str, Mark]) -> Complaint:
    return Complaint(mark, f"unknown input {name!r}", nearest(name, inputs) or f"inputs: {', '.join(inputs)}", UNKNOWN_INPUT)


def _missing(inputs: Node, data: Node) -> Iterator[Complaint]:
    """An input is read or, where it says from what, drawn."""
    images = data.get("images")
    named = next((stated for field in _NAMED if (stated := data.get(field)) is not None and stated.keys), None)
    if named is None and images is None:
        return
    read = set(OFFERED) if named is None else set(named.keys)
    for name, fields in inputs.children.items():
        if name not in read and fields.get("distribution") is None:
            hint = f"name it here, or state its distribution: at line {fields.mark.line} to have it drawn"
            if named is None and images is not None:
                hint = f"write arrays: {{{name}: image}}"
                yield Complaint(images.mark, f"no array for the input {name!r}", hint, MISSING_ARRAY)
            elif named is not None:
                yield Complaint(named.mark, f"no array for the input {name!r}", hint, MISSING_ARRAY)
    if images is None or named is None:
        return
    for stated in named.children.values():
        if isinstance(stated.value, str) and stated.value not in OFFERED:
            hint = f"it makes {' and '.join(OFFERED)}"
            yield Complaint(stated.mark, f"an image folder has no array {stated.value!r}", hint, MISSING_ARRAY)


def _teachers(inputs: Node) -> Iterator[Complaint]:
    for name, fields in inputs.children.items():
        drawn = fields.get("distribution")
        read = drawn.get("of") if drawn is not None else None
        if read is None or not isinstance(read.value, str):
            continue
        source = inputs.get(read.value)
        if source is None:
            yield unknown_input(read.value, read.mark, inputs.keys)
        elif read.value == name or _counted(source):
            message = f"a linear teacher reads real numbers of another input, found {read.value!r}"
            yield Complaint(read.mark, message, rule=UNFIT_FEED)
        elif (of := source.get("distribution")) is not None and of.get("of") is not None:
            yield Complaint(
                read.mark,
                f"input {read.value!r} is itself a teacher's answer",
                "name an input that is given or drawn",
                UNFIT_FEED,
            )


def _counted(fields: Node) -> bool:
    return fields.get("classes") is not None
