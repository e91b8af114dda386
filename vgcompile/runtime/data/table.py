""".csv files: rows are samples, columns go to inputs by name or number, words become class numbers.

A table is read whole, for it has to be parsed before anything is known about a cell. Python's csv module reads it: a library
that guesses types would turn a mistyped number into a column of text, or an empty cell into NaN, where the cell has to be named.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from vgcompile.errors import DataError, Fault, Mark, Note, nearest
from vgcompile.graph.network import Input, Table
from vgcompile.runtime.data.samples import Array, Samples, absent
from vgcompile.spec.data import TABLES, Column, ColumnRange, Columns

MOST_FAULTS = 20  # that are told one by one
MOST_LINES = 3  # of one fault, that are told
_WHOLE = re.compile(r"[-+]?[0-9]{1,1000}")  # more digits Python may refuse to read
T = TypeVar("T")


@dataclass(frozen=True)
class _Sheet:
    """The cells, the line that each row ends at, and the columns' names (of a table without: none)."""

    path: Path
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]
    width: int
    delimiter: str

    def title(self, column: int) -> str:
        return repr(self.names[column]) if self.names else str(column)


def table(path: Path, form: Table, inputs: Mapping[str, Input]) -> Mapping[str, Samples]:
    """One array for each of ``inputs``, by its name: [rows] of one column, [rows, columns] of several.

    Raises DataError with line and column of each cell that is none of what its input takes.
    """
    sheet = _sheet(path, form)
    found, faults = {}, list[Fault]()
    for name, declared in inputs.items():
        try:
            columns = _positions(sheet, form.columns.get(name, name), name)
        except DataError as error:
            faults += error.about(name).faults
            continue
        wrong = list[Fault]()
        convert = _reals if declared.dtype.is_floating_point() else _classes
        cells = [convert(sheet, column, declared, form, wrong) for column in columns]
        faults += wrong
        if not wrong:
            alone = isinstance(form.columns.get(name, name), str | int)
            array = cells[0] if alone else np.stack(cells, axis=1)
            found[name] = Samples.of(array, f"{path}: {_columns(sheet, columns)}", lambda row: f"{path}:{sheet.lines[row]}")
    if faults:
        rest = len(faults) - MOST_FAULTS
        raise DataError(*faults[:MOST_FAULTS], *([f"{path}: and {rest} more faults of this table"] if rest > 0 else []))
    return found


def _sheet(path: Path, form: Table) -> _Sheet:
    delimiter = form.delimiter or TABLES.get(path.suffix.lower(), ",")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            numbered = [(row, reader.line_num) for row in _checked(reader, path) if row]
    except FileNotFoundError:
        raise DataError(absent(path, "data file")) from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not a table") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    names = [name.strip() for name in numbered.pop(0)[0]] if form.header and numbered else []
    if not numbered:
        raise DataError(f"{path}: the table holds no rows" + (" below its header" if names else ""))
    width = len(names or numbered[0][0])
    for row, line in numbered:
        if len(row) != width:
            hint = f"; is {delimiter!r} what separates its cells? state delimiter:" if width == 1 or len(row) == 1 else ""
            raise DataError(f"{path}:{line}: {len(row)} cells, where the first row has {width}{hint}")
    return _Sheet(path, names, [row for row, _ in numbered], [line for _, line in numbered], width, delimiter)


