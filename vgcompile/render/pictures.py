"""The pictures of a model by name, in every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from vgcompile.analysis.result import Analysis
from vgcompile.errors import UserError
from vgcompile.graph.network import Network
from vgcompile.render import butterfly, diagram, engine
from vgcompile.render.activation_plot import activation_plot, kinds_of
from vgcompile.render.depth_chart import depth_chart
from vgcompile.render.step_chart import profiles_of, step_chart

Format = Literal["svg", "png", "pdf", "dot"]
View = Literal["forward", "butterfly", "depth", "steps", "activations"]

DRAWN: dict[View, Callable[[Network, Analysis], str]] = {"forward": diagram.forward_dot, "butterfly": butterfly.butterfly_dot}
CHARTS: dict[View, Callable[[Analysis, Literal["svg", "png", "pdf"]], bytes]] = {
    "depth": depth_chart,
    "steps": step_chart,
    "activations": activation_plot,
}
VIEWS: tuple[View, ...] = (*DRAWN, *CHARTS)
NEEDS: dict[View, Callable[[Analysis], Sequence[object]]] = {"steps": profiles_of, "activations": kinds_of}


def views_of(analysis: Analysis) -> list[View]:
    """The pictures that have something to show of this model: not every one has a recurrence, or an activation."""
    return [view for view in VIEWS if view not in NEEDS or NEEDS[view](analysis)]


def picture(view: View, network: Network, analysis: Analysis, format: Format, program: str | None = None) -> bytes:
    """One picture.

    ``program`` is as in :func:`vgcompile.render.engine.layout`; ``dot`` is the text as it was made, not a layout of it.
    Raises EngineError where no engine can draw it, UserError for a chart as DOT.
    """
    if view in DRAWN:
        dot = DRAWN[view](network, analysis)
        return dot.encode() if format == "dot" else engine.layout(dot, format, program)
    if format == "dot":
        raise UserError("-f dot: a chart is no graph; draw it as svg, png or pdf, or take --view forward or butterfly")
    return CHARTS[view](analysis, format)


def file_name(name: str, view: View, format: Format) -> str:
    """``NAME.svg`` for the forward diagram, ``NAME.<view>.svg`` for the others; DOT files end in .gv."""
    stem = name if view == "forward" else f"{name}.{view}"
    return f"{stem}.{'gv' if format == 'dot' else format}"
