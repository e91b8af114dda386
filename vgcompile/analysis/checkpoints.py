"""One model at several points of its training: the same analysis of each, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vgcompile.analysis.pipeline import Options, analyze
from vgcompile.analysis.result import Analysis, Kind, Layer
from vgcompile.graph.checkpoint import with_weights
from vgcompile.graph.network import Network


@dataclass(frozen=True)
class Row:
    """A layer at each checkpoint."""

    layers: tuple[Layer, ...]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Its verdicts, each that differs from the one before."""
        kinds = [layer.verdict.kind for layer in self.layers]
        return tuple(kind for place, kind in enumerate(kinds) if place == 0 or kind != kinds[place - 1])


@dataclass(frozen=True)
class Checkpoints:
    """Analyses of one model, in the order in which its files were given."""

    files: tuple[str, ...]
    analyses: tuple[Analysis, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(Row(layers) for layers in zip(*(analysis.layers for analysis in self.analyses), strict=True))


def follow(
    network: Network,
    files: Sequence[str],
    options: Options = Options(),
    analyse: Callable[[Network, Options], Analysis] = analyze,
) -> Checkpoints:
    """Analyse a network with the weights of each file, which its provenance names.

    Raises what ``analyse`` does, UserError for a file that does not fit.
    """
    found = []
    for file in files:
        analysis = analyse(with_weights(network, file), options)
        found.append(replace(analysis, provenance={**analysis.provenance, "weights": file}))
    return Checkpoints(tuple(files), tuple(found))
