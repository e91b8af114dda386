"""Arguments and options that several commands share, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vgcompile.errors import UserError, nearest

if TYPE_CHECKING:
    from vgcompile.analysis import Analysis, Options
    from vgcompile.graph.network import Network

FOUND = 1  # exit code of a command that was asked to fail on what it found

Mode = Literal["training", "inference"]
Provider = Literal["auto", "cpu", "cuda"]

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A YAML model or an .onnx file.")]
Loss = Annotated[str | None, typer.Option("--loss", metavar="OUTPUT", help="The value of an .onnx file that is the loss.")]
Output = Annotated[str | None, typer.Option("--output", metavar="NAME", help="The value of an .onnx file that enters the loss.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="FILE.npz", help="Arrays by input name; else the model's own data, else drawn.")
]
PartOption = Annotated[
    Literal["train", "validation"] | None,
    typer.Option("--part", help="Which part of the model's own data is read; the training part where absent."),
]
Batch = Annotated[int | None, typer.Option("--batch", metavar="N", min=1, help="Number of samples.")]
BatchAxis = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-axis",
        metavar="[INPUT=]AXIS",
        help="The axis of an .onnx file's inputs, or of one, that counts samples; else found, and told where it is not 0.",
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="S", help="Seed of initial values and drawn data; else the model's own.")
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", metavar="REGION", help="Inputs that bounds hold for: everywhere, range, ball:RADIUS[@linf]."),
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", metavar="PATH", help="Graphviz program; else VGCOMPILE_DOT, else found.")
]
ProviderOption = Annotated[Provider, typer.Option("--provider", help="Where it runs.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="Which graph is meant: as it trains, or as it predicts.")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="NAME", help="One of the variants that a YAML model names.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Another value for a parameter or field of a YAML model; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def open_model(
    model: str,
    loss: str | None = None,
    output: str | None = None,
    mode: Mode = "training",
    seed: int | None = None,
    variant: str | None = None,
    settings: Sequence[str] | None = None,
    batch_axis: Sequence[str] | None = None,
) -> Network:
    """Read the model; what the reader did on the way goes to stderr.

    Commands import what they need of the rest only after this: a complaint about the text comes before anything heavy is loaded.
    """
    from vgcompile.compiler import open_network

    network = open_network(
        model,
        loss=loss,
        output=output,
        mode=mode,
        seed=seed,
        variant=variant,
        settings=settings or (),
        batch_axes=_axes(batch_axis or ()),
    )
    for note in network.notes:
        typer.echo(f"note: {note}", err=True)
    return network


def _axes(given: Sequence[str]) -> dict[str, int] | int | None:
    """``["x=1", "h=1"]`` by input, ``["1"]`` of all. Raises UserError for what is neither."""
    found: dict[str, int] = {}
    for text in given:
        name, named, axis = text.rpartition("=")
        if not axis.isdecimal() or (not named and len(given) > 1):
            raise UserError(f"--batch-axis {text}: one number for all inputs, as 1, or INPUT=NUMBER for each, as x=1")
        if not named:
            return int(axis)
        found[name] = int(axis)
    return found or None


def open_text(model: str, variant: str | None, settings: Sequence[str] | None) -> str | Network:
    """The network of a YAML model; the path itself of any other, which its reader opens in a way of its own."""
    from pathlib import Path

    if Path(model).suffix == ".onnx" and variant is None and not settings:
        return model
    from vgcompile.compiler import open_network

    return open_network(model, variant=variant, settings=settings or ())


def analysed(network: Network, options: Options) -> Analysis:
    """The analysis, with a line on a terminal that says what is being done."""
    from vgcompile.analysis import analyze

    with stages() as say:
        return analyze(network, options, progress=say)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Within it, a line on a terminal that says what is being done; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield status.update


def several(text: str, known: Iterable[str], option: str) -> tuple[str, ...]:
    """``"a,b"`` as ("a", "b"). Raises UserError for a word that is not known."""
    known = tuple(known)
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in known:
            raise UserError(f"{option} {word!r}: " + (nearest(word, known) or f"it takes {', '.join(known)}"))
    return words
