"""``vgcompile explain``: the rules behind complaints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.rules import CATALOGUE
from vgcompile.rules.rule import Rule

if TYPE_CHECKING:
    from vgcompile.errors import Complaint


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
    if rule.analysed:
        stated = ", ".join(f"{name} {_words(value)}" for name, value in rule.analysed.items())
        typer.echo(f"\nFound by `vgcompile analyze`; the example with {stated}.")
    if rule.failing:
        typer.echo(f"\nFails:\n\n{textwrap.indent(rule.failing, '    ')}\n{textwrap.indent(_said(rule), '    ')}")
        typer.echo(f"Repaired:\n\n{textwrap.indent(rule.repaired, '    ')}", nl=False)
    if rule.severity == "warning":
        typer.echo(f"\n`# vgcompile: ignore {rule.code}` at the end of a line takes it back there.")


def _words(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


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

    from vgcompile.cli.snippet import show

    said, file = io.StringIO(), "model.yaml"
    show(_judged(rule, file), said, {file: rule.failing})
    return said.getvalue()


def _judged(rule: Rule, file: str) -> Sequence[Complaint]:
    """By the reader or, where the rule is of an analysis, by one with the rule's options."""
    from vgcompile.build import build
    from vgcompile.errors import SpecError
    from vgcompile.spec import loads

    try:
        network = build(loads(rule.failing, file))
    except SpecError as error:
        return error.complaints
    if not rule.analysed:
        return network.warnings
    from vgcompile.analysis import Options, analyze
    from vgcompile.cli.findings import complaints

    return complaints(analyze(network, Options(**rule.analysed)).findings)
