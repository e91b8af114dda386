"""The measured tier: one ONNX Runtime run of the instrumented graph, and what it says of each edge.

A quick run sums squares in float32. Where a sum leaves the range in which that is good to six digits, the graph is compiled
again with sums in double, and the exact run stands for the quick one: a dropout has drawn another mask, so that numbers of two
runs do not belong together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.instrument import EXACT, QUICK, Instrumented, Reduction, Statistics, instrument
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import ADJOINT
from vgcompile.runtime.session import Session

Array = np.ndarray[Any, Any]
LEAST, MOST = 1e-24, 1e38  # a sum of squares of float32 in between has lost nothing that counts: 10^8 squares below 2^-126


@dataclass(frozen=True)
class Spread:
    """How an adjoint's elements lie: the greatest magnitude, the shares of zeros and of infinities and NaN."""

    peak: float
    zeros: float
    undefined: float


@dataclass(frozen=True)
class Measured:
    """Norms of one run, keyed by edge id, value name and parameter name; not yet relative to ``norm`` = ||dL/dy||.

    ``spreads``, by edge id, and ``total_spreads``, by value name, are empty where only squares were asked for.
    """

    norm: float
    parts: Mapping[str, float]
    totals: Mapping[str, float]
    gradients: Mapping[str, float]
    weights: Mapping[str, float]
    loss: float | None
    watched: Mapping[str, Array]
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    total_spreads: Mapping[str, Spread] = field(default_factory=dict)
    steps: Mapping[str, Array] = field(default_factory=dict)  # norms at the steps of a recurrence, from the first


class Meter:
    """A session on the instrumented graph, run once per initialization.

    ``feeds`` are of the size that all of them will have. ``exact`` sums in double from the first: where gradients are known to be
    tiny, a quick run would be in vain. Raises GradientRefused where an operator has no gradient rule.
    """

    def __init__(
        self,
        network: Network,
        provider: str = "auto",
        watched: Sequence[str] = (),
        statistics: Statistics = "squares",
        feeds: Mapping[str, Array] | None = None,
        exact: bool = False,
    ) -> None:
        self.network, self.watched, self.statistics = network, watched, statistics
        self._provider, self._extents, self._always_exact = provider, extents(network, feeds or {}), exact
        self.instrumented, self.session = self._compiled((EXACT if exact else QUICK)[statistics])

    def _compiled(self, reductions: Sequence[Reduction]) -> tuple[Instrumented, Session]:
        instrumented = instrument(self.network, self.watched, reductions, self._extents)
        return instrumented, Session(check(instrumented.model), provider=self._provider)

    @cached_property
    def _exact(self) -> tuple[Instrumented, Session]:
        return (self.instrumented, self.session) if self._always_exact else self._compiled(EXACT[self.statistics])

    def measure(self, feeds: Mapping[str, Array], seed: int | None = None, exact: bool = False) -> Measured:
        """Run one batch, with the model's own parameters or (``seed``) with parameters drawn anew."""
        parameters = self.network.parameter_values(seed)
        given = {**self._gaussian_adjoints(feeds), **feeds, **(parameters if seed is not None else {})}
        instrumented, results = self._run(given, exact)
        norms = np.sqrt(results["squares"].astype(np.float64))
        slots, names = instrumented.slots, instrumented.totals
        loss = self.network.loss
        spread = _spreads(instrumented, results) if self.statistics == "all" else {}
        return Measured(
            norm=math.sqrt(sum(float(norms[slots[name]]) ** 2 for name in instrumented.norm)),
            parts={edge: float(norms[slots[name]]) for edge, name in instrumented.parts.items()},
            totals={value: float(norms[slots[name]]) for value, name in names.items()},
            gradients={p: float(norms[slots[names[p]]]) for p in parameters if p in names},
            weights={p: float(np.linalg.norm(array.astype(np.float64))) for p, array in parameters.items()},
            loss=float(results[loss]) if loss is not None else None,
            watched={name: results[name] for name in self.watched},
            spreads={edge: spread[name] for edge, name in instrumented.parts.items() if spread},
            total_spreads={value: spread[name] for value, name in names.items() if spread},
            steps={edge: np.sqrt(results[name]) for edge, name in instrumented.steps.items()},
        )

    def _run(self, given: Mapping[str, Array], exact: bool) -> tuple[Instrumented, dict[str, Array]]:
        """The vectors under the names of their readings, and what else the graph gives out."""
        exact = exact or self._always_exact
        instrumented, session = self._exact if exact else (self.instrumented, self.session)
        known = {value.name for value in instrumented.model.graph.inputs}
        results = session.run(None, {name: array for name, array in given.items() if name in known})
        results |= {reduction.reading: results[reduction.output] for reduction in instrumented.reductions}
        if not exact and not np.all((results["squares"] > LEAST) & (results["squares"] < MOST)):
            return self._run(given, exact=True)
        return instrumented, results

    def _gaussian_adjoints(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """A Gaussian adjoint of fixed seed for each output, where there is no loss."""
        if self.network.loss is not None:
            return {}
        sizes = extents(self.network, feeds)
        fed = [feeds[name].shape for name in self.network.inputs if name in feeds]
        batch = next((extents[0] for extents in fed if extents), 1)
        rng = np.random.default_rng(0)
        seeds = [v for v in self.instrumented.model.graph.inputs if (v.name or "").startswith(ADJOINT)]
        return {
            v.name or "": rng.standard_normal([sizes.get(d, batch) if isinstance(d, str) else d for d in dims(v)]).astype(
                _dtype(v)
            )
            for v in seeds
        }


def extents(network: Network, feeds: Mapping[str, Array]) -> dict[str, int]:
    """What the symbols of the inputs stand for."""
    fed = [(given.shape, feeds[name].shape) for name, given in network.inputs.items() if name in feeds]
    return {dim: extent for shape, extents in fed for dim, extent in zip(shape, extents, strict=True) if isinstance(dim, str)}


def _spreads(instrumented: Instrumented, results: Mapping[str, Array]) -> dict[str, Spread]:
    """By the value name of an adjoint."""
    elements = np.maximum(results["elements"].astype(np.float64), 1.0)
    peaks = np.maximum(results["high"], -results["low"]).astype(np.float64)
    zeros = 1.0 - results["nonzero"] / elements
    undefined = results["undefined"] / elements if "undefined" in results else np.zeros_like(elements)
    every = list(map(Spread, peaks.tolist(), zeros.tolist(), undefined.tolist()))
    return {name: every[slot] for name, slot in instrumented.slots.items()}


def _dtype(value: ir.Value) -> np.dtype[Any]:
    assert value.dtype is not None
    return value.dtype.numpy()
