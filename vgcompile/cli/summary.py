"""``vgcompile summary``: layers, shapes, parameters, FLOPs and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vgcompile.cli.parameters import Json, Model, Settings, Variant, open_model

if TYPE_CHECKING:
    from vgcompile.analysis.summary import Summary

CONVENTIONS = "one forward pass, a multiply-add as 2 (papers that count multiply-adds state half)"
HEAD = ("layer", "kind", "output", "parameters", "FLOPs", "activations")
NUMBERS = HEAD[3:]  # stand to the right


def summary(
    model: Model,
    depth: Annotated[int | None, typer.Option("--depth", metavar="N", min=1, help="Levels of the tree; else all.")] = None,
    variant: Variant = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Print layers, output shapes, parameters, FLOPs and memory.

    For one sample, of the network as it predicts. Nothing is run and no weight is drawn. A multiply-add counts as 2 FLOPs, a
    function of one element as 1; activations are the bytes of all values between the operators. A symbolic extent counts as 1, as
    the batch does.

    \b
    vgcompile summary models/resnet20.yaml --depth 1
    vgcompile summary classifier.onnx --json
    """
    network = open_model(model, variant=variant, settings=settings)
    from vgcompile.analysis.summary import free_extents
    from vgcompile.analysis.summary import summary as summarized

    whole = summarized(network)
    shown = whole if depth is None else whole.cut(depth)
    free = free_extents(network)
    if as_json:
        import json

        typer.echo(json.dumps({"schema": 1, "batch": 1, "counted_as_one": free, **shown.document()}, indent=1))
        return
    _print(shown)
    typer.echo()
    for line in _totals(whole, free):
        typer.echo(line)


def _print(whole: Summary) -> None:
    rows = list(_rows(whole, 0))
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    typer.secho(_line(HEAD, widths), bold=True)
    for row in rows:
        typer.echo(_line(row, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [f"{c:>{w}}" if name in NUMBERS else f"{c:<{w}}" for name, c, w in zip(HEAD, cells, widths, strict=True)]
    return "  ".join(aligned).rstrip()


def _rows(group: Summary, level: int) -> Iterator[list[str]]:
    for layer in group.layers:
        weight = layer.weight
        held = f"{weight.parameters:,}" if weight.parameters or not weight.shared else "shared"
        output = "" if layer.output is None else f"[{', '.join(map(str, layer.output))}]"
        name = "  " * level + layer.name
        yield [name, layer.kind, output, held, f"{int(weight.flops):,}", _bytes(weight.activations)]
        yield from _rows(layer, level + 1)


def _totals(whole: Summary, free: list[str]) -> Iterator[str]:
    weight = whole.weight
    state = f", and {weight.state:,} numbers that are not trained" if weight.state else ""
    yield f"parameters   {weight.parameters:,} ({_bytes(4 * weight.parameters)} as float32){state}"
    yield f"FLOPs        {int(weight.flops):,} a sample: {CONVENTIONS}"
    yield f"activations  {_bytes(weight.activations)} a sample, every value between operators kept"
    if free:
        yield f"counted as 1 {', '.join(free)}: symbolic extents count as the batch does"


def _bytes(count: float) -> str:
    """``12 B``, ``3.4 kB``: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
