"""The table as a list to read: what `vgcompile ops` prints and docs/operators.md holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from onnx import defs

from vgcompile.ops import OPS
from vgcompile.ops.op import INTERNAL, Op

Gradient = Literal["rule", "replay", "body", "zero", "refused"]
Slope = Literal["exact", "norm", "none"]
Moments = Literal["joint", "formula", "none"]

GRADIENTS: dict[Gradient, str] = {
    "rule": "a formula of its own",
    "replay": "its bodies run again, and back",
    "body": "through the operators that it consists of",
    "zero": "nothing flows; the note says why",
    "refused": "a gradient would flow, and there is no rule; the note says what would do",
}
SLOPES: dict[Slope, str] = {
    "exact": "the exact range of slopes over a range of inputs",
    "norm": "certified bounds of the Jacobian's singular values",
    "none": "no bound: an edge through it is unbounded",
}
MOMENTS: dict[Moments, str] = {
    "joint": "by quadrature, together with its elementwise neighbours",
    "formula": "a formula for its statistics",
    "none": "no prediction; where a gradient flows, the note says why",
}


@dataclass(frozen=True)
class Entry:
    """One operator; ``since`` is the opset of its newest version."""

    operator: str
    since: int
    gradient: Gradient
    slope: Slope
    moments: Moments
    doc: str
    note: str = ""


def catalogue() -> Iterator[Entry]:
    """Every standard operator of the table, by name."""
    for row in sorted(OPS.values(), key=lambda row: row.name):
        schema = _schema(row.name)
        if schema is not None:
            yield Entry(row.name, schema.since_version, _gradient(row), _slope(row), _moments(row), row.doc, _note(row, schema))


def _schema(operator: str) -> defs.OpSchema | None:
    return defs.get_schema(operator, defs.onnx_opset_version(), "") if defs.has(operator) else None


def _gradient(row: Op) -> Gradient:
    if row.blocked:
        return "zero"
    if row.uncovered:
        return "refused"
    if row.nested is not None:
        return "replay"
    return "rule" if row.vjp is not None else "body"


def _slope(row: Op) -> Slope:
    return "exact" if row.elementwise else "norm" if row.norms is not None else "none"


def _moments(row: Op) -> Moments:
    return "formula" if row.moments is not None else "joint" if row.elementwise else "none"


def _note(row: Op, schema: defs.OpSchema) -> str:
    notes = [row.blocked or row.uncovered]
    if row.unpredicted:
        notes.append(f"not predicted: {row.unpredicted}")
    if row.random:
        notes.append("random")
    if row.domain == INTERNAL:
        notes.append("written as the operators that it consists of")
    if schema.deprecated:
        notes.append("deprecated; files that hold it are converted")
    return "; ".join(note for note in notes if note)


def as_markdown() -> str:
    """The whole of docs/operators.md."""
    entries = list(catalogue())
    flowing = sum(entry.gradient not in ("zero", "refused") for entry in entries)
    lines = [
        "# Operators",
        "",
        "Written by `vgcompile ops --format markdown`; what is said here stands in the rows of `vgcompile/ops/`.",
        "",
        f"The default domain at opset {defs.onnx_opset_version()}: {len(entries)} operators, {flowing} of them with a gradient.",
        "",
        "| column | word | means |",
        "|---|---|---|",
        *(f"| gradient | {word} | {text} |" for word, text in GRADIENTS.items()),
        *(f"| slope | {word} | {text} |" for word, text in SLOPES.items()),
        *(f"| moments | {word} | {text} |" for word, text in MOMENTS.items()),
        "",
        "| operator | since | gradient | slope | moments | what it is, and where it has edges | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        cells = (entry.operator, entry.since, entry.gradient, entry.slope, entry.moments, entry.doc, entry.note)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
