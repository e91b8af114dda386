"""What can go wrong, and who has to act.

    VgcompileError
    ├── UserError            exit 2   the person who asked can mend it
    │   ├── SpecError                 complaints about a YAML model, all at once, each with its mark
    │   ├── ModelError                an ONNX file that cannot be read or taken
    │   ├── GradientRefused           an operator, node or case that has no gradient rule
    │   ├── DataError                 data that do not fit the model, each fault at the field that asks for them
    │   └── EngineError               a missing or failing drawing engine or execution provider
    └── SelfCheckError       exit 3   vgcompile contradicts itself: a bug of ours

A message says what is wrong and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from vgcompile.rules.fields import UNKNOWN_FIELD
from vgcompile.rules.rule import Rule, Severity
from vgcompile.rules.text import UNCLASSIFIED


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a text file; line and column count from 1. Line 0 is the whole of it, as of an option.

    ``end`` is the column behind the last character there; 0 where it lies on another line or is not known. ``origin`` says what a
    value there was copied for: one place of a block's text has many of them.
    """

    file: str
    line: int
    column: int = 1
    end: int = field(default=0, compare=False)
    origin: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Note:
    """What else is to be known about a complaint; with a mark, what is at that other place."""

    message: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with a model: where, what was found, what would do, and by which rule."""

    mark: Mark
    message: str
    hint: str = ""
    rule: Rule = UNCLASSIFIED
    notes: tuple[Note, ...] = ()
    level: Severity | None = None  # of this one, where it is not its rule's
    fingerprint: str = ""  # what it is known by where lines move

    @property
    def severity(self) -> Severity:
        return self.level or self.rule.severity

    def __str__(self) -> str:
        warning = f"warning[{self.rule.code}]: " if self.severity == "warning" else ""
        return f"{self.mark}: {warning}{self.message}" + (f"; {self.hint}" if self.hint else "")


class Complain(Protocol):
    """How a reader hands over what it finds, and reads on."""

    def __call__(
        self, mark: Mark, message: str, hint: str = "", rule: Rule = UNCLASSIFIED, notes: tuple[Note, ...] = ()
    ) -> None: ...


class Findings:
    """A Complain that keeps the first complaint of each place, for the copies of a block repeat its faults.

    A mapping begins where its first key does: that this key is unknown, and what is wrong with the mapping, are two things.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Mark, bool], Complaint] = {}

    def __call__(self, mark: Mark, message: str, hint: str = "", rule: Rule = UNCLASSIFIED, notes: tuple[Note, ...] = ()) -> None:
        self.add(Complaint(mark, message, hint, rule, notes))

    def add(self, complaint: Complaint) -> None:
        self._kept.setdefault((complaint.mark, complaint.rule is UNKNOWN_FIELD), complaint)

    def __contains__(self, mark: object) -> bool:
        return any((mark, unknown) in self._kept for unknown in (False, True))

    def __bool__(self) -> bool:
        return bool(self._kept)

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        return tuple(self._kept.values())


class VgcompileError(Exception):
    """Base of every error that vgcompile raises on purpose."""

    exit_code = 2


class UserError(VgcompileError):
    """An error that the person who asked can mend; ``complaints`` are its places in a text, where it has any."""

    complaints: tuple[Complaint, ...] = ()


class SpecError(UserError):
    """Complaints about a YAML model, sorted by place."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = tuple(sorted(complaints, key=lambda complaint: complaint.mark))
        super().__init__("\n".join(map(str, self.complaints)))


class ModelError(UserError):
    """An ONNX model that cannot be read, or holds something that is not supported."""


class GradientRefused(UserError):
    """No gradient rule covers this case; names operator, node, reason and what would do."""

    def __init__(self, operator: str, node: str, reason: str, hint: str) -> None:
        self.operator, self.node, self.reason, self.hint = operator, node, reason, hint
        super().__init__(f"{operator} (node {node!r}): {reason}; {hint}")


@dataclass(frozen=True)
class Fault:
    """One thing wrong with data: what was found where, and what would do.

    It was asked for by a ``field`` of the model's ``data:``, on behalf of an ``input``, as far as known; ``notes`` show rows.
    """

    message: str
    hint: str = ""
    input: str = ""
    field: str = ""
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        return self.message + (f"; {self.hint}" if self.hint else "")


class DataError(UserError):
    """Data that do not fit the model: a missing array, a wrong shape or type.

    A fault may be a string, ``what was found; what would do``. ``complaints`` say the same at the places of the model's text.
    """

    def __init__(self, *faults: Fault | str, complaints: Iterable[Complaint] = ()) -> None:
        self.faults = tuple(_fault(fault) if isinstance(fault, str) else fault for fault in faults)
        self.complaints = tuple(complaints)
        super().__init__("\n".join(map(str, self.complaints or self.faults)))

    def about(self, name: str) -> DataError:
        """The same, on behalf of an input where a fault states none."""
        return DataError(*(replace(fault, input=fault.input or name) for fault in self.faults))


def _fault(said: str) -> Fault:
    message, _, hint = said.partition("; ")
    return Fault(message, hint)


class EngineError(UserError):
    """A drawing engine or an execution provider that is missing or failed."""


class SelfCheckError(VgcompileError):
    """A measured number left its certified bound, or a compiled file failed its own check."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'relu'?"`` for the nearest known name, or ``""`` where none is near."""
    spelt = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.5)
    return f"did you mean {spelt[close[0]]!r}?" if close else ""
