"""Findings on the command line: which ones fail it, which ones are known, and as what complaints they are said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.cli.parameters import FOUND
from vgcompile.errors import Complaint, Note, UserError, nearest
from vgcompile.rules.gradients import KINDS, RULES

if TYPE_CHECKING:
    from vgcompile.analysis.result import Analysis, Finding

ANY = "any"

FailOn = Annotated[
    str,
    typer.Option(
        "--fail-on",
        metavar="FINDING,...",
        help=f"Exit 1 if one is found of: {', '.join(KINDS)}, a code such as {RULES[0].code}, or {ANY}.",
    ),
]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="FILE", help="Findings that are known, and let pass; see --write-baseline.")
]
WriteBaseline = Annotated[
    str | None, typer.Option("--write-baseline", metavar="FILE", help="Write what is found, to be let pass from now on.")
]


def asked(text: str) -> tuple[str, ...]:
    """The words of --fail-on: kinds, codes, names of rules, ``any``. Raises UserError for one that is none."""
    known = {word.lower(): word for word in (*KINDS, ANY, *(rule.code for rule in RULES), *(rule.name for rule in RULES))}
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word.lower() not in known:
            raise UserError(f"--fail-on {word!r}: " + (nearest(word, known.values()) or f"it takes {', '.join((*KINDS, ANY))}"))
    return tuple(known[word.lower()] for word in words)


def lines_by_kind(analysis: Analysis, words: Iterable[str]) -> list[str]:
    """One line for each of the words that something new is found of, with the layers."""
    from vgcompile.analysis.findings.wording import listed

    wanted = dict.fromkeys(kind for word in words for kind in (KINDS if word == ANY else [word]))
    found = {
        word: dict.fromkeys(finding.layer for finding in analysis.findings if not finding.known and _is(finding, word))
        for word in wanted
    }
    return [f"{analysis.source}: {word}: {listed(list(layers))}" for word, layers in found.items() if layers]


def _is(finding: Finding, word: str) -> bool:
    return word in (finding.rule.code, finding.rule.name) or finding.rule in KINDS.get(word, ())


def fail_on(analysis: Analysis, words: Iterable[str]) -> None:
    """Exit 1 where something new is found that is asked about."""
    found = lines_by_kind(analysis, words)
    for line in found:
        typer.echo(line, err=True)
    if found:
        raise typer.Exit(FOUND)


# baselines


def compared(analysis: Analysis, file: str) -> Analysis:
    """The analysis with what a baseline lists marked as known; a note says how much of the latter is there no longer."""
    known = _read(file)
    findings = tuple(replace(finding, known=finding.id in known) for finding in analysis.findings)
    gone = known - {finding.id for finding in findings}
    if gone:
        typer.echo(f"note: {len(gone)} of {len(known)} findings of {file} are mended; --write-baseline forgets them", err=True)
    return replace(analysis, findings=findings)


def _read(file: str) -> set[str]:
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
        return set(document["findings"])
    except OSError as error:
        raise UserError(f"{file}: no baseline to read ({error.strerror}); --write-baseline {file} writes one") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: this is no baseline, which --write-baseline writes") from None


def baseline(analysis: Analysis) -> str:
    """The findings by their ids, one a line, so that a change of them reads well."""
    return json.dumps({"schema": 1, "findings": sorted(finding.id for finding in analysis.findings)}, indent=1) + "\n"


# saying


def complaints(findings: Iterable[Finding]) -> list[Complaint]:
    """What is new, as complaints: once a rule and place."""
    from vgcompile.analysis.findings.wording import together

    return [_complaint(group) for group in together(findings) if not group[0].known]


def _complaint(group: Sequence[Finding]) -> Complaint:
    from vgcompile.analysis.findings.wording import listed, reasons, worst

    said = worst(group)
    notes = [Note(line) for line in reasons(said)]
    others = [finding.layer for finding in group if finding is not said]
    if others:
        notes.append(Note(f"so it is of {listed(others)}"))
    message = f"{said.layer}: {said.message}"
    return Complaint(said.mark, message, said.hint, said.rule, tuple(notes), said.severity, group[0].id)
