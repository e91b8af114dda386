"""``vgcompile fix``: what would let the gradient through, tried before it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import Batch, Data, Json, ProviderOption, Seed, Settings, Variant, stages
from vgcompile.errors import UserError

if TYPE_CHECKING:
    from vgcompile.analysis.result import Analysis
    from vgcompile.fixing.advice import Advice
    from vgcompile.fixing.trial import Trial

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
    from vgcompile.fixing.advice import advice, in_all_tiers
    from vgcompile.fixing.trial import Model

    options = Options(data=data, batch=batch, seed=seed, provider=provider)
    subject = Model(model, spec.read_text(model), variant, tuple(settings or ()), seed)
    with stages() as say:
        found = advice(subject, options, lambda stage: say(f"trying: {stage}"))
        shown = list(in_all_tiers(found, options)) if apply is None and not as_json else []
    if apply is None:
        typer.echo(json.dumps(_document(found), indent=1) if as_json else "\n".join(_lines(found, shown)))
        return
    if apply > len(found.ranked):
        raise UserError(f"--apply {apply}: {len(found.ranked)} changes were tried; `vgcompile fix {model}` lists them")
    assert output is not None
    deliver(output, found.ranked[apply - 1].text.encode())
    moved = output != STDOUT and Path(output).resolve().parent != Path(model).resolve().parent
    if moved and found.start.network.data is not None and found.start.network.data.path:
        typer.echo(f"note: the files that it names are looked for in the folder of {output}", err=True)


def _lines(found: Advice, shown: Sequence[tuple[Trial, Analysis]]) -> Iterator[str]:
    start, judged = found.start, found.start.analysis
    at = f"10^{_number(start.worst)} at {judged.worst}" if judged.worst is not None else judged.verdict.why
    yield f"{found.model.file}: {judged.verdict.text}, {at}"
    if not judged.verdict.ill:
        yield f"{'nothing needs' if start.kind == 'healthy' else 'nothing is known to need'} fixing; what changes would do:"
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
    yield from _tiers(shown)
    if found.helpful:
        yield ""
        yield f"write the first: vgcompile fix {found.model.file} --apply 1 -o fixed.yaml"


def _numbered(found: Advice) -> Iterator[tuple[int, Trial]]:
    yield from enumerate(found.ranked, start=1)


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


def _tiers(shown: Sequence[tuple[Trial, Analysis]]) -> Iterator[str]:
    """Before and after, in all tiers, at the worst layer of each."""
    rows = [("", *TIERS), *((trial.name, *_cells(analysis)) for trial, analysis in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        yield "  ".join(
            (f"{name:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)))
        ).rstrip()


def _cells(analysis: Analysis) -> tuple[str, str, str]:
    from vgcompile.cli.table import measured, predicted, proved

    layer = analysis.worst_layer
    return ("", "", "") if layer is None else (proved(layer.worst), predicted(layer.worst), measured(layer.worst))


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
