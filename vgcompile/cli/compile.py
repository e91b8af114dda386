"""``vgcompile compile``: the ONNX files of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from vgcompile.cli.files import refuse_file
from vgcompile.cli.parameters import Loss, Model, Output, Seed, Settings, Variant, open_model


def compile(
    model: Model,
    folder: Annotated[str, typer.Option("-o", metavar="DIR", help="Folder for the files.")] = "out",
    loss: Loss = None,
    output: Output = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
) -> None:
    """Write the forward and the backward pass as ONNX.

    NAME.onnx holds the forward pass, NAME.grad.onnx forward, loss and backward. Both hold standard operators only and run in
    stock ONNX Runtime. In NAME.grad.onnx every parameter is an input with a default, and grad.PARAMETER an output.

    \b
    vgcompile compile models/deep_sigmoid.yaml -o out
    vgcompile compile classifier.onnx --loss loss
    """
    refuse_file(folder)
    from vgcompile.compiler import compile_network

    compiled = compile_network(open_model(model, loss, output, seed=seed, variant=variant, settings=settings))
    for path in compiled.write(folder):
        typer.echo(f"wrote {path}", err=True)
    if len(compiled.outlines) == 1:
        typer.echo(
            f"note: {model} has no loss, so there is no NAME.grad.onnx; state one (`loss:` in YAML, --loss for ONNX)", err=True
        )
