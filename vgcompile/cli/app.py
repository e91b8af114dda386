"""The commands, assembled in one visible place."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vgcompile.cli import INTERRUPTED
from vgcompile.cli.analyze import analyze
from vgcompile.cli.check import check
from vgcompile.cli.compile import compile
from vgcompile.cli.derivatives import grad, hvp
from vgcompile.cli.doctor import doctor
from vgcompile.cli.draw import draw
from vgcompile.cli.explain import explain
from vgcompile.cli.fmt import fmt
from vgcompile.cli.importing import import_
from vgcompile.cli.new import new
from vgcompile.cli.ops import ops
from vgcompile.cli.report import report
from vgcompile.cli.run import run
from vgcompile.cli.schema import schema
from vgcompile.cli.summary import summary
from vgcompile.cli.verify import verify


class Commands(TyperGroup):
    """Typer ends an interrupted command with code 1; shells expect 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    new,
    check,
    summary,
    compile,
    grad,
    hvp,
    verify,
    analyze,
    draw,
    run,
    report,
    fmt,
    import_,
    explain,
    ops,
    doctor,
    schema,
):
    app.command(command.__name__.rstrip("_"))(command)


def _version(wanted: bool) -> None:
    if wanted:
        from vgcompile import __version__

        typer.echo(f"vgcompile {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works behind a command too.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """See vanishing gradients before the first training step.

    MODEL is a YAML model or an ONNX file.
    """
