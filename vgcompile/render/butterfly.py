"""The butterfly: the forward chain down on the left, the gradient chain up on the right, each gradient on its layer's rank.

    x        dL/dx
    |          ^
    dense    dL/d dense        colour and width of a gradient edge: how much of dL/dy comes through it
    |          ^
    loss ---> seed

A skip connection's gradient has an edge of its own, past the branch, with its own number.
"""

from __future__ import annotations

import graphviz

from vgcompile.analysis.result import Analysis
from vgcompile.graph.network import Network
from vgcompile.render import folding, style
from vgcompile.render.dot import (
    beside,
    box_identity,
    box_label,
    box_shape,
    box_style,
    digraph,
    flow_identity,
    gradient_line,
    heading,
    lines,
    place,
    scale_legend,
    straightness,
    worst_text,
)
from vgcompile.render.folding import Box, Flow, title
from vgcompile.render.labels import shape_text, tiers_text
from vgcompile.render.layergraph import layer_graph

NAME = "butterfly"
NOTES = (
    "Gradient edges: log10 of the gradient through the edge, against dL/dy. S certified, E predicted +- sd, M measured.",
    "Gradient boxes: the same scale, gradient of the pre-activation against the last hidden layer's, on which the verdict rests.",
    "Heavy outline: the worst layer. White: no parameters. A stack stands for many copies, its numbers for their range.",
    "Dashed: no certified bound. Dotted: no number.",
)


def butterfly_dot(network: Network, analysis: Analysis, fold: bool = True) -> str:
    """The DOT text of the butterfly."""
    drawing = folding.fold(layer_graph(network, analysis), fold)
    top = heading(network.name, drawing, analysis, scale_legend(NOTES, analysis))
    graph = digraph(NAME, top, nodesep="0.5", ranksep="0.25", newrank="true")
    feeding = {flow.source for flow in drawing.flows if flow.gains}
    reaches_loss = any(box.members[0].role == "loss" for box in drawing.boxes)
    mirrored = {number for flow in drawing.flows if flow.gains for number in (flow.source, flow.target)}

    def forward(frame: graphviz.Digraph, box: Box) -> None:
        frame.node(f"f{box.number}", box_label(box), group="f", **box_shape(box), **box_identity(f"{NAME}-f", box))

    def gradient(frame: graphviz.Digraph, box: Box) -> None:
        if box.number in mirrored:
            label = _gradient_label(box, seeded=not reaches_loss and box.number not in feeding)
            frame.node(f"g{box.number}", label, group="g", **box_style(box, analysis), **box_identity(f"{NAME}-g", box))

    place(graph, drawing, "f", forward)
    place(graph, drawing, "g", gradient)
    for number in sorted(mirrored):
        with graph.subgraph() as rank:
            rank.attr(rank="same")
            rank.edge(f"f{number}", f"g{number}", **_bridge(drawing.boxes[number]))
    for number, flow in enumerate(drawing.flows):
        graph.edge(
            f"f{flow.source}", f"f{flow.target}", **_forward_line(flow), **flow_identity(f"{NAME}-e", number, flow, drawing)
        )
        if flow.gains:
            enters = ("dL/dy",) if drawing.boxes[flow.target].members[0].role == "loss" else ()
            line = gradient_line(flow, *enters) | {"dir": "back", "weight": straightness(flow)}
            graph.edge(f"g{flow.source}", f"g{flow.target}", **line, **flow_identity(f"{NAME}-d", number, flow, drawing))
    return str(graph.source)


def _forward_line(flow: Flow) -> dict[str, str]:
    label = beside([shape_text(flow.shape)], style.FAINT)
    return {"color": style.FORWARD, "weight": straightness(flow), "arrowsize": "0.7", **({"label": label} if label else {})}


def _bridge(box: Box) -> dict[str, str]:
    """What joins a layer to its gradient: the seed at the loss, and elsewhere an unseen edge that keeps left and right apart."""
    if box.members[0].role == "loss":
        return {"label": "seed", "style": "solid", "color": style.FORWARD, "minlen": "2", "arrowsize": "0.7"}
    return {"style": "invis", "minlen": "2"}


def _gradient_label(box: Box, seeded: bool) -> str:
    """The gradient's name, its tiers, the worst copy; without a loss the seed enters at the outputs."""
    vertex = box.members[0]
    name, _ = title(box)
    if vertex.role == "loss":
        return lines("dL/dL = 1", ())
    found = [vertex.found for vertex in box.members if vertex.found is not None]
    relative = tiers_text([layer.relative for layer in found])
    steps = tiers_text([layer.through_time for layer in found if layer.through_time is not None])
    over_time = f"first step against last: {steps}" if steps else ""
    return lines(f"dL/d {name}", (relative, over_time, worst_text(box), "seed dL/dy" if seeded else ""))
