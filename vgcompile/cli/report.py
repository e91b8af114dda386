"""``vgcompile report``: everything about a model in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgcompile.cli.files import deliver, refuse_file
from vgcompile.cli.parameters import (
    Batch,
    BatchAxis,
    Data,
    EngineOption,
    Loss,
    Model,
    ModeOption,
    Output,
    PartOption,
    ProviderOption,
    Seed,
    Settings,
    Variant,
    analysed,
    open_model,
)


def report(
    model: Model,
    folder: Annotated[str, typer.Option("-o", metavar="DIR", help="Folder for the files.")] = "out",
    engine: EngineOption = None,
    data: Data = None,
    part: PartOption = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    batch: Batch = None,
    batch_axis: BatchAxis = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    provider: ProviderOption = "auto",
) -> None:
    """Write everything about a model into a folder.

    NAME.html is the page to open; it stands alone and needs no network. Beside it: NAME.json, the analysis as data; NAME.onnx and
    NAME.grad.onnx; the pictures as SVG, and the graphs as DOT.

    \b
    vgcompile report models/deep_sigmoid.yaml -o out/deep_sigmoid
    vgcompile report classifier.onnx --loss loss --data batch.npz
    """
    refuse_file(folder)
    network = open_model(model, loss, output, mode, seed, variant=variant, settings=settings, batch_axis=batch_axis)
    from vgcompile.analysis import Options
    from vgcompile.analysis.document import dumps
    from vgcompile.compiler import compile_network
    from vgcompile.render.pictures import DRAWN, file_name, picture, views_of
    from vgcompile.render.report import render

    analysis = analysed(
        network, Options(data=data, part=part, batch=batch, seed=seed, mode=mode, provider=provider, statistics="all")
    )
    document = dumps(analysis)
    compiled = compile_network(network)
    files = {file_name(network.name, view, "svg"): picture(view, network, analysis, "svg", engine) for view in views_of(analysis)}
    files |= {file_name(network.name, view, "dot"): picture(view, network, analysis, "dot") for view in DRAWN}
    files[f"{network.name}.json"] = document.encode()
    files[f"{network.name}.html"] = render(network, analysis, document, engine).encode()
    for path in compiled.write(folder):
        typer.echo(f"wrote {path}", err=True)
    for name, content in files.items():
        deliver(Path(folder) / name, content)
    typer.echo(f"{analysis.source}: {analysis.verdict.text}, {analysis.verdict.why}")
