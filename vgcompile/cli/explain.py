"""``vgcompile explain``: the rules behind complaints."""

from __future__ import annotations

from typing import Annotated

import typer

from vgcompile.rules import CATALOGUE
from vgcompile.rules.rule import Rule


def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="Such as VG101; else all are listed.")] = None,
) -> None:
    """Explain a complaint's rule, or list all rules.

    \b
    vgcompile explain VG302
    vgcompile explain bias-before-batch-norm
    """
    import textwrap

    if code is None:
        typer.echo("\n".join(f"{rule.code}  {rule.severity:7}  {rule.name}" for rule in CATALOGUE.values()))
        return
    rule = _named(code)
    typer.echo(f"{rule.code} {rule.name} ({rule.severity})\n\n{textwrap.fill(rule.meaning, 100)}")
    if rule.failing:
        typer.echo(f"\nFails:\n\n{textwrap.indent(rule.failing, '    ')}\n{textwrap.indent(_said(rule), '    ')}")
        typer.echo(f"Repaired:\n\n{textwrap.indent(rule.repaired, '    ')}", nl=False)
    if rule.severity == "warning":
        typer.echo(f"\n`# vgcompile: ignore {rule.code}` at the end of a line takes it back there.")


def _named(code: str) -> Rule:
    """By code or name. Raises UserError with the nearest one."""
    from vgcompile.errors import UserError, nearest

    by_name = {rule.name: rule for rule in CATALOGUE.values()}
    found = CATALOGUE.get(code.upper()) or by_name.get(code.lower())
    if found is None:
        hint = nearest(code.upper(), CATALOGUE) or nearest(code.lower(), by_name) or "`vgcompile explain` lists them"
        raise UserError(f"there is no rule {code!r}; {hint}")
    return found


def _said(rule: Rule) -> str:
    """What is said of the failing example."""
    import io

    from vgcompile.build import build
    from vgcompile.cli.snippet import show
    from vgcompile.errors import SpecError
    from vgcompile.spec import loads

    said, file = io.StringIO(), "model.yaml"
    try:
        complaints = build(loads(rule.failing, file)).warnings
    except SpecError as error:
        complaints = error.complaints
    show(complaints, said, {file: rule.failing})
    return said.getvalue()
