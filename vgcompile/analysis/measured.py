"""The measured tier: one ONNX Runtime run of the instrumented graph, one reduction for each edge.

The sweep of the joint graph, with every use's adjoint kept apart before accumulation, is followed by a sum of squares per
adjoint in double: float32 squares die near |g| = 1e-22, the gradient itself only at 1e-45. All sums leave the graph as one
vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.emit import Emitter, dims, is_real
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.gradient import ADJOINT, named_values, seed_of
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize
from vgcompile.runtime.session import Session

Array = np.ndarray[Any, Any]
SUMS = "vgcompile.sums"


@dataclass(frozen=True)
class Measured:
    """Norms of one run, keyed by edge id, value name and parameter name; not yet relative to ``norm`` = ||dL/dy||."""

    norm: float
    parts: Mapping[str, float]
    totals: Mapping[str, float]
    gradients: Mapping[str, float]
    weights: Mapping[str, float]
    loss: float | None
    watched: Mapping[str, Array]


@dataclass(frozen=True)
class Instrumented:
    """The instrumented model and where each sum stands in the vector that it gives out."""

    model: ir.Model
    slots: Mapping[str, int]  # value name of an adjoint -> slot
    parts: Mapping[str, str]  # edge id -> value name of its adjoint
    totals: Mapping[str, str]  # value name -> value name of its total adjoint
    norm: tuple[str, ...]  # adjoints of the outputs, of those that have one: a loss may read of an output its shape alone


def instrument(network: Network, watched: Sequence[str] = ()) -> Instrumented:
    """Compile the graph that measures every edge and gives out the ``watched`` values.

    Without a loss the adjoints of the outputs are inputs ``adj.<output>``.
    """
    model = network.model.clone()
    values = named_values(model)
    emitter = Emitter(model.graph, model.opset_imports[""])
    outputs = [values[name] for name in network.outputs]
    wanted = [v for v in model.graph.inputs if is_real(v)]
    with emitter.scope(role="backward"):
        seeds = _seeds(emitter, model, values, network, outputs)
        adjoints = differentiate(model, seeds, wanted, emitter)
    reduced: dict[str, ir.Value] = {}
    parts = {f"{node.name}#{position}": _name(part) for (node, position), part in adjoints.parts.items()}
    totals = {_name(value): _name(total) for value, total in adjoints.totals.items()}
    every = {_name(v): v for v in (*adjoints.parts.values(), *adjoints.totals.values())}
    with emitter.scope("measure"):
        for name, adjoint in every.items():
            reduced[name] = _sum_of_squares(emitter, adjoint)
        sums = emitter.Concat(*reduced.values(), axis=0) if len(reduced) > 1 else next(iter(reduced.values()))
    sums.name = SUMS
    model.graph.outputs[:] = [sums, *(values[name] for name in (*((network.loss,) if network.loss else ()), *watched))]
    lower(model)
    optimize(model)
    slots = {name: slot for slot, name in enumerate(reduced)}
    return Instrumented(model, slots, parts, totals, tuple(_name(adjoints.totals[y]) for y in outputs if y in adjoints.totals))


def _name(value: ir.Value) -> str:
    assert value.name
    return value.name


def _dtype(value: ir.Value) -> np.dtype[Any]:
    assert value.dtype is not None
    return value.dtype.numpy()


def _seeds(
    emitter: Emitter, model: ir.Model, values: Mapping[str, ir.Value], network: Network, outputs: Sequence[ir.Value]
) -> dict[ir.Value, ir.Value]:
    if network.loss is not None:
        loss = values[network.loss]
        return {loss: seed_of(emitter, loss)}
    seeds = {}
    for output in outputs:
        seed = ir.Value(name=f"{ADJOINT}{output.name}", shape=output.shape, type=output.type)
        model.graph.inputs.append(seed)
        seeds[output] = seed
    return seeds


def _sum_of_squares(emitter: Emitter, adjoint: ir.Value) -> ir.Value:
    flat = emitter.Reshape(emitter.Cast(adjoint, to=int(ir.DataType.DOUBLE)), [-1])
    return emitter.ReduceSumSquare(flat, [0], keepdims=1)  # type: ignore[no-any-return]


class Meter:
    """A session on the instrumented graph, run once per initialization."""

    def __init__(self, network: Network, provider: str = "auto", watched: Sequence[str] = ()) -> None:
        self.network, self.watched = network, watched
        self.instrumented = instrument(network, watched)
        self.session = Session(check(self.instrumented.model), provider=provider)

    def measure(self, feeds: Mapping[str, Array], seed: int | None = None) -> Measured:
        """Run one batch, with the model's own parameters or (``seed``) with parameters drawn anew."""
        parameters = self.network.parameter_values(seed)
        given = {**self._gaussian_adjoints(feeds), **feeds, **(parameters if seed is not None else {})}
        known = {value.name for value in self.instrumented.model.graph.inputs}
        results = self.session.run(None, {name: array for name, array in given.items() if name in known})
        norms = np.sqrt(results[SUMS].astype(np.float64))
        slots, names = self.instrumented.slots, self.instrumented.totals
        loss = float(results[self.network.loss]) if self.network.loss is not None else None
        return Measured(
            norm=math.sqrt(sum(float(norms[slots[name]]) ** 2 for name in self.instrumented.norm)),
            parts={edge: float(norms[slots[name]]) for edge, name in self.instrumented.parts.items()},
            totals={value: float(norms[slots[name]]) for value, name in names.items()},
            gradients={p: float(norms[slots[names[p]]]) for p in parameters if p in names},
            weights={p: float(np.linalg.norm(array.astype(np.float64))) for p, array in parameters.items()},
            loss=loss,
            watched={name: results[name] for name in self.watched},
        )

    def _gaussian_adjoints(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """A Gaussian adjoint of fixed seed for each output, where there is no loss."""
        if self.network.loss is not None:
            return {}
        fed = [(given.shape, feeds[name].shape) for name, given in self.network.inputs.items() if name in feeds]
        sizes = {dim: extent for shape, extents in fed for dim, extent in zip(shape, extents, strict=True)}
        batch = next((extents[0] for _, extents in fed if extents), 1)
        rng = np.random.default_rng(0)
        seeds = [v for v in self.instrumented.model.graph.inputs if _name(v).startswith(ADJOINT)]
        return {
            _name(v): rng.standard_normal([sizes.get(d, batch) if isinstance(d, str) else d for d in dims(v)]).astype(_dtype(v))
            for v in seeds
        }
