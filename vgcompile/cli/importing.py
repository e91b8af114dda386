"""``vgcompile import``: an ONNX file as a readable YAML model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.errors import UserError


def import_(
    model: Annotated[str, typer.Argument(metavar="MODEL.onnx", help="An .onnx file made of layers that the language has.")],
    file: Annotated[
        str | None,
        typer.Option("-o", metavar="FILE.yaml", help="Where to write; else NAME.yaml here; - for stdout, without weights."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="A loss for a file that holds none: cross_entropy, mse, mae, huber, binary_cross_entropy."
        ),
    ] = None,
) -> None:
    """Write an ONNX file as a YAML model.

    FILE.yaml holds the layers, repeated ones as blocks, and FILE.safetensors beside it the weights, under the names that the
    model gives them. Where the file has operators that are like no layer, all of them are named and nothing is written; else
    both models are run on one batch before they are.

    \b
    vgcompile import classifier.onnx -o classifier.yaml
    vgcompile import classifier.onnx -o classifier.yaml --loss cross_entropy
    """
    if Path(model).suffix != ".onnx" or not Path(model).is_file():
        raise UserError(f"{model}: " + ("not an .onnx file" if Path(model).exists() else "no such file") + "; give an .onnx file")
    target = Path(file or Path(model).with_suffix(".yaml").name)
    from safetensors.numpy import save

    from vgcompile.importing import imported

    weights = target.with_suffix(".safetensors")
    made = imported(model, name=None if file in (None, STDOUT) else target.stem, weights_file=weights.name, loss=loss)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if file == STDOUT:
        deliver(STDOUT, made.text.encode())
        return
    deliver(weights, save(dict(made.weights)))
    deliver(target, made.text.encode())
