"""Writing results: aside and renamed, so that an interrupted command leaves no half a file."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import typer

from vgcompile.errors import UserError

STDOUT = "-"


def write_atomically(path: str | Path, content: bytes) -> None:
    """Put ``content`` at ``path`` as a whole or not at all; folders are made. Raises UserError where it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(aside, 0o666 & ~umask)  # mkstemp keeps others out, an ordinary file does not
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another place with -o") from None


def within(folder: str, name: str) -> Path:
    """Where one of several files goes. Raises UserError for stdout, which takes one alone."""
    if folder == STDOUT:
        raise UserError(f"-o {STDOUT}: there are several files to write; name a folder for them")
    return Path(folder) / name


def deliver(target: str | Path, content: bytes) -> None:
    """Write a result to a file, which is said on stderr, or to stdout for ``-``."""
    if str(target) == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_atomically(target, content)
    typer.echo(f"wrote {target}", err=True)
