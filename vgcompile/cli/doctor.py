"""``vgcompile doctor``: what is installed, and what can be done with it."""

from __future__ import annotations

import typer

PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy", "scipy", "networkx", "graphviz-pure", "pydantic", "typer")


def doctor() -> None:
    """Show versions, providers, engine and operators.

    \b
    vgcompile doctor
    """
    import platform
    import textwrap
    from importlib.metadata import PackageNotFoundError, version

    from vgcompile import __version__
    from vgcompile.errors import EngineError
    from vgcompile.ops import INTERNAL, OPS
    from vgcompile.render.engine import engine_version
    from vgcompile.runtime.providers import providers

    typer.echo(f"vgcompile       {__version__}")
    typer.echo(f"python          {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            typer.echo(f"{package:16}{version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package:16}not installed")
    typer.echo(f"providers       {', '.join(providers())}")
    try:
        typer.echo(f"drawing engine  {engine_version()}")
    except EngineError as error:
        typer.echo(f"drawing engine  none: {error}")
    standard = sorted((row for row in OPS.values() if row.domain != INTERNAL), key=lambda row: row.name)
    for title, rows in (
        ("with a gradient", [row.name for row in standard if not row.blocked and not row.uncovered]),
        ("where no gradient flows", [row.name for row in standard if row.blocked]),
        ("that are refused where a gradient is asked for", [row.name for row in standard if row.uncovered]),
    ):
        typer.echo(f"{len(rows)} operators {title}:")
        typer.echo(textwrap.fill(", ".join(rows), 100, initial_indent="  ", subsequent_indent="  "))
