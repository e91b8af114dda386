"""Which bounds of the operator table's rows are seen to be broken when they are moved inward by a tenth."""

from __future__ import annotations

from tests.one_node import ROWS
from tests.row_attacks import FACTS, caught, shown


def table() -> str:
    """A line for each fact: how many rows state it, how many mutations an attack sees, and the rows of which none does."""
    lines = ["| fact | rows | something to move | seen when moved by a tenth | not seen |", "|---|---|---|---|---|"]
    for fact, known in FACTS.items():
        stated = [row for row in ROWS if known.stated(row)]
        movable = [row for row in stated if shown(row, fact)]
        unseen = [row.name for row in movable if not caught(row, fact)]
        lines.append(f"| {fact} | {len(stated)} | {len(movable)} | {len(movable) - len(unseen)} | {', '.join(unseen) or '-'} |")
    return "\n".join(lines)
