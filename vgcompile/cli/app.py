"""The commands, assembled in one visible place."""

from __future__ import annotations

import re
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
from vgcompile.cli.fix import fix
from vgcompile.cli.fmt import fmt
from vgcompile.cli.importing import import_
from vgcompile.cli.new import new
from vgcompile.cli.ops import ops
from vgcompile.cli.report import report
from vgcompile.cli.run import run
from vgcompile.cli.schema import schema
from vgcompile.cli.summary import summary
from vgcompile.cli.verify import verify
from vgcompile.errors import nearest


class Commands(TyperGroup):
    """Typer ends an interrupted command with code 1, where shells expect 130, and hands on what its validator says."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except typer.BadParameter as error:
            error.message = _in_our_words(error.message)
            raise


def _in_our_words(message: str) -> str:
    """Typer's complaint about a value, without the validator's own prefix and with the nearest of the choices that it lists."""
    said = message.removeprefix("Value error, ").removesuffix(".").replace("Input should", "it should")
    said = said.split(", unable to parse")[0]
    given, *known = re.findall(r"'([^']*)'", said) or [""]
    hint = nearest(given, known)
    return f"{said}; {hint}" if hint else said


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
    fix,
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
