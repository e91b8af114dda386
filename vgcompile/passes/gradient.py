"""The joint graph: a network's forward and loss, and the gradient of the loss by each asked value.

    inputs:   data, and every trainable parameter with its initializer as the default
    outputs:  loss, the network's outputs, grad.<value> for each asked value

Only standard operators are left in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vgcompile.errors import UserError
from vgcompile.graph.emit import Emitter, dims
from vgcompile.graph.network import Network
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize


def gradient(network: Network, wanted: Sequence[str] | None = None) -> ir.Model:
    """Compile the joint graph for ``wanted`` values (default: all parameters), in standard operators only.

    Raises UserError for a network without a loss, or with a value that has a gradient's name, and GradientRefused where an
    operator has no rule for its case.
    """
    if network.loss is None:
        scalars = [str(value.name) for value in network.model.graph.outputs if value.shape is not None and not dims(value)]
        choices = f"; its scalar outputs are {', '.join(scalars)}" if scalars else ""
        raise UserError(
            f"{network.source}: the model has no loss, so it has no gradient; state one (a `loss:` in YAML, --loss for ONNX)"
            + choices
        )
    model = network.model.clone()
    values = named_values(model)
    loss = values[network.loss]
    targets = [values[name] for name in (network.parameters if wanted is None else wanted)]
    emitter = Emitter(model.graph, model.opset_imports[""])
    with emitter.scope(dtype=loss.dtype, role="backward"):
        adjoints = differentiate(model, {loss: seed_of(emitter, loss)}, targets, emitter)
        gradients = [_output(emitter, target, adjoints.totals.get(target)) for target in targets]
    model.graph.outputs[:] = [loss, *(values[name] for name in network.outputs), *gradients]
    lower(model)
    return optimize(model)


def seed_of(emitter: Emitter, loss: ir.Value) -> ir.Value:
    """The derivative of the loss by itself: 1."""
    assert loss.dtype is not None
    return emitter.constant(np.ones(dims(loss), loss.dtype.numpy()))


def _output(emitter: Emitter, target: ir.Value, adjoint: ir.Value | None) -> ir.Value:
    """The adjoint under the name ``grad.<value>``; zeros where the value never reaches the loss."""
    name = f"grad.{target.name}"
    if adjoint is None:
        shape = emitter.Shape(target) if any(isinstance(d, str) for d in dims(target)) else list(dims(target))
        adjoint = emitter.Expand(0.0, shape)
    elif adjoint.producer() is None or (adjoint.name or "").startswith("grad."):
        adjoint = emitter.Identity(adjoint)
    adjoint.name = emitter.fresh_value_name(name)
    if adjoint.name != name:
        raise UserError(f"the model holds a value called {name!r}, which is to be the gradient of {target.name!r}; rename it")
    adjoint.shape = target.shape
    return adjoint


def named_values(model: ir.Model) -> dict[str, ir.Value]:
    """Every value of the main graph by its name."""
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    values.update((value.name, value) for node in graph for value in node.outputs)
    return {name: value for name, value in values.items() if name}