def _checked(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a row of a table: {error}") from None  # type: ignore[attr-defined]


def _positions(sheet: _Sheet, stated: Columns, name: str) -> list[int]:
    if isinstance(stated, ColumnRange):
        first, last = _position(sheet, stated.first, name), _position(sheet, stated.last, name)
        if first > last:
            raise DataError(f"{sheet.path}: the columns of input {name!r} end at {stated.last!r}, before {stated.first!r}")
        return list(range(first, last + 1))
    if isinstance(stated, tuple):
        return [column for part in stated for column in _positions(sheet, part, name)]
    return [_position(sheet, stated, name)]


def _position(sheet: _Sheet, stated: Column, name: str) -> int:
    if isinstance(stated, int):
        if stated < sheet.width:
            return stated
        raise DataError(f"{sheet.path}: no column {stated} for input {name!r}; they are numbered 0 to {sheet.width - 1}")
    if not sheet.names:
        raise DataError(f"{sheet.path}: column {stated!r} for input {name!r}, but header: is false; give the column's number")
    if (count := sheet.names.count(stated)) > 1:
        raise DataError(f"{sheet.path}: {count} columns are called {stated!r}; give the column's number")
    if not count:
        hint = nearest(stated, sheet.names) or f"it holds {', '.join(sheet.names)}"
        raise DataError(f"{sheet.path}: no column {stated!r} for input {name!r}; {hint}")
    return sheet.names.index(stated)


def _reals(sheet: _Sheet, column: int, declared: Input, form: Table, wrong: list[Fault]) -> Array:
    return np.array(_convert(sheet, column, declared, _real, "is no number", wrong), np.float64)


def _classes(sheet: _Sheet, column: int, declared: Input, form: Table, wrong: list[Fault]) -> Array:
    """Numbers as they are, where any cell is one; else words by the place in the stated categories, or in the order of words."""
    stated = form.categories.get(declared.name)
    words = [row[column].strip() for row in sheet.rows]
    if stated is None and any(_whole(word) is not None for word in words):
        return _integers(_convert(sheet, column, declared, _whole, "is no class number", wrong))
    known = list(stated) if stated is not None else sorted(set(words) - {""})
    if stated is None and declared.classes is not None and len(known) > declared.classes:
        counted = f"{len(known)} categories, input {declared.name!r} has {declared.classes} classes"
        found = f"{sheet.path}: column {sheet.title(column)}: {counted}"
        wrong.append(Fault(found, f"found {_some(known)}", declared.name))
    numbers = {word: number for number, word in enumerate(known)}
    return _integers(_convert(sheet, column, declared, numbers.get, f"is none of {_some(known)}", wrong))


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")


def _integers(numbers: Sequence[int]) -> Array:
    """Beyond 64 bits a class number is beyond every class as well."""
    return np.array([min(max(number, -(2**62)), 2**62) for number in numbers], np.int64)


def _convert(
    sheet: _Sheet, column: int, declared: Input, convert: Callable[[str], T | None], complaint: str, wrong: list[Fault]
) -> list[T]:
    found, strange = [], dict[str, list[int]]()  # rows, by what their cell says
    for number, row in enumerate(sheet.rows):
        cell = row[column].strip()
        value = convert(cell)
        if value is None:
            strange.setdefault(cell, []).append(number)
        else:
            found.append(value)
    wrong += [_fault(sheet, column, declared, cell, rows, complaint) for cell, rows in strange.items()]
    return found


def _fault(sheet: _Sheet, column: int, declared: Input, cell: str, rows: Sequence[int], complaint: str) -> Fault:
    """What is wrong with one or more cells that say the same."""
    said = f"{cell if len(cell) <= 40 else cell[:37] + '...'!r} {complaint}" if cell else "the cell is empty"
    first, *further = [sheet.lines[row] for row in rows]
    lines = ", ".join(map(str, further[:MOST_LINES])) + (", ..." if len(further) > MOST_LINES else "")
    so = f" (and in {len(further)} more rows: {'lines' if len(further) > 1 else 'line'} {lines})" if further else ""
    notes = tuple(Note(said, _place(sheet, row, column)) for row in rows[:MOST_LINES])
    return Fault(f"{sheet.path}:{first}: column {sheet.title(column)}: {said}{so}", input=declared.name, notes=notes)


def _place(sheet: _Sheet, row: int, column: int) -> Mark:
    """A cell's place in the text or, where quotes hide it, its line."""
    cells, line = sheet.rows[row], sheet.lines[row]
    if sheet.delimiter.join(cells) != _line(sheet.path, line):
        return Mark(str(sheet.path), line)
    begin = 1 + sum(len(cell) + 1 for cell in cells[:column])
    return Mark(str(sheet.path), line, begin, begin + max(len(cells[column]), 1))


def _line(path: Path, number: int) -> str:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(islice(file, number - 1, None), "").rstrip("\r\n")


def _real(cell: str) -> float | None:
    try:
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(cell: str) -> int | None:
    return int(cell) if _WHOLE.fullmatch(cell) else None


def _columns(sheet: _Sheet, columns: Sequence[int]) -> str:
    names = [sheet.title(column) for column in columns]
    return f"column {names[0]}" if len(names) == 1 else f"columns {names[0]} to {names[-1]}"
