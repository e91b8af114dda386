"""Complaints where a command was asked for them: for persons on stderr, for programs on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.formats import MACHINE, Format
from vgcompile.errors import Complaint, Mark, UserError
from vgcompile.rules.text import UNCLASSIFIED, UNREADABLE

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="How complaints are written: text in full, the others on stdout; else a line each."),
]


def write(complaints: Sequence[Complaint], form: Format | None) -> None:
    """Those for programs to stdout, even if there are none; those for persons to stderr."""
    if form is not None and form in MACHINE:
        written = MACHINE[form](complaints)
        typer.echo(written, nl=bool(written))
    elif form == "text" or sys.stderr.isatty():
        from vgcompile.cli.snippet import show

        show(complaints)
    else:
        for complaint in complaints:
            typer.echo(complaint, err=True)


@contextmanager
def said_in(form: Format, model: str) -> Iterator[None]:
    """What is wrong with a model or its data is written in the form that findings are asked for in, and ends with its code.

    Not in JSON, where an analysis is asked for and a complaint is none.
    """
    try:
        yield
    except UserError as error:
        is_about_model = bool(error.complaints) or str(error).startswith(f"{model}: ")
        if form not in ("github", "sarif") or not is_about_model:
            raise
        write(complaints_of(model, error), form)
        raise typer.Exit(error.exit_code) from None


def complaints_of(model: str, error: UserError) -> Sequence[Complaint]:
    """What an error complains of; one about a file as a whole, which is missing or no text, has no place in it."""
    if error.complaints:
        return error.complaints
    rule = UNCLASSIFIED if Path(model).is_file() else UNREADABLE
    return [Complaint(Mark(model, 1), str(error).removeprefix(f"{model}: "), rule=rule)]
