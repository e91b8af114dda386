"""``vgcompile analyze``: how much gradient gets through every edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vgcompile.cli.complaints import said_in, write
from vgcompile.cli.files import deliver
from vgcompile.cli.findings import Baseline, FailOn, WriteBaseline, asked, baseline, compared, complaints, fail_on
from vgcompile.cli.formats import Format
from vgcompile.cli.parameters import (
    Batch,
    Data,
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
    open_model,
    several,
)
from vgcompile.errors import UserError

if TYPE_CHECKING:
    from vgcompile.analysis import Analysis

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
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="Thresholds by name: ours, or another tool's, as sagemaker.")
    ] = "default",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option("--dtype", help="The type that it is to be trained in.")
    ] = "float32",
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", metavar="R", help="Say where steps of this size are lost to rounding.")
    ] = None,
    fail: FailOn = "",
    known: Baseline = None,
    write_known: WriteBaseline = None,
    form: Annotated[
        Format, typer.Option("--format", help="text, json as --json, or findings as github's commands or sarif.")
    ] = "text",
) -> None:
    """Say how much gradient gets through each layer.

    In three tiers: proved for a stated set of inputs, predicted from the initial distributions, measured on one batch. Numbers
    are log10 of a gradient's norm against that of dL/dy: -6 is a millionth. A measured number outside its proved interval is our
    mistake, and ends with code 3.

    \b
    vgcompile analyze models/deep_sigmoid.yaml
    vgcompile analyze classifier.onnx --data batch.npz --json
    vgcompile analyze models/deep_sigmoid.yaml --fail-on any --baseline known.json --format sarif
    """
    words = asked(fail)
    chosen = several(tiers, TIERS.split(","), "--tiers")
    if not chosen:
        raise UserError(f"--tiers names none; it takes {TIERS}")
    with said_in(form, model):
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
        preset=preset,
        dtype=dtype,
        learning_rate=learning_rate,
    )
    with said_in(form, model):
        analysis = analysed(network, options)
    if known is not None:
        analysis = compared(analysis, known)
    if write_known is not None:
        deliver(write_known, baseline(analysis).encode())
    if as_json or form == "json":
        typer.echo(dumps(analysis), nl=False)
    elif form == "text":
        print_analysis(analysis)
    else:
        write(complaints(analysis.findings), form)
    _note(analysis, chosen)
    violations = analysis.self_check.violations
    if violations:
        raise SelfCheckError("\n".join(f"{found.edge}: {found.message}" for found in violations))
    fail_on(analysis, words)


def _note(analysis: Analysis, chosen: Sequence[str]) -> None:
    """On stderr, what the numbers do not tell."""
    deviations = analysis.self_check.deviations
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
