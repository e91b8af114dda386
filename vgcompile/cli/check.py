"""``vgcompile check``: what a model holds, and what is wrong with it, without running it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

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

if TYPE_CHECKING:
    from vgcompile.graph.network import Input, Network


def check(
    model: Model,
    data: Data = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    variant: Variant = None,
    settings: Settings = None,
    fail: FailOn = "",
) -> None:
    """Say what a model holds, and what is wrong with it.

    Nothing is run. Complaints about the text come with line and column; a model that reads well is judged by bounds and by
    prediction.

    \b
    vgcompile check models/deep_sigmoid.yaml
    vgcompile check classifier.onnx --fail-on vanishing,dead
    """
    kinds = several(fail, KINDS, "--fail-on")
    network = open_model(model, loss, output, mode, variant=variant, settings=settings)
    from vgcompile.analysis import Options
    from vgcompile.analysis.measured import instrument
    from vgcompile.analysis.pipeline import Tier
    from vgcompile.errors import GradientRefused
    from vgcompile.graph.skeleton import IN_MEMORY
    from vgcompile.passes.gradient import gradient

    lines = _description(network)
    try:
        instrument(network) if network.loss is None else gradient(network)
    except GradientRefused as refused:
        lines.append(f"{model}: no gradient: {refused}")
    tiers: list[Tier] = ["sound", "expected"]
    if 4 * sum(network.sizes().values()) > IN_MEMORY:
        tiers.remove("sound")
        lines.append("  bounds  need the weights, which check does not draw where they are large: see vgcompile analyze")
    analysis = analysed(network, Options(data=data, tiers=tiers, mode=mode))
    typer.echo("\n".join([*lines, *findings(analysis, KINDS)]))
    if findings(analysis, kinds):
        raise typer.Exit(FOUND)


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
