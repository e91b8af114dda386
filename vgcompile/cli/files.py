"""Writing results: aside and renamed, so that an interrupted command leaves no half a file."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from vgcompile.errors import UserError

STDOUT = "-"
WRITTEN = (".html", ".json", ".onnx", ".svg", ".gv")  # endings of files that go to a folder together


def write_atomically(path: str | Path, content: bytes) -> None:
    """Put ``content`` at ``path`` as a whole or not at all; folders are made. Raises UserError where it cannot be written."""
    from vgcompile.graph.storing import aside, unwritable

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as file:
            file.write(content)
    except OSError as error:
        raise unwritable(path, error) from None


def refuse_file(folder: str) -> None:
    """Raises UserError where several files are to go to stdout, or to what is called as one of them."""
    if folder == STDOUT:
        raise UserError(f"-o {STDOUT}: there are several files to write; name a folder for them")
    path = Path(folder)
    if path.suffix in WRITTEN and not path.is_dir():
        raise UserError(f"-o {folder}: there are several files to write; name a folder for them, {path.with_suffix('')} for one")


def deliver(target: str | Path, content: bytes) -> None:
    """Write a result to a file, which is said on stderr, or to stdout for ``-``."""
    if str(target) == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_atomically(target, content)
    typer.echo(f"wrote {target}", err=True)
