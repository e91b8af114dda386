"""A recurrence's gradient step by step: the norm of dL/dx_t, from the gradient file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import vgcompile
from benchmarks.expected.measuring import opened
from vgcompile.analysis.expected import expected
from vgcompile.analysis.inputs import input_signals
from vgcompile.passes.check import verified
from vgcompile.passes.gradient import gradient
from vgcompile.runtime import data

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Steps:
    """log10 of each step's norm, against the last one's; ``doubt`` is the prediction's."""

    predicted: Array
    measured: Array
    doubt: str

    @property
    def per_step(self) -> float:
        """Median error of the factor from one step to the one before."""
        return float(np.median(np.abs(10.0 ** (np.diff(self.predicted) - np.diff(self.measured)) - 1.0)))

    @property
    def total(self) -> float:
        """Predicted over measured, of the first step against the last one."""
        return float(10.0 ** (self.predicted[0] - self.measured[0]))


def steps(text: str, batch: int, seeds: int) -> Steps:
    """Of the one recurrent node of a net whose input is x [batch, steps, features]."""
    network = opened(text)
    feeds = data.batch(network, size=batch, seed=0)
    tier = expected(network, batch, input_signals(network, feeds))
    (use, profile), *_ = tier.steps.items()
    session = vgcompile.Session(verified(gradient(network, [*network.parameters, "x"])).whole())
    logs = []
    for seed in range(1, seeds + 1):
        found = session.run(["grad.x"], {**feeds, **network.parameter_values(seed)})["grad.x"].astype(np.float64)
        logs.append(0.5 * np.log10((found**2).sum(axis=(0, 2))))
    measured, predicted = np.mean(logs, axis=0), np.array(profile)
    return Steps(predicted - predicted[-1], measured - measured[-1], tier.gain[use].reason)
