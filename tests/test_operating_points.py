"""Each row's vjp where the models in models/ use it: at the values that the network really has there.

The oracle is float64 differences. Through a whole deep net they are blind to small gradients; node by node, at the operating
point, they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import vgcompile
from tests.one_node import OneNode, build
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.network import Network
from vgcompile.ops import OPS
from vgcompile.ops.op import Sample
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize
from vgcompile.runtime import data

Array = np.ndarray[Any, Any]
MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.yaml"))
BATCH = 3
STEP = 1e-6  # of the root mean square of what is moved


def values_of(network: Network) -> dict[str, Array]:
    """Every value of the forward graph for one batch."""
    model = network.model.clone()
    wanted = [value for node in model.graph for value in node.outputs if value.name]
    model.graph.outputs[:] = wanted
    optimized = optimize(lower(model))
    feeds = data.batch(network, file=None, size=BATCH, seed=5)
    found = vgcompile.Session(ir.to_proto(optimized), provider="cpu").run(None, feeds)
    constants = {value.name: value.const_value.numpy() for value in network.model.graph.initializers.values()}
    return {**constants, **feeds, **found}


def kinds_of_use(network: Network, values: Mapping[str, Array]) -> Iterator[ir.Node]:
    """The first and the last node of each operator, attributes and shapes."""
    seen: dict[str, list[ir.Node]] = {}
    for node in network.model.graph:
        shapes = [None if v is None else values[v.name].shape for v in node.inputs]
        seen.setdefault(f"{node.op_type} {attributes_of(node)} {shapes}", []).append(node)
    for nodes in seen.values():
        yield nodes[0]
        if len(nodes) > 1:
            yield nodes[-1]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_vjp_at_the_operating_point(path: Path) -> None:
    network = vgcompile.open_network(path)
    values = values_of(network)
    for node in kinds_of_use(network, values):
        operands = [None if v is None else values[v.name] for v in node.inputs]
        given = tuple(x.shape if x is not None and x.dtype.kind == "f" else x for x in operands)
        one = build(OPS[node.op_type], Sample(given, _stated(node), outputs=len(node.outputs)))
        drawn = {position: np.asarray(operands[position], np.float64) for position in one.drawn}
        for position in one.adjoints:
            predicted, found, size = along(one, drawn, position)
            if np.isnan(found) and node.op_type == "SoftmaxCrossEntropyLoss":
                continue  # scores of 1e6: the evaluator takes the logarithm of a probability that is 0 in float64
            assert abs(predicted - found) <= 1e-5 * size, f"{node.name} by input {position}: {predicted} against {found}"


def _stated(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _root_mean_square(x: Array) -> float:
    return float(np.sqrt((x * x).mean()))


def along(one: OneNode, drawn: Mapping[int, Array], position: int) -> tuple[float, float, float]:
    """<vjp(g), v>, <g, (f(x + hv) - f(x - hv)) / 2h>, and |g| |df/dv|, for random g and v."""
    rng = np.random.default_rng(position)
    x = drawn[position]
    v = rng.standard_normal(x.shape)
    # Zeros (a bias) are moved by a part of what they are added to.
    h = STEP * (_root_mean_square(x) or max(_root_mean_square(y) for y in drawn.values()))
    high, low = (one.run_forward({**drawn, position: x + sign * h * v}) for sign in (1.0, -1.0))
    with np.errstate(invalid="ignore"):
        slope = [(a - b) / (2.0 * h) for a, b in zip(high, low, strict=True)]
    g = {k: rng.standard_normal(slope[k].shape) for k in one.seeds}
    predicted = float((one.run_gradient(drawn, g)[position] * v).sum())
    found = sum(float((g[k] * slope[k]).sum()) for k in g)
    size = sum(float(np.linalg.norm(g[k]) * np.linalg.norm(slope[k])) for k in g)
    return predicted, found, size + 1e-9
