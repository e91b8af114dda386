"""``vgcompile check``: what a model holds, and what is wrong with it, without running it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.cli.complaints import FormatOption, complaints_of, write
from vgcompile.cli.findings import ANY, FailOn, asked, lines_by_kind
from vgcompile.cli.formats import MACHINE
from vgcompile.cli.parameters import (
    FOUND,
    Data,
    Loss,
    Model,
    ModeOption,
    Output,
    Settings,
    Variant,
    analysed,
    open_model,
)
from vgcompile.errors import DataError, UserError

if TYPE_CHECKING:
    from vgcompile.graph.network import Input, Network

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
    words = asked(fail)
    try:
        network = open_model(model, loss, output, mode, variant=variant, settings=settings)
    except UserError as error:
        if form is None:
            raise
        write(complaints_of(model, error), form)
        raise typer.Exit(error.exit_code) from None
    from vgcompile.analysis import Options
    from vgcompile.analysis.pipeline import Tier
    from vgcompile.graph.skeleton import IN_MEMORY

    lines = [] if form in MACHINE else _description(network) + _refusal(network)
    is_found = strict and bool(network.warnings)
    if lines or words:
        tiers: list[Tier] = ["sound", "expected"]
        if 4 * sum(network.sizes().values()) > IN_MEMORY:
            tiers.remove("sound")
            lines.append("  bounds  need the weights, which check does not draw where they are large: see vgcompile analyze")
        try:
            analysis = analysed(network, Options(data=data, tiers=tiers, mode=mode, paths=False))
        except DataError as error:
            if form is None or not error.complaints:
                raise
            write([*network.warnings, *error.complaints], form)
            raise typer.Exit(error.exit_code) from None
        lines += lines_by_kind(analysis, [ANY]) if lines else []
        is_found = is_found or bool(lines_by_kind(analysis, words))
    write(network.warnings, form)
    if lines:
        typer.echo("\n".join(lines))
    if is_found:
        raise typer.Exit(FOUND)


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
