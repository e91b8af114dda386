"""The one door to Graphviz: DOT text in, a picture out, by a program that runs on its own and is told when to give up.

The embedded engine comes first, for it draws the same bytes on every machine; a system ``dot`` stands in where there is none and
where the embedded one cannot do a format (PDF).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Literal

from vgcompile.errors import EngineError

Format = Literal["svg", "png", "pdf", "dot"]

EMBEDDED = "graphviz-pure"
SYSTEM = "dot"
VARIABLE = "VGCOMPILE_DOT"
TIMEOUT = 120.0  # seconds; a graph of 2,000 nodes takes 4
EMBEDDED_CANNOT = ("pdf",)
INSTALL = f"install one with `pip install {EMBEDDED}` or the system's graphviz package, or name one with --engine or {VARIABLE}"


def layout(dot: str, format: Format = "svg", engine: str | None = None) -> bytes:
    """Draw a graph. ``engine`` is a program to use instead of the found one, as is the variable ``VGCOMPILE_DOT``.

    Raises EngineError where no engine is found, the engine cannot write the format, fails, or takes longer than two minutes.
    """
    program = _explicit(engine) or _found(format)
    try:
        done = subprocess.run([program, f"-T{format}"], input=dot.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"{program} took longer than {TIMEOUT:.0f} s: fold the repeats or draw a smaller part") from None
    except OSError as error:
        raise EngineError(f"cannot run the drawing engine {program}: {error.strerror}; {INSTALL}") from None
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError(f"{program} -T{format} failed: {said[0] if said else f'exit {done.returncode}, no output'}")
    return done.stdout


def engine_version(engine: str | None = None) -> str:
    """The engine that would draw an SVG: its path and what it says of itself. Raises EngineError where there is none."""
    program = _explicit(engine) or _found("svg")
    done = subprocess.run([program, "-V"], capture_output=True, timeout=TIMEOUT, check=False)
    return f"{program}: {(done.stdout or done.stderr).decode(errors='replace').strip()}"


def _explicit(engine: str | None) -> str | None:
    """The program that the person named, if any; a name that is not there is an error and never passed over."""
    named = engine or os.environ.get(VARIABLE)
    if not named:
        return None
    program = shutil.which(named)
    if program is None:
        origin = "--engine" if engine else VARIABLE
        raise EngineError(f"{origin} names {named!r}, which is no program here; {INSTALL}")
    return program


def _found(format: Format) -> str:
    embedded = None if format in EMBEDDED_CANNOT else _embedded()
    program = embedded or shutil.which(SYSTEM)
    if program is not None:
        return program
    if format in EMBEDDED_CANNOT and _embedded():
        raise EngineError(
            f"the embedded engine {EMBEDDED} writes no {format.upper()}: draw SVG or PNG, "
            f"or install the system's graphviz package for {SYSTEM}"
        )
    raise EngineError(f"no drawing engine found (neither {EMBEDDED} nor {SYSTEM}); {INSTALL}")


def _embedded() -> str | None:
    """The embedded engine: among this Python's scripts, beside the running interpreter, or on PATH."""
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    return shutil.which(EMBEDDED, path=os.pathsep.join(folders)) or shutil.which(EMBEDDED)
