"""``vgcompile new``: a model to start from. Every file in ``starters/`` is one; its first line says what it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.errors import UserError, nearest


def new(
    starter: Annotated[str, typer.Argument(metavar="NAME", help="The starter; --list shows them.")] = "",
    file: Annotated[
        str | None, typer.Option("-o", metavar="FILE.yaml", help="Where to write; else NAME.yaml; - for stdout.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the starters.")] = False,
) -> None:
    """Write a model to start from.

    A small, complete and commented model of its kind. A file that is there already is left alone.

    \b
    vgcompile new --list
    vgcompile new resnet -o models/mine.yaml
    """
    known = starters()
    if listed or not starter:
        width = max(map(len, known))
        typer.echo("\n".join(f"{name:{width}}  {title(text)}" for name, text in known.items()))
        return
    if starter not in known:
        raise UserError(f"no starter {starter!r}: " + (nearest(starter, known) or f"there are {', '.join(known)}"))
    target = file or f"{starter}.yaml"
    if target != STDOUT and Path(target).exists():
        raise UserError(f"{target}: the file exists; name another one with -o")
    text = known[starter]
    if file not in (None, STDOUT):
        text = text.replace(f"name: {starter}\n", "", 1)  # the file's name is the model's
    deliver(target, text.encode())


def starters() -> dict[str, str]:
    """The text of each starter, by name."""
    found = [entry for entry in files("vgcompile.cli").joinpath("starters").iterdir() if entry.name.endswith(".yaml")]
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in sorted(found, key=lambda entry: entry.name)}


def title(text: str) -> str:
    return text.splitlines()[0].lstrip("# ")
