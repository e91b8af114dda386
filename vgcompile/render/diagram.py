"""The forward diagram: layers from the inputs down to the loss, shapes on the edges, and the gradient that comes back."""

from __future__ import annotations

import graphviz

from vgcompile.analysis.result import Analysis
from vgcompile.graph.network import Network
from vgcompile.render import folding, style
from vgcompile.render.dot import (
    beside,
    box_identity,
    box_label,
    box_style,
    digraph,
    flow_identity,
    gradient_line,
    heading,
    place,
    scale_legend,
    straightness,
)
from vgcompile.render.folding import Box, Flow
from vgcompile.render.labels import shape_text
from vgcompile.render.layergraph import layer_graph

NAME = "forward"
NOTES = (
    "Edges: log10 of the gradient that comes back along the edge, against dL/dy. S certified, E predicted +- sd, M measured.",
    "Layers: the same scale, gradient of the pre-activation against the last hidden layer's. Heavy outline: the worst layer.",
    "Dashed: no certified bound. Dotted: no number. Thin grey: no gradient flows.",
)


def forward_dot(network: Network, analysis: Analysis | None = None, fold: bool = True) -> str:
    """The DOT text of the forward diagram; without an analysis it shows structure, shapes and parameters alone."""
    drawing = folding.fold(layer_graph(network, analysis), fold)
    legend = scale_legend(NOTES, analysis) if analysis is not None else ""
    graph = digraph(NAME, heading(network.name, drawing, analysis, legend), nodesep="0.35", ranksep="0.3")

    def draw(frame: graphviz.Digraph, box: Box) -> None:
        frame.node(f"f{box.number}", box_label(box), **box_style(box, analysis), **box_identity(f"{NAME}-f", box))

    place(graph, drawing, "f", draw)
    for number, flow in enumerate(drawing.flows):
        identity = flow_identity(f"{NAME}-e", number, flow, drawing)
        graph.edge(f"f{flow.source}", f"f{flow.target}", weight=straightness(flow), **_line(flow, analysis), **identity)
    return str(graph.source)


def _line(flow: Flow, analysis: Analysis | None) -> dict[str, str]:
    shape = shape_text(flow.shape)
    if analysis is None or not flow.gains:
        faint = {"color": style.FORWARD} if analysis is None else {"color": style.FAINT, "penwidth": "0.6", "arrowsize": "0.6"}
        return {**faint, **({"label": beside([shape])} if shape else {})}
    return gradient_line(flow, shape)
