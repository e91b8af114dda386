"""Composites that a file holds decomposed become one operator each, known by their values and not by their spelling.

    x -> Div(1.41421) -> Erf -> Add(1) -> Mul(x) -> Mul(0.5) -> y         becomes    x -> Gelu -> y

Exporters spell a GELU in a dozen ways, commuted and regrouped; what they all share is that the cone from x to y (cones.py)
takes the values of a GELU. A few dozen points tell analytic functions of so few nodes apart. Values that anybody else reads
stay: such a cone is not raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile import special
from vgcompile.graph import raising_attention, raising_norms, raising_softmax
from vgcompile.graph.cones import Cone, Field, stand_in
from vgcompile.graph.emit import Emitter, arithmetic, dims, is_real
from vgcompile.graph.view import graphs_of
from vgcompile.ops import INTERNAL
from vgcompile.ops.op import Array

SMOOTH = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Tanh", "Sigmoid", "Softplus", "Sum"}
    | {"Identity", "Cast"}
)  # analytic where they are defined: their compositions differ almost everywhere or nowhere
PIECEWISE = SMOOTH - {"Exp", "Log", "Erf", "Tanh"} | {"Clip", "Max", "Min", "Relu", "HardSigmoid"}
POINTS = np.concatenate([np.linspace(-6.1, 5.9, 37), [-0.013, 0.0071, 1.0]])
FAR = np.concatenate([[-1e30, -1e4, -40.0], POINTS, [40.0, 1e4, 1e30]])  # where another piece would show
TOLERANCE = {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 1e-2}  # what rounding the constants may cost


@dataclass(frozen=True, eq=False)
class Target:
    """An elementwise operator to raise to. ``by`` are the operators of which every spelling holds one; ``attributes`` fits
    candidates to the values at POINTS."""

    operator: str
    by: frozenset[str]
    numpy: Callable[..., Array]
    attributes: Callable[[Cone], Sequence[Mapping[str, Any]]] = lambda cone: ({},)
    of: frozenset[str] = SMOOTH
    points: Array = field(default_factory=lambda: POINTS)


def _gelu(x: Array, *, approximate: str) -> Array:
    if approximate == "none":
        return x * special.ndtr(x)  # type: ignore[no-any-return]
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))  # type: ignore[no-any-return]


def _swish_factors(cone: Cone) -> list[Mapping[str, Any]]:
    """y(1) = sigmoid(alpha)."""
    y = cone.at(np.ones(1))
    if y is None or y.shape != (1,) or not 0.0 < y[0] < 1.0:
        return []
    alpha = float(special.logit(y[0]))
    return [{"alpha": round(alpha, 3) if abs(alpha - round(alpha, 3)) < 1e-6 else alpha}]


TARGETS = (
    Target("Gelu", frozenset({"Erf"}), _gelu, lambda cone: ({"approximate": "none"},)),
    Target("Gelu", frozenset({"Tanh"}), _gelu, lambda cone: ({"approximate": "tanh"},)),
    Target("Mish", frozenset({"Softplus", "Tanh"}), lambda x: x * np.tanh(np.logaddexp(x, 0.0))),
    Target("Swish", frozenset({"Sigmoid", "Exp"}), lambda x, *, alpha: x * special.expit(alpha * x), _swish_factors),
    Target(
        "HardSwish",
        frozenset({"HardSigmoid", "Clip", "Max", "Min", "Relu"}),
        lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
        of=PIECEWISE,
        points=FAR,
    ),
    Target("Softplus", frozenset({"Exp"}), lambda x: np.logaddexp(x, 0.0)),
    Target("Sigmoid", frozenset({"Exp"}), special.expit),
)
_BY = {name: [target for target in TARGETS if name in target.by] for target in TARGETS for name in target.by}
_STEPS = 5  # from the telling operator to the end of the longest spelling


def raised(model: ir.Model, kept: Set[str] = frozenset()) -> list[str]:
    """Raise what is known in a model and in its subgraphs; returns notes. Changes ``model``.

    Values called ``kept`` stay, whether a node makes them or the file holds them.
    """
    count: Counter[str] = Counter()
    outermost = Emitter(model.graph, model.opset_imports[""])
    graphs = graphs_of(model.graph)
    for graph in graphs:
        emitter = outermost.inside(graph)
        with arithmetic(emitter):
            count.update(_raised_functions(emitter, kept))
            count.update(raising_norms.raised(emitter, kept))
            count.update(raising_softmax.raised(emitter, kept))
            count.update(raising_attention.raised(emitter, kept))
    if count and any(node.domain == INTERNAL for graph in graphs for node in graph):
        model.opset_imports[INTERNAL] = 1
    found = ", ".join(f"{number} {name}" for name, number in sorted(count.items()))
    return [f"recognized {found}"] if found else []


def _raised_functions(emitter: Emitter, kept: Set[str]) -> Iterator[str]:
    present = {node.op_type for node in emitter.graph}
    for of in dict.fromkeys(target.of for target in TARGETS if target.by & present):
        area = Field({node: index for index, node in enumerate(emitter.graph)}, of, kept)
        known: dict[ir.Node, list[Target]] = {}
        for node in area.order:
            for target in _BY.get(node.op_type, ()):
                for root in area.roots(node, _STEPS) if target.of == of else ():
                    known.setdefault(root, []).append(target)
        for root in sorted(known, key=area.order.__getitem__, reverse=True):
            found = _recognized(root, area, known[root]) if root.graph is emitter.graph and is_real(root.outputs[0]) else None
            if found is not None:
                cone, target, attributes = found
                stand_in(emitter, cone.nodes, target.operator, cone.base, **attributes)
                yield target.operator


def _recognized(root: ir.Node, area: Field, targets: Sequence[Target]) -> tuple[Cone, Target, Mapping[str, Any]] | None:
    """The smallest cone that takes the values of a target, of the targets the one that is closest."""
    value = root.outputs[0]
    for cone in area.cones(root):
        if len(cone.nodes) < 2 or cone.base.dtype != value.dtype or cone.base.shape is None or dims(cone.base) != dims(value):
            continue
        best, least = None, TOLERANCE.get(value.dtype, 1e-6) if value.dtype is not None else 1e-6
        for target in dict.fromkeys(targets):
            y = cone.at(target.points)
            if y is None or y.shape != target.points.shape:
                continue
            for attributes in target.attributes(cone):
                off = float(np.max(np.abs(y - target.numpy(target.points, **attributes)) / (1.0 + np.abs(y))))
                if off < least:
                    best, least = (cone, target, attributes), off
        if best is not None:
            return best
    return None
