"""What the rooms look at: a network, what the tiers say of it, and what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import onnx_ir as ir

from vgcompile.analysis.cuts import cut_parameters
from vgcompile.analysis.floats import FloatType
from vgcompile.analysis.presets import Preset
from vgcompile.analysis.result import Edge, Layer
from vgcompile.analysis.uses import ParameterLayer, layer_of, learned
from vgcompile.errors import Mark
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact

if TYPE_CHECKING:
    from vgcompile.analysis.pipeline import Tiers3


@dataclass(frozen=True)
class Subject:
    """``layers`` and ``held`` are the layers with parameters, judged and as they stand in the graph; ``learning_rate`` is None
    where no update is asked about."""

    network: Network
    layers: Sequence[Layer]
    held: Sequence[ParameterLayer]
    edges: Sequence[Edge]
    tiers: Tiers3
    preset: Preset
    kind: FloatType
    learning_rate: float | None = None

    @cached_property
    def marks(self) -> Mapping[str, Mark]:
        """Where each layer is written, by its name, in graph order; the file alone where it has no text."""
        found: dict[str, Mark] = {}
        for node in self.network.model.graph:
            found.setdefault(layer_of(node) or node.name or "", self._mark(node))
        return found

    def _mark(self, node: ir.Node) -> Mark:
        source = fact(node, "source")
        if source is None:
            return Mark(self.network.source, 0)
        file, line, column = source.rsplit(":", 2)
        return Mark(file, int(line), int(column))

    def mark(self, layer: str) -> Mark:
        return self.marks.get(layer, Mark(self.network.source, 0))

    @cached_property
    def edges_by_id(self) -> Mapping[str, Edge]:
        return {edge.id: edge for edge in self.edges}

    @cached_property
    def cut(self) -> Mapping[str, tuple[list[str], str]]:
        """By layer the parameters that no gradient reaches, and what cuts the first of them off."""
        return cut_parameters(self.network)

    @cached_property
    def learned(self) -> Set[ir.Value]:
        return learned(self.network)

    @cached_property
    def nodes(self) -> Mapping[str, ir.Node]:
        return {node.name or "": node for node in self.network.model.graph}
