"""Complaints for programs: JSON, GitHub's workflow commands, and SARIF 2.1.0 (OASIS, 2020)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal
from urllib.parse import quote

from vgcompile.errors import Complaint, Mark
from vgcompile.rules.rule import Rule

Format = Literal["text", "json", "github", "sarif"]

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME = "https://pypi.org/project/vgcompile/"


def as_json(complaints: Iterable[Complaint]) -> str:
    """One object; ``end_column``, behind the last character, is null where the place ends on another line."""
    found = [
        {
            "code": complaint.rule.code,
            "name": complaint.rule.name,
            "severity": complaint.severity,
            "message": complaint.message,
            "hint": complaint.hint or None,
            **_place(complaint.mark),
            "notes": [
                *({"message": message} for message in complaint.mark.origin),
                *({"message": note.message, **(_place(note.mark) if note.mark else {})} for note in complaint.notes),
            ],
        }
        for complaint in complaints
    ]
    return json.dumps({"schema": 1, "complaints": found}, indent=1)


def _place(mark: Mark) -> dict[str, Any]:
    return {"file": mark.file, "line": mark.line, "column": mark.column, "end_column": mark.end or None}


def as_github(complaints: Iterable[Complaint]) -> str:
    """One workflow command a complaint, which GitHub shows at its line."""
    return "\n".join(map(_command, complaints))


def _command(complaint: Complaint) -> str:
    mark, rule = complaint.mark, complaint.rule
    properties = {"file": PurePath(mark.file).as_posix()}
    if mark.line:
        properties |= {"line": str(mark.line), "col": str(mark.column)}
        properties |= {"endColumn": str(mark.end)} if mark.end else {}
    properties["title"] = f"{rule.code} {rule.name}"
    stated = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{complaint.severity} {stated}::{_escaped(_sentence(complaint))}"


def _escaped(text: str, also: str = "") -> str:
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def as_sarif(complaints: Sequence[Complaint]) -> str:
    """A log of one run, with the rules that it speaks of."""
    from vgcompile import __version__

    rules = {complaint.rule.code: complaint.rule for complaint in complaints}
    index = {code: place for place, code in enumerate(rules)}
    driver = {
        "name": "vgcompile",
        "version": __version__,
        "informationUri": _HOME,
        "rules": [_rule(rule) for rule in rules.values()],
    }
    results = [_result(complaint, index) for complaint in complaints]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.meaning},
        "help": {"text": f"vgcompile explain {rule.code}"},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(complaint: Complaint, index: Mapping[str, int]) -> dict[str, Any]:
    related = [
        {**_location(note.mark), "id": number, "message": {"text": note.message}}
        for number, note in enumerate((note for note in complaint.notes if note.mark), 1)
        if note.mark
    ]
    return {
        "ruleId": complaint.rule.code,
        "ruleIndex": index[complaint.rule.code],
        "level": complaint.severity,
        "message": {"text": _sentence(complaint)},
        "locations": [_location(complaint.mark)],
        **({"relatedLocations": related} if related else {}),
        **({"partialFingerprints": {"layer/v1": complaint.fingerprint}} if complaint.fingerprint else {}),
    }


def _location(mark: Mark) -> dict[str, Any]:
    path = PurePath(mark.file)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if mark.line:
        place["region"] = {"startLine": mark.line, "startColumn": mark.column, **({"endColumn": mark.end} if mark.end else {})}
    return {"physicalLocation": place}


def _sentence(complaint: Complaint) -> str:
    """The message, what would do, and what is to be known that has no place of its own."""
    said = complaint.message + (f"; {complaint.hint}" if complaint.hint else "")
    notes = (*complaint.mark.origin, *(note.message for note in complaint.notes if note.mark is None))
    return said + "".join(f" ({note})" for note in notes)


MACHINE: Mapping[str, Callable[[Sequence[Complaint]], str]] = {"json": as_json, "github": as_github, "sarif": as_sarif}
