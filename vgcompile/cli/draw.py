"""``vgcompile draw``: pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from vgcompile.cli.files import STDOUT, deliver
from vgcompile.cli.parameters import Batch, Data, Loss, Model, ModeOption, Output, ProviderOption, Seed, analysed, open_model
from vgcompile.errors import UserError

if TYPE_CHECKING:
    from vgcompile.analysis import Analysis
    from vgcompile.graph.network import Network

Format = Literal["svg", "png", "pdf", "dot"]
View = Literal["forward", "butterfly", "depth", "activations"]


def draw(
    model: Model,
    format: Annotated[Format | None, typer.Option("-f", "--format", help="Format; else by the file's ending, else svg.")] = None,
    view: Annotated[View, typer.Option("--view", help="Which picture.")] = "forward",
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="PATH", help="Graphviz program; else VGCOMPILE_DOT, else found.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("-o", metavar="FILE", help="File for the picture, - for stdout; else under out.")
    ] = None,
    data: Data = None,
    loss: Loss = None,
    output: Output = None,
    mode: ModeOption = "training",
    batch: Batch = None,
    seed: Seed = None,
    provider: ProviderOption = "auto",
) -> None:
    """Draw a model and the gradient that gets through it.

    forward: layers from input to loss. butterfly: forward and backward side by side. depth: gradient by layer, in three tiers.
    activations: each activation, its slope, and where the values lie.

    \b
    vgcompile draw models/deep_sigmoid.yaml --view butterfly -o deep_sigmoid.svg
    vgcompile draw classifier.onnx -f png -o - > classifier.png
    """
    from vgcompile.analysis import Options

    chosen = format or _by_ending(file)
    options = Options(data=data, batch=batch, seed=seed, mode=mode, provider=provider)
    network = open_model(model, loss, output, mode, seed)
    picture = _PICTURES[view](network, analysed(network, options), chosen, engine)
    name = network.name if view == "forward" else f"{network.name}.{view}"
    deliver(file or Path("out") / f"{name}.{'gv' if chosen == 'dot' else chosen}", picture)


def _by_ending(file: str | None) -> Format:
    ending = Path(file).suffix.lstrip(".") if file not in (None, STDOUT) else "svg"
    known: dict[str, Format] = {**{name: name for name in get_args(Format)}, "gv": "dot"}
    if ending not in known:
        raise UserError(f"-o {file}: no format ends in {ending!r}; name one with -f: {', '.join(get_args(Format))}")
    return known[ending]


def _forward(network: Network, analysis: Analysis, format: Format, engine: str | None) -> bytes:
    from vgcompile.render.diagram import forward_dot

    return _laid_out(forward_dot(network, analysis), format, engine)


def _butterfly(network: Network, analysis: Analysis, format: Format, engine: str | None) -> bytes:
    from vgcompile.render.butterfly import butterfly_dot

    return _laid_out(butterfly_dot(network, analysis), format, engine)


def _laid_out(dot: str, format: Format, engine: str | None) -> bytes:
    """DOT is the text as it was made, not a layout of it."""
    from vgcompile.render.engine import layout

    return dot.encode() if format == "dot" else layout(dot, format, engine)


def _depth(network: Network, analysis: Analysis, format: Format, engine: str | None) -> bytes:
    from vgcompile.render.charts import depth_chart

    return depth_chart(analysis, _image(format))


def _activations(network: Network, analysis: Analysis, format: Format, engine: str | None) -> bytes:
    from vgcompile.render.charts import activation_plot

    return activation_plot(analysis, _image(format))


def _image(format: Format) -> Literal["svg", "png", "pdf"]:
    if format == "dot":
        raise UserError("-f dot: a chart is no graph; draw it as svg, png or pdf, or take --view forward or butterfly")
    return format


_PICTURES: dict[View, Callable[[Network, Analysis, Format, str | None], bytes]] = {
    "forward": _forward,
    "butterfly": _butterfly,
    "depth": _depth,
    "activations": _activations,
}
