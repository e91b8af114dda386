"""``vgcompile run``: one batch through the compiled model."""

from __future__ import annotations

import io
import json
import math
from typing import Annotated

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import (
    Batch,
    BatchAxis,
    Data,
    Json,
    Loss,
    Model,
    Output,
    PartOption,
    ProviderOption,
    Seed,
    Settings,
    Variant,
    open_model,
)

PREFIX = "grad."


def run(
    model: Model,
    data: Data = None,
    part: PartOption = None,
    provider: ProviderOption = "auto",
    batch: Batch = None,
    batch_axis: BatchAxis = None,
    seed: Seed = None,
    variant: Variant = None,
    settings: Settings = None,
    loss: Loss = None,
    output: Output = None,
    as_json: Json = False,
    file: Annotated[
        str | None,
        typer.Option("-o", metavar="FILE.npz", help="Save the gradients as arrays grad.PARAMETER; - for stdout, alone."),
    ] = None,
) -> None:
    """Run one batch; print loss and gradient norms.

    \b
    vgcompile run models/deep_sigmoid.yaml --batch 32
    vgcompile run classifier.onnx --loss loss --data batch.npz -o gradients.npz
    """
    network = open_model(model, loss, output, seed=seed, variant=variant, settings=settings, batch_axis=batch_axis)
    import numpy as np

    from vgcompile.passes.check import check
    from vgcompile.passes.gradient import gradient
    from vgcompile.runtime.data import batch as read_batch
    from vgcompile.runtime.session import Session

    feeds = read_batch(network, file=data, size=batch, seed=network.seed if seed is None else seed, part=part)
    session = Session(check(gradient(network)), provider)
    known = {*session.required, *session.overridable}
    results = session.run(None, {name: array for name, array in feeds.items() if name in known})
    value = float(results[str(network.loss)])
    parts = {name: float(results[name]) for name in network.parts}
    norms = {name: float(np.linalg.norm(results[f"{PREFIX}{name}"].astype(np.float64))) for name in network.parameters}
    if file is not None:
        buffer = io.BytesIO()
        gradients = {name: array for name, array in results.items() if name.startswith(PREFIX)}
        np.savez(buffer, **gradients)  # type: ignore[arg-type]
        deliver(file, buffer.getvalue())
    if file == STDOUT:
        return
    if as_json:
        result = {
            "schema": 1,
            "model": network.name,
            "provider": session.provider,
            "loss": _finite(value),
            "parts": {name: _finite(term) for name, term in parts.items()},
            "gradient_norms": {n: _finite(x) for n, x in norms.items()},
        }
        typer.echo(json.dumps(result, indent=1, allow_nan=False))
    else:
        width = max(map(len, norms), default=0)
        typer.echo(f"loss {value:.6g} on {session.provider}")
        for name, term in parts.items():
            typer.echo(f"{name} {term:.6g}")
        for name, norm in norms.items():
            typer.echo(f"{PREFIX}{name:{width}}  {norm:.3e}")


def _finite(number: float) -> float | None:
    """JSON has no infinities."""
    return number if math.isfinite(number) else None
