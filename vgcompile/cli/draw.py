"""``vgcompile draw``: pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import (
    Batch,
    BatchAxis,
    Data,
    EngineOption,
    Loss,
    Model,
    ModeOption,
    Output,
    PartOption,
    ProviderOption,
    Seed,
    Settings,
    Variant,
    analysed,
    open_model,
)
from vgcompile.errors import UserError

Format = Literal["svg", "png", "pdf", "dot"]
View = Literal["forward", "butterfly", "depth", "steps", "activations"]


def draw(
    model: Model,
    format: Annotated[Format | None, typer.Option("-f", "--format", help="Format; else by the file's ending, else svg.")] = None,
    view: Annotated[View, typer.Option("--view", help="Which picture.")] = "forward",
    engine: EngineOption = None,
    file: Annotated[
        str | None, typer.Option("-o", metavar="FILE", help="File for the picture, - for stdout; else under out.")
    ] = None,
    data: Data = None,
    part: PartOption = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    batch: Batch = None,
    batch_axis: BatchAxis = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    provider: ProviderOption = "auto",
) -> None:
    """Draw a model and the gradient that gets through it.

    forward: layers from input to loss. butterfly: forward and backward side by side. depth: gradient by layer, in three tiers.
    steps: gradient by step of a recurrence. activations: each activation, its slope, and where the values lie.

    \b
    vgcompile draw models/deep_sigmoid.yaml --view butterfly -o deep_sigmoid.svg
    vgcompile draw classifier.onnx -f png -o - > classifier.png
    """
    chosen = format or _by_ending(file)
    network = open_model(model, loss, output, mode, seed, variant=variant, settings=settings, batch_axis=batch_axis)
    from vgcompile.analysis import Options
    from vgcompile.render.pictures import file_name, picture

    options = Options(data=data, part=part, batch=batch, seed=seed, mode=mode, provider=provider, statistics="all")
    drawn = picture(view, network, analysed(network, options), chosen, engine)
    deliver(file or Path("out") / file_name(network.name, view, chosen), drawn)


def _by_ending(file: str | None) -> Format:
    ending = Path(file).suffix.lstrip(".") if file not in (None, STDOUT) else "svg"
    known: dict[str, Format] = {**{name: name for name in get_args(Format)}, "gv": "dot"}
    if ending not in known:
        raise UserError(f"-o {file}: no format ends in {ending!r}; name one with -f: {', '.join(get_args(Format))}")
    return known[ending]
