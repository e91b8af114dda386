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
    from importlib.metadata import PackageNotFoundError, version

    from vgcompile import __version__
    from vgcompile.errors import EngineError
    from vgcompile.ops.catalogue import catalogue
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
    entries = list(catalogue())
    flowing = sum(entry.gradient not in ("zero", "refused") for entry in entries)
    typer.echo(f"operators       {len(entries)}, {flowing} of them with a gradient; `vgcompile ops` lists them")
