"""``vgcompile fix``: what would let the gradient through, tried before it is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import Batch, Data, Json, ProviderOption, Seed, Settings, Variant
from vgcompile.errors import UserError

if TYPE_CHECKING:
    from vgcompile.analysis import Options
    from vgcompile.analysis.result import Analysis
    from vgcompile.fixing.advice import Advice
    from vgcompile.fixing.trial import Model, Trial

TIERS = ("proved", "predicted", "measured")
HEAD = ("#", "change", "worst layer", "verdict", "parameters", "FLOPs")


def fix(
    model: Annotated[str, typer.Argument(metavar="MODEL.yaml", help="A YAML model.")],
    apply: Annotated[
        int | None, typer.Option("--apply", metavar="N", min=1, help="Write the model with change N of the list.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", metavar="FILE.yaml", help="Where --apply writes; - for stdout.")] = None,
    data: Data = None,
    batch: Batch = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    provider: ProviderOption = "auto",
    as_json: Json = False,
) -> None:
    """Find changes that let the gradient through.

    Tries activations, initial values, ways around layers, normalizations with and without them, branch scales, gated cells and
    fewer layers, each on the text of the model; ranks what heals it by what it costs, and says what does not help. The best are
    bounded, predicted and measured. With --apply the changed text is written, comments and all, in the layout of `fmt`.

    \b
    vgcompile fix models/deep_sigmoid.yaml
    vgcompile fix models/deep_sigmoid.yaml --apply 1 -o fixed.yaml
    """
    if (apply is None) != (output is None):
        raise UserError("--apply N and -o FILE go together: which change, and where it is written")
    if Path(model).suffix == ".onnx":
        raise UserError(f"{model}: fix edits YAML; `vgcompile import {model} -o model.yaml` writes one")
    from vgcompile import spec
    from vgcompile.analysis import Options
    from vgcompile.fixing.trial import Model

    subject = Model(model, spec.read_text(model), variant, tuple(settings or ()), seed)
    found = _advised(subject, Options(data=data, batch=batch, seed=seed, provider=provider))
    if apply is None:
        typer.echo(json.dumps(_document(found), indent=1) if as_json else "\n".join(_lines(found)))
        return
    ranked = [*found.helpful, *found.others]
    if apply > len(ranked):
        raise UserError(f"--apply {apply}: {len(ranked)} changes were tried; `vgcompile fix {model}` lists them")
    assert output is not None
    deliver(output, ranked[apply - 1].text.encode())
    moved = output != STDOUT and Path(output).resolve().parent != Path(model).resolve().parent
    if moved and found.start.network.data is not None and found.start.network.data.path:
        typer.echo(f"note: the files that it names are looked for in the folder of {output}", err=True)


def _advised(subject: Model, options: Options) -> Advice:
    """The advice, with a line on a terminal that says what is being tried."""
    from vgcompile.fixing.advice import advice

    if not sys.stderr.isatty():
        return advice(subject, options)
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        return advice(subject, options, progress=lambda stage: status.update(f"trying: {stage}"))


def _lines(found: Advice) -> Iterator[str]:
    start, judged = found.start, found.start.analysis
    yield f"{found.model.file}: {start.kind} ({judged.verdict.grade}), 10^{_number(start.worst)} at {judged.worst}"
    if start.kind == "healthy":
        yield "nothing needs fixing; what changes would do:"
    yield ""
    rows = [HEAD, _row("", start, start), *(_row(str(n), trial, start) for n, trial in _numbered(found))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    helpful = 2 + len(found.helpful)
    yield from lines[:helpful]
    if found.others:
        yield ""
        yield "does not help:"
        yield from lines[helpful:]
    yield ""
    yield from _tiers(found)
    if found.helpful:
        yield ""
        yield f"write the first: vgcompile fix {found.model.file} --apply 1 -o fixed.yaml"


def _numbered(found: Advice) -> Iterator[tuple[int, Trial]]:
    yield from enumerate([*found.helpful, *found.others], start=1)


def _row(number: str, trial: Trial, start: Trial) -> tuple[str, ...]:
    first = trial is start
    parameters, flops = trial.parameters - start.parameters, trial.flops / max(start.flops, 1.0) - 1.0
    return (
        number,
        trial.name,
        _number(trial.worst),
        trial.kind,
        f"{trial.parameters:,}" if first else f"{parameters:+,}" if parameters else "same",
        f"{trial.flops:,.0f}" if first else f"{flops:+.0%}" if abs(flops) >= 0.005 else "same",
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    number, change, *rest = (
        f"{cell:<{width}}" if at in (1, 3) else f"{cell:>{width}}"
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join((number, change, *rest)).rstrip()


def _tiers(found: Advice) -> Iterator[str]:
    """Before and after, in all tiers, at the worst layer of each."""
    names = ["as it is", *(trial.name for trial in found.helpful)]
    analyses = [found.before, *found.after]
    rows = [("", *TIERS), *((name, *_cells(analysis)) for name, analysis in zip(names, analyses, strict=False))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        yield "  ".join(
            (f"{name:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)))
        ).rstrip()


def _cells(analysis: Analysis) -> tuple[str, str, str]:
    from vgcompile.cli.table import _measured, _predicted, _proved

    layer = next((layer for layer in analysis.layers if layer.name == analysis.worst), None)
    if layer is None:
        return ("", "", "")
    return (_proved(layer.worst), _predicted(layer.worst), _measured(layer.worst))


def _number(worst: float | None) -> str:
    return "?" if worst is None else f"{worst:.2f}"


def _document(found: Advice) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": found.model.file,
        "start": _trial(None, found.start),
        "changes": [_trial(number, trial) for number, trial in _numbered(found)],
    }


def _trial(number: int | None, trial: Trial) -> dict[str, Any]:
    worst = trial.worst if trial.worst is not None and abs(trial.worst) != float("inf") else None
    return {
        "number": number,
        "change": trial.name,
        "why": trial.why,
        "worst_layer": trial.analysis.worst,
        "gain": worst,
        "verdict": trial.kind,
        "grade": trial.analysis.verdict.grade,
        "parameters": trial.parameters,
        "flops": int(trial.flops),
    }
