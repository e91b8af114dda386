"""The joint graph: what a model computes, and the gradient of its loss, or of its outputs, by each asked value.

    inputs:   data, and every trainable parameter with its initializer as the default
    outputs:  the model's outputs, grad.<value> for each asked value

Only standard operators are left in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vgcompile.errors import GradientRefused, UserError
from vgcompile.graph.emit import Emitter, dims, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.pause import uncollected
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import Profile, lower
from vgcompile.passes.optimize import optimize

ADJOINT = "adj."  # prefix of the graph inputs that take an adjoint from outside
GRADIENT = "grad."  # prefix of the outputs


def gradient(network: Network, wanted: Sequence[str] | None = None) -> ir.Model:
    """Compile the joint graph of a network for ``wanted`` values (default: all parameters): loss, its parts, y and gradients
    come out.

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
    wanted = network.parameters if wanted is None else wanted
    return joint(network.model.clone(), [network.loss], wanted, [network.loss, *network.parts, *network.outputs])


@uncollected()
def refusal(network: Network) -> GradientRefused | None:
    """Why there is no gradient of the loss by the parameters or, without a loss, of the outputs by the real inputs; None where
    there is one.

    The sweep alone finds that: nothing is lowered. Raises UserError where a value has a gradient's name.
    """
    model = network.model.clone()
    try:
        if network.loss is not None:
            _swept(model, [network.loss], network.parameters, outside=False, prefix=GRADIENT)
        else:
            values, emitter = named_values(model), Emitter(model.graph, model.opset_imports[""])
            outputs = [values[name] for name in network.outputs]
            seeds = {output: ir.Value(name=ADJOINT, shape=output.shape, type=output.type) for output in outputs}
            with emitter.scope(role="backward"):
                differentiate(model, seeds, [value for value in model.graph.inputs if is_real(value)], emitter)
    except GradientRefused as refused:
        return refused
    return None


def joint(
    model: ir.Model,
    roots: Sequence[str],
    wanted: Sequence[str],
    outputs: Sequence[str],
    *,
    outside: bool = False,
    prefix: str = GRADIENT,
    profile: Profile | None = "fast",
) -> ir.Model:
    """Let a model give out ``outputs`` and the gradient of the sum of ``roots`` by each ``wanted`` value. Changes ``model`` and
    returns it.

    With ``outside`` it is their vector-Jacobian product with adjoints that come in as the inputs ``adj.<root>``. An initializer
    among the wanted becomes an input that has a default. ``profile`` is that of passes/lower.py; None leaves composites whole,
    for another sweep.
    """
    gradients = _swept(model, roots, wanted, outside=outside, prefix=prefix)
    given_out = [*outputs, *gradients]
    if profile is not None:
        lower(model, profile)
    values = named_values(model)  # outputs come after lowering: taking a node out of a graph costs a look at all of them
    model.graph.outputs[:] = [values[name] for name in given_out]
    return optimize(model)


def _swept(model: ir.Model, roots: Sequence[str], wanted: Sequence[str], *, outside: bool, prefix: str) -> list[str]:
    """Append the adjoints of the wanted values; returns the names of their gradients."""
    graph, values = model.graph, named_values(model)
    targets = [values[name] for name in wanted]
    graph.inputs.extend(v for v in targets if v.name in graph.initializers and not v.is_graph_input())
    emitter = Emitter(graph, model.opset_imports[""])
    with emitter.scope(role="backward"):
        seeds = {values[name]: _outside(emitter, values[name]) if outside else seed_of(emitter, values[name]) for name in roots}
        totals = differentiate(model, seeds, targets, emitter).totals
        values = named_values(model)  # what was opened on the way stands under its old name
        return [str(_output(emitter, values[name], totals.get(values[name]), prefix).name) for name in wanted]


def seed_of(emitter: Emitter, root: ir.Value) -> ir.Value:
    """The derivative of a loss by itself: 1."""
    assert root.dtype is not None
    return emitter.constant(np.ones(dims(root), root.dtype.numpy()))


def _outside(emitter: Emitter, root: ir.Value) -> ir.Value:
    seed = ir.Value(name=_free(emitter, f"{ADJOINT}{root.name}", root), shape=root.shape, type=root.type)
    emitter.graph.inputs.append(seed)
    return seed


def _output(emitter: Emitter, target: ir.Value, adjoint: ir.Value | None, prefix: str) -> ir.Value:
    """The adjoint under the name ``grad.<value>``; zeros where the value never reaches a root."""
    assert target.dtype is not None
    if adjoint is None:
        shape = emitter.Shape(target) if any(isinstance(d, str) for d in dims(target)) else list(dims(target))
        adjoint = emitter.Expand(np.zeros((), target.dtype.numpy()), shape)
    elif adjoint.producer() is None or adjoint.is_graph_output() or (adjoint.name or "").startswith(prefix):
        adjoint = emitter.Identity(adjoint)
    adjoint.name = _free(emitter, f"{prefix}{target.name}", target)
    adjoint.shape = target.shape
    return adjoint


def _free(emitter: Emitter, name: str, value: ir.Value) -> str:
    """``name``, which must not be taken."""
    if emitter.fresh_value_name(name) != name:
        other = "" if name.startswith(ADJOINT) else ", or give the gradients another prefix (--prefix)"
        raise UserError(
            f"the model holds a value called {name!r}, which is to be the gradient of {value.name!r}; rename it{other}"
        )
    return name


def named_values(model: ir.Model) -> dict[str, ir.Value]:
    """Every value of the main graph by its name."""
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values()) if value.name}
    values.update((value.name, value) for node in graph for value in node.outputs if value.name)
    return values
