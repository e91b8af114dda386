"""``vgcompile fmt``: model files in their canonical layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.files import write_atomically
from vgcompile.cli.parameters import FOUND
from vgcompile.errors import Complaint, SpecError


def fmt(
    files: Annotated[list[str], typer.Argument(metavar="FILE.yaml...", help="YAML models; written in place.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change, exit 1 if anything.")] = False,
) -> None:
    """Put model files into their canonical layout.

    Keys in one order, a layer in a line where it fits, quotes where they are needed. Comments are kept, and nothing that a file
    says is changed: a file that is not YAML is left as it is, and complained about.

    \b
    vgcompile fmt models/*.yaml
    vgcompile fmt --check models/*.yaml
    """
    from vgcompile.spec import read_text
    from vgcompile.spec.layout import formatted

    complaints: list[Complaint] = []
    changed = 0
    for file in files:
        try:
            before = read_text(file)
            after = formatted(before, file)
        except SpecError as error:
            complaints += error.complaints
            continue
        if after == before:
            continue
        changed += 1
        if diff:
            typer.echo(_difference(before, after, file), nl=False)
        elif check:
            typer.echo(f"{file}: not in canonical layout")
        else:
            write_atomically(Path(file).resolve(), after.encode())
            typer.echo(f"wrote {file}", err=True)
    if complaints:
        raise SpecError(complaints)
    if changed and (check or diff):
        raise typer.Exit(FOUND)


def _difference(before: str, after: str, file: str) -> str:
    from difflib import unified_diff

    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), file, file)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
