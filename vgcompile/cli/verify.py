"""``vgcompile verify``: is a gradient right, on one's own data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.cli.derivatives import AttachLoss, ClassAxis, LossOutput, SeedInput, Wrt, asked_names
from vgcompile.cli.parameters import FOUND, Batch, Data, Json, Model, Seed, Settings, Variant, open_text, stages

if TYPE_CHECKING:
    from vgcompile.verification import Check, Verification

ROWS = 10  # lines of the table
NAMED = 4  # nodes or values that a reason lists


def verify(
    model: Model,
    variant: Variant = None,
    settings: Settings = None,
    loss: LossOutput = None,
    wrt: Wrt = None,
    seed_input: SeedInput = False,
    attach_loss: AttachLoss = None,
    class_axis: ClassAxis = 1,
    data: Data = None,
    batch: Batch = None,
    seed: Seed = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="T", min=0.0, help="Relative error that is allowed; rounding comes on top.")
    ] = 1e-5,
    as_json: Json = False,
) -> None:
    """Hold a model's gradient against finite differences.

    Node by node in float64, at the values that the data bring about there; then end to end, where the loss moves enough to tell;
    then the float32 file in ONNX Runtime against float64. A node on a kink has to lie between the slopes of its two sides. Exit
    code 1 where something disagrees.

    \b
    vgcompile verify models/lenet.yaml
    vgcompile verify classifier.onnx --attach-loss cross_entropy --data batch.npz
    """
    from vgcompile.verification import verify as verified

    with stages() as say:
        found = verified(
            open_text(model, variant, settings),
            wrt=asked_names(wrt),
            loss=loss,
            seed_input=seed_input,
            attach_loss=attach_loss,
            class_axis=class_axis,
            file=data,
            batch=batch,
            seed=seed or 0,
            tolerance=tolerance,
            progress=say,
        )
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        _print(found)
    if found.wrong:
        typer.echo(f"wrong: {found.wrong[0].stage}: {found.wrong[0]}", err=True)
        raise typer.Exit(FOUND)


def _print(found: Verification) -> None:
    from rich.console import Console
    from rich.table import Table

    from vgcompile.cli.table import WIDE
    from vgcompile.verification.result import STAGES

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "name", "by"):
        table.add_column(name)
    for name in ("error", "allowed"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    told = [check for check in found.worst_first() if check.error is not None or check.verdict == "wrong"]
    for check in told[:ROWS]:
        table.add_row(*_row(check))
    console = Console(highlight=False, markup=False, emoji=False, width=WIDE, height=WIDE)
    with console.capture() as captured:
        console.print(f"{found.source}: relative errors, the worst first")
        console.print()
        console.print(table)
        if len(told) > ROWS:
            console.print(f"and {len(told) - ROWS} more (--json lists them)")
        console.print()
        for stage in STAGES:
            good, count = found.count(stage)
            console.print(f"{stage}: {good} of {count} verified")
            for reason, names in found.reasons(stage):
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                console.print(f"  not verified: {', '.join(names[:NAMED])}{more}: {reason}")
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _row(check: Check) -> list[str]:
    name = f"{check.name} ({check.operator})" if check.operator else check.name
    numbers = ["" if number is None else f"{number:.1e}" for number in (check.error, check.allowed)]
    verdict = f"{check.verdict}: {check.reason}" if check.verdict == "wrong" else check.verdict
    return [check.stage, name, check.by, *numbers, verdict]
