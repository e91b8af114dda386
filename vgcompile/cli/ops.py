"""``vgcompile ops``: the operator table."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def ops(
    names: Annotated[list[str] | None, typer.Argument(metavar="[OPERATOR]...", help="Only these; else all.")] = None,
    form: Annotated[Literal["text", "json", "markdown"], typer.Option("--format", help="How it is written.")] = "text",
) -> None:
    """List the operators: gradient, slope, moments, edges.

    \b
    vgcompile ops
    vgcompile ops MaxPool ReduceProd
    vgcompile ops --format json
    """
    import json
    import textwrap
    from dataclasses import asdict

    from vgcompile.errors import UserError, nearest
    from vgcompile.ops.catalogue import as_markdown, catalogue

    entries = {entry.operator: entry for entry in catalogue()}
    for name in names or ():
        if name not in entries:
            raise UserError(f"{name!r} is no operator of the table" + (f"; {hint}" if (hint := nearest(name, entries)) else ""))
    chosen = [entries[name] for name in names] if names else list(entries.values())
    if form == "markdown":
        typer.echo(as_markdown(), nl=False)
    elif form == "json":
        typer.echo(json.dumps({"schema": 1, "operators": [asdict(entry) for entry in chosen]}, indent=1))
    else:
        typer.echo(f"{'operator':28}{'since':>5}  {'gradient':8}  {'slope':5}  {'moments':7}  what it is")
        for entry in chosen:
            words = f"{entry.operator:28}{entry.since:5}  {entry.gradient:8}  {entry.slope:5}  {entry.moments:7}  "
            text = entry.doc + (f" ({entry.note})" if entry.note else "")
            typer.echo(textwrap.fill(text, 130, initial_indent=words, subsequent_indent=" " * len(words)))
