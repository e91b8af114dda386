"""``vgcompile analyze``: how much gradient gets through every edge."""

from __future__ import annotations

from typing import Annotated

import typer

from vgcompile.cli.parameters import (
    KINDS,
    Batch,
    Data,
    FailOn,
    Json,
    Loss,
    Model,
    ModeOption,
    Output,
    PartOption,
    ProviderOption,
    Region,
    Seed,
    Settings,
    Variant,
    analysed,
    fail_on,
    open_model,
    several,
)
from vgcompile.errors import UserError

TIERS = "sound,expected,measured"


def analyze(
    model: Model,
    data: Data = None,
    part: PartOption = None,
    loss: Loss = None,
    output: Output = None,
    seed_input: Annotated[bool, typer.Option("--seed-input", help="Take dL/dy from the data file's arrays adj.OUTPUT.")] = False,
    region: Annotated[Region | None, typer.Option("--region", help="Inputs that the bounds hold for.")] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="K", min=1, help="Average the measured tier over K initializations.")
    ] = 1,
    tiers: Annotated[str, typer.Option("--tiers", metavar="TIER,...", help="Which of the three to compute.")] = TIERS,
    mode: ModeOption = "training",
    batch: Batch = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    provider: ProviderOption = "auto",
    as_json: Json = False,
    fail: FailOn = "",
) -> None:
    """Say how much gradient gets through each layer.

    In three tiers: proved for a stated set of inputs, predicted from the initial distributions, measured on one batch. Numbers
    are log10 of a gradient's norm against that of dL/dy: -6 is a millionth. A measured number outside its proved interval is our
    mistake, and ends with code 3.

    \b
    vgcompile analyze models/deep_sigmoid.yaml
    vgcompile analyze classifier.onnx --data batch.npz --json
    """
    kinds = several(fail, KINDS, "--fail-on")
    chosen = several(tiers, TIERS.split(","), "--tiers")
    if not chosen:
        raise UserError(f"--tiers names none; it takes {TIERS}")
    network = open_model(model, loss, output, mode, seed, variant=variant, settings=settings)
    from vgcompile.analysis import Options
    from vgcompile.analysis.document import dumps
    from vgcompile.cli.table import print_analysis
    from vgcompile.errors import SelfCheckError

    options = Options(
        data=data,
        part=part,
        batch=batch,
        seed=seed,
        seeds=seeds,
        tiers=chosen,  # type: ignore[arg-type]
        region=region,
        provider=provider,
        seed_input=seed_input,
        mode=mode,
    )
    analysis = analysed(network, options)
    if as_json:
        typer.echo(dumps(analysis), nl=False)
    else:
        print_analysis(analysis)
    deviations, violations = analysis.self_check.deviations, analysis.self_check.violations
    if deviations:
        first = deviations[0]
        typer.echo(
            f"note: {len(deviations)} of {len(analysis.edges)} edges lie far from their prediction (--json lists them): "
            f"{first.edge} {first.message}",
            err=True,
        )
    if "measured" in chosen and analysis.provenance["loss"] is not None and analysis.provenance["loss_value"] is None:
        typer.echo(
            "note: the measured loss is not finite, and with it no measured number is; scale inputs or weights down", err=True
        )
    if violations:
        raise SelfCheckError("\n".join(f"{found.edge}: {found.message}" for found in violations))
    fail_on(analysis, kinds)
