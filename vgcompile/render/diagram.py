"""The forward diagram: layers from the inputs down to the loss, shapes on the edges, and how much gradient comes back along each."""

from __future__ import annotations

from vgcompile.analysis.result import Analysis
from vgcompile.graph.network import Network
from vgcompile.render import style
from vgcompile.render.dot import (
    beside,
    box_classes,
    box_label,
    box_shape,
    digraph,
    flow_band,
    flow_line,
    heading,
    is_worst,
    scale_legend,
    worst_text,
)
from vgcompile.render.folding import Flow, fold, title
from vgcompile.render.labels import ascii_text, shape_text, tiers_text
from vgcompile.render.layergraph import layer_graph


def forward_dot(network: Network, analysis: Analysis | None, fold_repeats: bool = True) -> str:
    raise NotImplementedError
