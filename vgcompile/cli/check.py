"""``vgcompile check``: what a model holds, and what is wrong with it, without running it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.cli.formats import MACHINE, Format
from vgcompile.cli.parameters import (
    FOUND,
    KINDS,
    Data,
    FailOn,
    Loss,
    Model,
    ModeOption,
    Output,
    Settings,
    Variant,
    analysed,
    findings,
    open_model,
    several,
)
from vgcompile.errors import Complaint, DataError, Mark, UserError
from vgcompile.rules.text import UNCLASSIFIED, UNREADABLE

if TYPE_CHECKING:
    from vgcompile.graph.network import Input, Network

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="How complaints are written: text in full, the others on stdout; else a line each."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 if there is a warning.")]


def check(
    model: Model,
    data: Data = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    variant: Variant = None,
    settings: Settings = None,
    fail: FailOn = "",
    form: FormatOption = None,
    strict: Strict = False,
) -> None:
    """Say what a model holds, and what is wrong with it.

    Nothing is run. Complaints about the text come with line and column; a model that reads well is judged by bounds and by
    prediction. Warnings are about what is allowed, and as a rule not meant; `vgcompile explain CODE` tells more.

    \b
    vgcompile check models/deep_sigmoid.yaml
    vgcompile check classifier.onnx --fail-on vanishing,dead
    vgcompile check models/lenet.yaml --strict --format sarif
    """
    kinds = several(fail, KINDS, "--fail-on")
    try:
        network = open_model(model, loss, output, mode, variant=variant, settings=settings)
    except UserError as error:
        if form is None:
            raise
        _write(error.complaints or [_without_place(model, error)], form)
        raise typer.Exit(error.exit_code) from None
    from vgcompile.analysis import Options
    from vgcompile.analysis.pipeline import Tier
    from vgcompile.graph.skeleton import IN_MEMORY

    lines = [] if form in MACHINE else _description(network) + _refusal(network)
    is_found = strict and bool(network.warnings)
    if lines or kinds:
        tiers: list[Tier] = ["sound", "expected"]
        if 4 * sum(network.sizes().values()) > IN_MEMORY:
            tiers.remove("sound")
            lines.append("  bounds  need the weights, which check does not draw where they are large: see vgcompile analyze")
        try:
            analysis = analysed(network, Options(data=data, tiers=tiers, mode=mode, paths=False))
        except DataError as error:
            if form is None or not error.complaints:
                raise
            _write([*network.warnings, *error.complaints], form)
            raise typer.Exit(error.exit_code) from None
        lines += findings(analysis, KINDS) if lines else []
        is_found = is_found or bool(findings(analysis, kinds))
    _write(network.warnings, form)
    if lines:
        typer.echo("\n".join(lines))
    if is_found:
        raise typer.Exit(FOUND)


def _write(complaints: Sequence[Complaint], form: Format | None) -> None:
    """Those for programs to stdout, even if there are none; those for persons to stderr."""
    if form is not None and form in MACHINE:
        written = MACHINE[form](complaints)
        typer.echo(written, nl=bool(written))
    elif form == "text" or sys.stderr.isatty():
        from vgcompile.cli.snippet import show

        show(complaints)
    else:
        for complaint in complaints:
            typer.echo(complaint, err=True)


def _without_place(model: str, error: UserError) -> Complaint:
    """An error about a file as a whole, which is missing or no text."""
    rule = UNCLASSIFIED if Path(model).is_file() else UNREADABLE
    return Complaint(Mark(model, 1), str(error).removeprefix(f"{model}: "), rule=rule)


def _refusal(network: Network) -> list[str]:
    from vgcompile.passes.gradient import refusal

    refused = refusal(network)
    return [] if refused is None else [f"{network.source}: no gradient: {refused}"]


def _description(network: Network) -> list[str]:
    from vgcompile.analysis.uses import parameter_layers

    sizes = network.sizes().values()
    operators = sum(1 for _ in network.model.graph)
    return [
        f"{network.name}: {operators} operators, opset {network.model.opset_imports['']}",
        *(f"  {declared.role:8}{_input(declared)}" for declared in network.inputs.values()),
        f"  layers  {len(parameter_layers(network))} with {len(sizes)} parameters of {sum(sizes):,} numbers",
        f"  output  {', '.join(network.outputs)}",
        f"  loss    {network.loss or 'none: state one (`loss:` in YAML, --loss for ONNX) for gradients'}",
    ]


def _input(declared: Input) -> str:
    shape = f"{declared.name} {declared.dtype.name.lower()} [{', '.join(map(str, declared.shape))}]"
    if declared.classes is not None:
        return f"{shape} of {declared.classes} classes"
    if declared.range is not None and all(math.isfinite(end) for end in declared.range):
        return f"{shape} in [{declared.range[0]:g}, {declared.range[1]:g}]"
    return shape
