"""``vgcompile analyze``: how much gradient gets through every edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vgcompile.cli.complaints import said_in, write
from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.findings import Baseline, FailOn, WriteBaseline, asked, baseline, compared, complaints, fail_on
from vgcompile.cli.formats import Format
from vgcompile.cli.parameters import (
    Batch,
    BatchAxis,
    Data,
    Json,
    Loss,
    Model,
    ModeOption,
    Output,
    PartOption,
    ProviderOption,
    RegionOption,
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
    from vgcompile.analysis.checkpoints import Checkpoints
    from vgcompile.analysis.view import Form

TIERS = "sound,expected,measured"
DOMAINS = "product,zonotope,ellipsoid,centre"


def analyze(
    model: Model,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", metavar="FILE", help="Weights of a checkpoint: .npz, .safetensors or .onnx; several are compared."
        ),
    ] = None,
    data: Data = None,
    part: PartOption = None,
    loss: Loss = None,
    output: Output = None,
    seed_input: Annotated[bool, typer.Option("--seed-input", help="Take dL/dy from the data file's arrays adj.OUTPUT.")] = False,
    region: RegionOption = None,
    certify: Annotated[
        Literal["weights", "support"],
        typer.Option("--certify", help="Bounds for the weights as they are, or for all that their initializers may draw."),
    ] = "weights",
    domains: Annotated[
        str,
        typer.Option(
            "--domains",
            metavar="DOMAIN,...",
            help="What bounds are the best of; product is always there, fewer are quicker: product,centre.",
        ),
    ] = DOMAINS,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="K", min=1, help="Average the measured tier over K initializations.")
    ] = 1,
    statistics: Annotated[
        Literal["squares", "all"],
        typer.Option(
            "--statistics", help="What is measured: norms, or also greatest magnitudes and shares of zeros and non-finite."
        ),
    ] = "squares",
    tiers: Annotated[str, typer.Option("--tiers", metavar="TIER,...", help="Which of the three to compute.")] = TIERS,
    mode: ModeOption = "training",
    batch: Batch = None,
    batch_axis: BatchAxis = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    provider: ProviderOption = "auto",
    graph: Annotated[
        str | None, typer.Option("--graph", metavar="FILE", help="Write the annotated graph as well, as .graphml or .json.")
    ] = None,
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
    vgcompile analyze net.yaml --weights step0.npz --weights step1000.npz
    """
    words = asked(fail)
    chosen = several(tiers, TIERS.split(","), "--tiers")
    if not chosen:
        raise UserError(f"--tiers names none; it takes {TIERS}")
    bounding = several(domains, DOMAINS.split(","), "--domains")
    drawn = _drawn(graph)
    if len(weights or ()) > 1 and (graph is not None or write_known is not None):
        raise UserError("--graph and --write-baseline write of one analysis; give one --weights")
    with said_in(form, model):
        network = open_model(model, loss, output, mode, seed, variant=variant, settings=settings, batch_axis=batch_axis)
    from vgcompile.analysis import Options
    from vgcompile.analysis.checkpoints import Checkpoints, follow
    from vgcompile.errors import SelfCheckError

    options = Options(
        data=data,
        part=part,
        batch=batch,
        seed=seed,
        seeds=seeds,
        tiers=chosen,  # type: ignore[arg-type]
        region=region,
        certify=certify,
        domains=bounding,  # type: ignore[arg-type]
        provider=provider,
        seed_input=seed_input,
        mode=mode,
        preset=preset,
        dtype=dtype,
        learning_rate=learning_rate,
        statistics=statistics,
    )
    with said_in(form, model):
        found = follow(network, weights, options, analysed) if weights else Checkpoints((model,), (analysed(network, options),))
    if known is not None:
        found = replace(found, analyses=tuple(compared(analysis, known) for analysis in found.analyses))
    if write_known is not None:
        deliver(write_known, baseline(found.analyses[0]).encode())
    _show(found, "json" if as_json else form)
    if graph is not None:
        from vgcompile.analysis.view import export

        deliver(graph, export(found.analyses[0].graph, drawn).encode())
    for analysis in found.analyses:
        _note(analysis, chosen)
    violations = [violation for analysis in found.analyses for violation in analysis.self_check.violations]
    if violations:
        raise SelfCheckError("\n".join(f"{one.edge}: {one.message}" for one in violations))
    for analysis in found.analyses:
        fail_on(analysis, words)


def _drawn(graph: str | None) -> Form:
    """By the file's ending; to stdout goes GraphML."""
    ending = Path(graph).suffix if graph not in (None, STDOUT) else ".graphml"
    if ending not in (".graphml", ".json"):
        raise UserError(f"--graph {graph}: no form ends in {ending!r}; it takes .graphml or .json")
    return "json" if ending == ".json" else "graphml"


def _show(found: Checkpoints, form: Format) -> None:
    from vgcompile.analysis.document import dumps, dumps_checkpoints
    from vgcompile.cli.table import print_analysis, print_checkpoints

    one = found.analyses[0] if len(found.analyses) == 1 else None
    if form == "json":
        typer.echo(dumps(one) if one is not None else dumps_checkpoints(found), nl=False)
    elif form != "text":
        write(complaints([finding for analysis in found.analyses for finding in analysis.findings]), form)
    elif one is not None:
        print_analysis(one)
    else:
        print_checkpoints(found)


def _note(analysis: Analysis, chosen: Sequence[str]) -> None:
    """On stderr, what the numbers do not tell."""
    if free := list(analysis.provenance["unbounded_support"]):  # type: ignore[call-overload]
        more = f" and {len(free) - 1} more" if free[1:] else ""
        typer.echo(
            f"note: {free[0]}{more} may be any number, for a normal distribution has no bounds, and no bound through it holds "
            "for all draws; uniform and truncated_normal ones have: he_uniform, glorot_uniform, {kind: truncated_normal}",
            err=True,
        )
    deviations = analysis.self_check.deviations
    if deviations:
        first = deviations[0]
        typer.echo(
            f"note: {len(deviations)} of {len(analysis.edges)} edges lie far from their prediction (--json lists them): "
            f"{first.edge} {first.message}",
            err=True,
        )
    unmeasured = analysis.provenance["loss"] is not None and analysis.provenance["loss_value"] is None
    if "measured" in analysis.provenance["tiers"] and unmeasured:  # type: ignore[operator]
        typer.echo(
            "note: the measured loss is not finite, and with it no measured number is; scale inputs or weights down", err=True
        )
