"""``vgcompile report``: everything about a model in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.files import deliver
from vgcompile.cli.parameters import Batch, Data, Loss, Model, ModeOption, Output, ProviderOption, Seed, analysed, open_model


def report(
    model: Model,
    folder: Annotated[str, typer.Option("-o", metavar="DIR", help="Folder for the files.")] = "out",
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="PATH", help="Graphviz program; else VGCOMPILE_DOT, else found.")
    ] = None,
    data: Data = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    batch: Batch = None,
    seed: Seed = None,
    provider: ProviderOption = "auto",
) -> None:
    """Write everything about a model as one HTML page.

    NAME.html needs no network; NAME.json is the analysis that it shows.

    \b
    vgcompile report models/deep_sigmoid.yaml -o out/deep_sigmoid
    vgcompile report classifier.onnx --loss loss --data batch.npz
    """
    from vgcompile.analysis import Options
    from vgcompile.analysis.document import dumps
    from vgcompile.render.report import render

    network = open_model(model, loss, output, mode, seed)
    analysis = analysed(network, Options(data=data, batch=batch, seed=seed, mode=mode, provider=provider))
    document = dumps(analysis)
    page = render(network, analysis, document, engine)
    deliver(Path(folder) / f"{network.name}.json", document.encode())
    deliver(Path(folder) / f"{network.name}.html", page.encode())
    typer.echo(f"{analysis.source}: {analysis.verdict.kind} ({analysis.verdict.grade}), {analysis.verdict.why}")
