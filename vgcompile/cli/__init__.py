"""The command line: ``vgcompile COMMAND MODEL``.

Each command parses its options, calls one function and prints. Results go to stdout, messages to stderr. Exit codes: 0 done,
1 findings (only with --fail-on), 2 the person who asked can mend it, 3 vgcompile contradicts itself, 130 interrupted.

Nothing that computes is imported before a command runs, for ``--help`` is to answer at once.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence
from typing import TypeGuard

from vgcompile.errors import SelfCheckError, UserError, VgcompileError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. ``--debug``, anywhere, lets a traceback through."""
    if arguments is None:  # the process ends with this, and what it holds dies with it: no cycle of it need be looked for
        atexit.register(gc.freeze)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        return _run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        _report(error)
        return _exit_code(error)


def _run(arguments: list[str]) -> int:
    from vgcompile.cli import deferring
    from vgcompile.cli.app import app

    deferring.install()

    try:
        app(arguments, prog_name="vgcompile")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


def _report(error: Exception) -> None:
    """On stderr: a line for each thing wrong or, on a terminal, each with its place in the text."""
    if isinstance(error, UserError) and error.complaints and sys.stderr.isatty():
        from vgcompile.cli.snippet import show

        show(error.complaints)
    else:
        print(_message(error), file=sys.stderr)


def _message(error: Exception) -> str:
    if isinstance(error, VgcompileError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if _is_missing_package(error):
        return f"the package {error.name!r} is not installed here; `pip install vgcompile` brings all that vgcompile needs"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error or 'none is left'}; take a smaller batch or a narrower model"
    return f"internal error: {type(error).__name__}: {error}; run with --debug for a traceback to report"


def _exit_code(error: Exception) -> int:
    if isinstance(error, VgcompileError):
        return error.exit_code
    return 2 if isinstance(error, OSError | MemoryError) or _is_missing_package(error) else SelfCheckError.exit_code


def _is_missing_package(error: Exception) -> TypeGuard[ModuleNotFoundError]:
    return isinstance(error, ModuleNotFoundError) and not (error.name or "vgcompile").startswith("vgcompile")
