"""Measured logs over initializations, beside the prediction of the same edges."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vgcompile
from vgcompile.analysis.expected import ExpectedTier, expected
from vgcompile.analysis.inputs import input_signals
from vgcompile.analysis.measured import Meter
from vgcompile.analysis.uses import Use, parameter_layers, read_output, uses
from vgcompile.graph.network import Network
from vgcompile.runtime import data

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sample:
    """One net: its prediction, and log10 of gains and totals by seed."""

    network: Network
    tier: ExpectedTier
    parts: dict[str, Array]
    totals: dict[str, Array]

    @property
    def activations(self) -> list[Use]:
        """Edges that both have: of activations, up to what the loss reads."""
        found = [use for use in uses(self.network) if use.role == "activation" and use.id in self.parts]
        return [use for use in found if self._predicted(use) and (read_output(use.node).name or "") in self.totals]

    def _predicted(self, use: Use) -> bool:
        given = self.tier.gain.get((use.node, use.position))
        return given is not None and given.mean is not None

    def local_error(self, use: Use) -> float:
        """|predicted / measured - 1| of the factor from the consumer's output to this edge."""
        output = read_output(use.node)
        mine, theirs = self.tier.gain[use.node, use.position].mean, self.tier.total[output].mean
        assert mine is not None and theirs is not None
        measured = float((self.parts[use.id] - self.totals[output.name or ""]).mean())
        return abs(math.pow(10.0, mine - theirs - measured) - 1.0)

    def ends(self) -> tuple[float, Array, str]:
        """log10 of the first against the last hidden pre-activation: predicted, measured by seed, and the doubt, if any."""
        first, last = (layer.value for layer in (parameter_layers(self.network)[0], parameter_layers(self.network)[-2]))
        a, b = self.tier.total[first], self.tier.total[last]
        assert a.mean is not None and b.mean is not None
        return a.mean - b.mean, self.totals[first.name or ""] - self.totals[last.name or ""], a.reason

    def input_gain(self) -> tuple[float, float, Array]:
        """log10 of what reaches the input: predicted mean and sd, measured by seed."""
        use = next(use for use in self.activations if use.source == "x")
        given = self.tier.gain[use.node, use.position]
        assert given.mean is not None and given.sd is not None
        return given.mean, given.sd, self.parts[use.id]


def opened(text: str) -> Network:
    """A model from its text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.yaml"
        path.write_text(text)
        return vgcompile.open_network(path)


def sample(text: str, batch: int, seeds: int) -> Sample:
    """Predict once, measure so many initializations on one batch of data."""
    network = opened(text)
    feeds = data.batch(network, size=batch, seed=0)
    tier = expected(network, batch, input_signals(network, feeds))
    meter = Meter(network)
    parts: dict[str, list[float]] = {}
    totals: dict[str, list[float]] = {}
    for seed in range(1, seeds + 1):
        run = meter.measure(feeds, seed)
        for found, kept in ((run.parts, parts), (run.totals, totals)):
            for name, norm in found.items():
                kept.setdefault(name, []).append(math.log10(norm / run.norm) if norm > 0.0 else -math.inf)
    return Sample(network, tier, *({k: np.array(v) for k, v in kept.items()} for kept in (parts, totals)))
