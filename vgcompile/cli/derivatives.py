"""``vgcompile grad`` and ``vgcompile hvp``: derivatives of any ONNX file, as ONNX files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import Model, Settings, Variant, open_text
from vgcompile.errors import UserError

if TYPE_CHECKING:
    from vgcompile.derivatives import Gradients

LISTED = 12  # names on one line of stderr

Wrt = Annotated[
    list[str] | None,
    typer.Option("--wrt", metavar="WHAT", help="parameters (the default), inputs, all, or NAME,... of values; may be repeated."),
]
LossOutput = Annotated[
    str | None, typer.Option("--loss", metavar="OUTPUT", help="The scalar that is differentiated; else `loss`, or the only one.")
]
AttachLoss = Annotated[
    str | None,
    typer.Option(
        "--attach-loss",
        metavar="KIND",
        help="Make a loss of the output, with an input `target`: cross_entropy, mse, mae, huber or binary_cross_entropy.",
    ),
]
ClassAxis = Annotated[
    int,
    typer.Option("--class-axis", metavar="AXIS", help="Axis of the classes, for cross_entropy; -1 for [batch, time, classes]."),
]
SeedInput = Annotated[
    bool, typer.Option("--seed-input", help="Let the adjoint of --loss, or of every real output, come in as input adj.OUTPUT.")
]
Prefix = Annotated[str, typer.Option("--prefix", metavar="TEXT", help="What the names of the gradients begin with.")]
ProfileOption = Annotated[
    Literal["fast", "portable"],
    typer.Option("--profile", help="fast: for ONNX Runtime on a CPU; portable: fewest nodes, for other runtimes."),
]
File = Annotated[
    str | None,
    typer.Option("-o", metavar="OUT.onnx", help="The file to write, - for stdout; NAME.grad.onnx, NAME.hvp.onnx."),
]


def grad(
    model: Model,
    variant: Variant = None,
    settings: Settings = None,
    loss: LossOutput = None,
    wrt: Wrt = None,
    seed_input: SeedInput = False,
    attach_loss: AttachLoss = None,
    class_axis: ClassAxis = 1,
    prefix: Prefix = "grad.",
    profile: ProfileOption = "fast",
    file: File = None,
) -> None:
    """Write a model's joint graph: its outputs, and a gradient for each asked value.

    Any ONNX file will do, of opset 7 and up. What comes out holds standard operators only: the model's own outputs and
    grad.NAME for each asked value. Parameters are inputs that have a default.

    \b
    vgcompile grad resnet.onnx --attach-loss cross_entropy -o resnet.grad.onnx
    vgcompile grad potential.onnx --loss energy --wrt positions
    vgcompile grad encoder.onnx --seed-input --wrt all
    """
    from vgcompile.derivatives import gradients

    target = _target(model, file, "grad")
    made = gradients(
        open_text(model, variant, settings),
        wrt=asked_names(wrt),
        loss=loss,
        seed_input=seed_input,
        attach_loss=attach_loss,
        class_axis=class_axis,
        prefix=prefix,
        profile=profile,
    )
    _say(made.notes)
    typer.echo(f"note: gradient of {_listed(made.root)} by {_counted(made.by)}", err=True)
    _write(made, target)


def hvp(
    model: Model,
    variant: Variant = None,
    settings: Settings = None,
    loss: LossOutput = None,
    wrt: Wrt = None,
    attach_loss: AttachLoss = None,
    class_axis: ClassAxis = 1,
    file: File = None,
) -> None:
    """Write a model's Hessian-vector products.

    The vector comes in as v.NAME, in the shape of each asked value; hvp.NAME is what the second derivatives of the loss, by all
    asked values together, make of it.

    \b
    vgcompile hvp classifier.onnx --attach-loss cross_entropy -o classifier.hvp.onnx
    """
    from vgcompile.derivatives import products

    target = _target(model, file, "hvp")
    made = products(
        open_text(model, variant, settings), wrt=asked_names(wrt), loss=loss, attach_loss=attach_loss, class_axis=class_axis
    )
    _say(made.notes)
    typer.echo(f"note: second derivatives of {_listed(made.root)} by {_counted(made.by)}", err=True)
    _write(made, target)


def asked_names(wrt: list[str] | None) -> str | list[str]:
    names = [name.strip() for text in wrt or ["parameters"] for name in text.split(",") if name.strip()]
    return names[0] if len(names) == 1 else names


def _write(made: Gradients, target: str) -> None:
    """One file; weights beyond 256 MB go into a second one beside it."""
    from vgcompile.graph.storing import save_model

    if target == STDOUT:
        deliver(target, made.model.SerializeToString(deterministic=True))
        return
    for path in save_model(made.outline, target):
        typer.echo(f"wrote {path}", err=True)


def _target(model: str, file: str | None, kind: str) -> str:
    """Where the result goes. Raises UserError where that is the model itself."""
    target = file or f"{Path(model).stem}.{kind}.onnx"
    if target != STDOUT and Path(target).exists() and Path(model).exists() and Path(target).samefile(model):
        raise UserError(f"-o {target} is the model itself; name another file")
    return target


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _counted(names: Iterable[str]) -> str:
    count = len(names := list(names))
    return ("1 value" if count == 1 else f"{count} values") + f": {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
