"""Random ONNX graphs of a dozen operators, with symbolic extents, broadcasting, shared weights and values used several times.

An extent is what it is in each of three runs of one file: N = (1, 2, 5) and M = (1, 2, 5) are two symbols that are always equal,
U = (1, 2, 1) is spread along N where it is 1. A symbol that is 1 in a run is where un-broadcasting goes wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Extent = tuple[int, int, int]  # in each run
Shape = tuple[Extent, ...]

RUNS = 3
SYMBOLS: dict[str, Extent] = {"N": (1, 2, 5), "M": (1, 2, 5), "U": (1, 2, 1), "T": (3, 1, 2), "H": (4, 5, 6), "W": (5, 4, 7)}
ONE: Extent = (1, 1, 1)
SMOOTH = ("Tanh", "Sigmoid", "Softplus", "Neg", "Exp", "Sin", "Erf", "Softsign", "Gelu", "Swish", "Mish")
KINKED = ("Relu", "Abs", "LeakyRelu", "HardSigmoid", "HardSwish", "Elu", "Celu", "Selu", "ThresholdedRelu")
SINCE = {"Swish": 24, "RMSNormalization": 23}


def fixed(number: int) -> Extent:
    return (number,) * RUNS


def is_fixed(extent: Extent) -> bool:
    return len(set(extent)) == 1


@dataclass(frozen=True)
class Value:
    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Graph:
    """A graph in the making: every value that stands in it may be read by what comes next."""

    rng: random.Random
    opset: int = 21
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: list[tuple[Value, tuple[int | str, ...], bool]] = field(default_factory=list)  # with a default or without
    weights: dict[str, Array] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    drawn: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def node(self, operator: str, operands: Sequence[str], shape: Shape, **attributes: Any) -> Value:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(operands), [name], **attributes))
        self.values.append(Value(name, shape))
        return self.values[-1]

    def input(self, dims: Sequence[int | str]) -> Value:
        shape = tuple(SYMBOLS[dim] if isinstance(dim, str) else fixed(dim) for dim in dims)
        value = Value(f"x{len(self.inputs)}", shape)
        self.inputs.append((value, tuple(dims), False))
        self.values.append(value)
        return value

    def weight(self, shape: Shape) -> Value:
        """An initializer of fixed extents: one that stands already, or a new one, which now and then is an input too."""
        known = [Value(name, shape) for name, array in self.weights.items() if array.dtype.kind == "f"]
        same = [v for v in known if self.weights[v.name].shape == tuple(e[0] for e in shape)]
        if same and self.rng.random() < 0.5:
            return self.rng.choice(same)
        value = Value(f"w{len(self.weights)}", shape)
        self.weights[value.name] = self.drawn.normal(size=[e[0] for e in shape]).astype(np.float32)
        if self.rng.random() < 0.2:
            self.inputs.append((value, tuple(e[0] for e in shape), True))
        return value

    def whole(self, numbers: Sequence[int]) -> str:
        """The name of a constant of whole numbers, which now and then is made by a node, or may be overridden."""
        name = f"c{len(self.weights)}_{len(self.nodes)}"
        array = np.array(numbers, np.int64)
        kind = self.rng.random()
        if kind < 0.3:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
            return name
        self.weights[name] = array
        return name

    def pick(self, fits: Callable[[Value], bool] = lambda value: True) -> Value | None:
        found = [value for value in self.values if fits(value)]
        recent = found[-4:]
        return self.rng.choice(recent if recent and self.rng.random() < 0.7 else found) if found else None

    def extent_name(self, value: Value, axis: int) -> str:
        """The extent of one axis, read when the graph runs; a vector of one number."""
        shape, index, out = (f"s{len(self.nodes)}_{i}" for i in range(3))
        self.weights[index] = np.array([axis], np.int64)
        self.nodes.append(helper.make_node("Shape", [value.name], [shape]))
        self.nodes.append(helper.make_node("Gather", [shape, index], [out], axis=0))
        return out


def broadcast(a: Shape, b: Shape) -> Shape | None:
    rank = max(len(a), len(b))
    result = []
    for x, y in zip((ONE,) * (rank - len(a)) + a, (ONE,) * (rank - len(b)) + b, strict=True):
        if any(p != q and 1 not in (p, q) for p, q in zip(x, y, strict=True)):
            return None
        result.append(tuple(max(p, q) for p, q in zip(x, y, strict=True)))
    return tuple(result)  # type: ignore[return-value]


def _unary(g: Graph) -> None:
    x = g.pick()
    operator = g.rng.choice([name for name in (*SMOOTH, *KINKED) if SINCE.get(name, 0) <= g.opset])
    if x is not None:
        if operator == "Exp":
            x = g.node("Tanh", [x.name], x.shape)
        g.node(operator, [x.name], x.shape)


def _binary(g: Graph) -> None:
    x = g.pick()
    if x is None:
        return
    y = g.pick(lambda v: broadcast(x.shape, v.shape) is not None)
    if g.rng.random() < 0.3:
        tail = [e if is_fixed(e) and g.rng.random() < 0.6 else ONE for e in x.shape[g.rng.randrange(x.rank + 1) :]]
        y = g.weight(tuple(tail))
    assert y is not None
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    operator = g.rng.choice(["Add", "Sub", "Mul", "Mul", "Div", "Max", "Min", "Pow", "PRelu", "Sum", "Mean", "Where"])
    a, b = (x, y) if g.rng.random() < 0.5 else (y, x)
    if operator == "Div":
        b = g.node("Softplus", [b.name], b.shape)
        b = g.node("Add", [b.name, g.weight(()).name], b.shape) if g.rng.random() < 0.1 else b
    elif operator == "Pow":
        a = g.node("Softplus", [a.name], a.shape)
        b = g.node("Tanh", [b.name], b.shape)
    elif operator == "PRelu":
        a = g.node("Identity", [a.name], a.shape)
        if shape != a.shape:  # its slope is spread along x alone
            operator = "Mul"
    elif operator in ("Sum", "Mean"):
        g.node(operator, [a.name, b.name, a.name], shape)
        return
    elif operator == "Where":
        c = f"m{len(g.nodes)}"
        g.nodes.append(helper.make_node(g.rng.choice(["Less", "GreaterOrEqual"]), [a.name, b.name], [c]))
        g.node("Where", [c, a.name, b.name], shape)
        return
    g.node(operator, [a.name, b.name], shape)


def _clip(g: Graph) -> None:
    x = g.pick()
    if x is not None:
        g.node("Clip", [x.name, g.weight(()).name if g.rng.random() < 0.5 else "", ""][: 2 + (g.rng.random() < 0.5)], x.shape)


def _matmul(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 2 and is_fixed(v.shape[-1]))
    if x is None:
        return
    inner, outer = x.shape[-1], fixed(g.rng.randint(1, 3))
    kind = g.rng.random()
    if kind < 0.35 and x.rank == 2:
        turned = g.rng.random() < 0.5
        w = g.weight((outer, inner) if turned else (inner, outer))
        operands = [x.name, w.name] + (
            [g.weight(g.rng.choice([(outer,), (), (ONE, outer), (ONE, ONE)])).name] if g.rng.random() < 0.7 else []
        )
        g.node("Gemm", operands, (x.shape[0], outer), transB=int(turned), alpha=0.7, beta=1.3)
    elif kind < 0.7:
        lead = g.rng.choice([(), (ONE,), (ONE, ONE), (fixed(2), ONE)])
        shape = broadcast(x.shape[:-2], lead)
        if shape is None:
            return
        w = g.weight((*lead, inner, outer)) if g.rng.random() < 0.8 or lead else g.weight((inner,))
        result = (*shape, x.shape[-2], outer) if w.rank > 1 else x.shape[:-1]
        g.node("MatMul", [x.name, w.name], result)
    else:
        y = g.pick(lambda v: v.rank >= 2 and v.shape[-2] == x.shape[-1] and broadcast(v.shape[:-2], x.shape[:-2]) is not None)
        if y is None:  # against itself
            order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
            y = g.node("Transpose", [x.name], tuple(x.shape[i] for i in order), perm=order)
        lead_shape = broadcast(x.shape[:-2], y.shape[:-2])
        assert lead_shape is not None
        g.node("MatMul", [x.name, y.name], (*lead_shape, x.shape[-2], y.shape[-1]))


def _reduce(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    axes = sorted(g.rng.sample(range(x.rank), g.rng.randint(1, x.rank)))
    keep = g.rng.random() < 0.5
    operator = g.rng.choice(["Sum", "Mean", "L1", "L2", "SumSquare", "LogSumExp", "Max", "Min", "Prod", "LogSum"])
    if operator == "LogSum":
        x = g.node("Softplus", [x.name], x.shape)
    shape = tuple(ONE if i in axes else e for i, e in enumerate(x.shape) if keep or i not in axes)
    given = [axis - x.rank if g.rng.random() < 0.5 else axis for axis in axes]
    operands = [x.name] if len(axes) == x.rank and g.rng.random() < 0.5 else [x.name, g.whole(given)]
    g.node("Reduce" + operator, operands, shape, keepdims=int(keep))


def _reshape(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    kind = g.rng.random()
    if kind < 0.25:
        axis = g.rng.randint(0, x.rank)
        shape = tuple(
            tuple(int(np.prod([e[run] for e in part])) for run in range(RUNS)) for part in (x.shape[:axis], x.shape[axis:])
        )
        g.node("Flatten", [x.name], shape, axis=axis)  # type: ignore[arg-type]
    elif kind < 0.5:
        total = tuple(int(np.prod([e[run] for e in x.shape])) for run in range(RUNS))
        if g.rng.random() < 0.5 and is_fixed(x.shape[-1]):
            rest = tuple(t // x.shape[-1][0] for t in total)
            g.node("Reshape", [x.name, g.whole([-1, x.shape[-1][0]])], (rest, x.shape[-1]))  # type: ignore[arg-type]
        else:
            g.node("Reshape", [x.name, g.whole([-1])], (total,))  # type: ignore[arg-type]
    elif kind < 0.75:
        axis = g.rng.randint(0, x.rank)
        g.node("Unsqueeze", [x.name, g.whole([axis])], (*x.shape[:axis], ONE, *x.shape[axis:]))
    elif ONE in x.shape:
        axis = x.shape.index(ONE)
        g.node("Squeeze", [x.name, g.whole([axis])], (*x.shape[:axis], *x.shape[axis + 1 :]))
    elif x.rank >= 2:  # with the extents of a run
        parts = [g.extent_name(x, axis) if not is_fixed(e) else g.whole([e[0]]) for axis, e in enumerate(x.shape[:-2])]
        joined, last = f"j{len(g.nodes)}", g.whole([-1])
        g.nodes.append(helper.make_node("Concat", [*parts, last], [joined], axis=0))
        flat = tuple(p * q for p, q in zip(x.shape[-2], x.shape[-1], strict=True))
        g.node("Reshape", [x.name, joined], (*x.shape[:-2], flat))  # type: ignore[arg-type]


def _transpose(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 2)
    if x is not None:
        order = g.rng.sample(range(x.rank), x.rank)
        g.node("Transpose", [x.name], tuple(x.shape[i] for i in order), perm=order)


def _concat(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    axis = g.rng.randrange(x.rank)

    def fits(v: Value) -> bool:
        return v.rank == x.rank and all(a == b for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if i != axis)

    parts = [x] + [y for _ in range(g.rng.randint(1, 2)) if (y := g.pick(fits)) is not None]
    total = tuple(sum(p.shape[axis][run] for p in parts) for run in range(RUNS))
    g.node(
        "Concat",
        [p.name for p in parts],
        (*x.shape[:axis], total, *x.shape[axis + 1 :]),
        axis=g.rng.choice([axis, axis - x.rank]),
    )  # type: ignore[arg-type]


def _cut(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    axis = g.rng.randrange(x.rank)
    extent = x.shape[axis]
    start, end, step = g.rng.choice(
        [(0, 1, 1), (-1, 2**62, 1), (1, 2**62, 1), (0, -1, 1), (0, 2**62, 2), (-1, -(2**62), -1), (1, 3, 1)]
    )
    found = tuple(len(range(*slice(start, end if abs(end) < 2**60 else None, step).indices(e))) for e in extent)
    if 0 in found:
        return
    shape = (*x.shape[:axis], found, *x.shape[axis + 1 :])
    g.node("Slice", [x.name, *(g.whole([n]) for n in (start, end, axis, step))], shape)  # type: ignore[arg-type]


def _split(g: Graph) -> None:
    x = g.pick(lambda v: any(is_fixed(e) and e[0] >= 2 for e in v.shape))
    if x is None:
        return
    axis = g.rng.choice([i for i, e in enumerate(x.shape) if is_fixed(e) and e[0] >= 2])
    extent = x.shape[axis][0]
    first = g.rng.randint(1, extent - 1)
    name = f"v{len(g.nodes)}"
    g.nodes.append(helper.make_node("Split", [x.name, g.whole([first, extent - first])], [name, name + "b"], axis=axis))
    for suffix, size in (("", first), ("b", extent - first)):
        if suffix or g.rng.random() < 0.6:
            g.values.append(Value(name + suffix, (*x.shape[:axis], fixed(size), *x.shape[axis + 1 :])))


def _pad(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    axis = g.rng.randrange(x.rank)
    before, after = g.rng.randint(0, 2), g.rng.randint(-0, 2)
    mode = g.rng.choice(["constant", "edge", "wrap"] if min(x.shape[axis]) < 3 else ["constant", "edge", "reflect", "wrap"])
    if mode == "wrap" and max(before, after) > min(x.shape[axis]):
        mode = "edge"
    pads = [0] * (2 * x.rank)
    pads[axis], pads[axis + x.rank] = before, after
    shape = (*x.shape[:axis], tuple(e + before + after for e in x.shape[axis]), *x.shape[axis + 1 :])
    g.node("Pad", [x.name, g.whole(pads)], shape, mode=mode)  # type: ignore[arg-type]


def _gather(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    axis = g.rng.randrange(x.rank)
    least = min(x.shape[axis])
    indices = [g.rng.randrange(-least, least) for _ in range(g.rng.randint(1, 4))]
    g.node("Gather", [x.name, g.whole(indices)], (*x.shape[:axis], fixed(len(indices)), *x.shape[axis + 1 :]), axis=axis)


def _expand(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    if g.rng.random() < 0.5:
        y = g.pick(lambda v: broadcast(v.shape, x.shape) is not None)
        assert y is not None
        shape = broadcast(x.shape, y.shape)
        target = f"t{len(g.nodes)}"
        g.nodes.append(helper.make_node("Shape", [y.name], [target]))
        assert shape is not None
        g.node("Expand", [x.name, target], shape)
    else:
        repeats = [g.rng.randint(1, 2) for _ in range(x.rank)]
        shape = tuple(tuple(n * r for n in e) for e, r in zip(x.shape, repeats, strict=True))  # type: ignore[misc]
        g.node("Tile", [x.name, g.whole(repeats)], shape)


def _softmax(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is not None:
        axis = g.rng.randrange(-x.rank, x.rank)
        g.node(g.rng.choice(["Softmax", "LogSoftmax"]), [x.name], x.shape, axis=axis)


def _normalize(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 2 and is_fixed(v.shape[-1]) and v.shape[-1][0] > 1)
    if x is None:
        return
    last = x.shape[-1]
    kind = g.rng.random()
    if kind < 0.4:
        operands = [x.name, g.weight((last,)).name] + ([g.weight((last,)).name] if g.rng.random() < 0.6 else [])
        g.node("LayerNormalization", operands, x.shape, axis=-1, epsilon=0.1)
        return
    axes, column = g.whole([-1]), (*x.shape[:-1], ONE)  # written out, as exporters do
    mean = g.node("ReduceMean", [x.name, axes], column)
    centred = g.node("Sub", [x.name, mean.name], x.shape)
    square = g.node("Mul", [centred.name, centred.name], x.shape)
    variance = g.node(g.rng.choice(["ReduceMean", "ReduceSum"]), [square.name, axes], column)
    g.weights[f"e{len(g.nodes)}"] = np.array(0.05, np.float32)
    moved = g.node("Add", [variance.name, f"e{len(g.nodes)}"], column)
    root = g.node("Sqrt", [moved.name], column)
    y = g.node("Div", [centred.name, root.name], x.shape)
    if g.rng.random() < 0.6:
        for name in (mean, centred, square, variance, moved, root):
            g.values.remove(name)
        y = g.node("Mul", [y.name, g.weight((last,)).name], x.shape)
        g.node("Add", [y.name, g.weight((last,)).name], x.shape)


def _spelled(g: Graph) -> None:
    """A GELU, a SiLU or a sigmoid written out, and near misses of them."""
    x = g.pick()
    if x is None:
        return
    before = len(g.values)

    def number(value: float) -> str:
        name = f"k{len(g.nodes)}_{len(g.weights)}"
        g.weights[name] = np.array(value, np.float32)
        return name

    half = g.rng.choice([0.5, 0.5, 0.51])
    kind = g.rng.randrange(3)
    if kind == 0:
        a = g.node("Div", [x.name, number(g.rng.choice([2**0.5, 1.41]))], x.shape)
        b = g.node("Erf", [a.name], x.shape)
        c = g.node("Add", [b.name, number(1.0)], x.shape)
        d = g.node("Mul", [x.name, c.name], x.shape)
        g.node("Mul", [d.name, number(half)], x.shape)
    elif kind == 1:
        a = g.node("Mul", [x.name, number(g.rng.choice([1.0, 1.702, -1.0]))], x.shape)
        b = g.node("Sigmoid", [a.name], x.shape)
        g.node("Mul", [b.name, x.name], x.shape)
    else:
        a = g.node("Neg", [g.node("Tanh", [x.name], x.shape).name], x.shape)
        b = g.node("Exp", [a.name], x.shape)
        c = g.node("Add", [number(g.rng.choice([1.0, 1.01])), b.name], x.shape)
        g.node("Reciprocal", [c.name], x.shape)
    if g.rng.random() < 0.6:
        g.values[before:] = g.values[-1:]


def _image(g: Graph) -> None:
    x = g.pick(lambda v: v.rank == 4 and is_fixed(v.shape[1]) and min(v.shape[2]) >= 3 and min(v.shape[3]) >= 3)
    if x is None:
        return
    channels, out = x.shape[1][0], g.rng.randint(1, 3)
    kernel = [g.rng.randint(1, 3), g.rng.randint(1, 3)]
    strides = [g.rng.randint(1, 2), g.rng.randint(1, 2)]
    pads = [g.rng.randint(0, k - 1) for k in kernel * 2]
    extents = [tuple((e + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for e in x.shape[2 + i]) for i in range(2)]
    kind = g.rng.random()
    if kind < 0.5:
        w = g.weight((fixed(out), fixed(channels), fixed(kernel[0]), fixed(kernel[1])))
        operands = [x.name, w.name] + ([g.weight((fixed(out),)).name] if g.rng.random() < 0.5 else [])
        g.node("Conv", operands, (x.shape[0], fixed(out), *extents), strides=strides, pads=pads)  # type: ignore[arg-type]
    elif kind < 0.85:
        given: dict[str, Any] = {"strides": strides, "pads": pads, "kernel_shape": kernel}
        operator = g.rng.choice(["MaxPool", "AveragePool", "AveragePool"])
        if operator == "AveragePool":
            given["count_include_pad"] = g.rng.randint(0, 1)
        g.node(operator, [x.name], (*x.shape[:2], *extents), **given)  # type: ignore[arg-type]
    else:
        g.node(g.rng.choice(["GlobalAveragePool", "GlobalMaxPool"]), [x.name], (*x.shape[:2], ONE, ONE))


def _branch(g: Graph) -> None:
    """An If whose branches read values from around; which of them is taken, a sum decides."""
    x = g.pick()
    if x is None:
        return
    y = g.pick(lambda v: v.shape == x.shape)
    assert y is not None
    number = len(g.nodes)
    total, zero, condition = f"b{number}", f"z{number}", f"q{number}"
    g.weights[zero] = np.array(0.0, np.float32)
    g.nodes.append(helper.make_node("ReduceSum", [x.name], [total], keepdims=0))
    g.nodes.append(helper.make_node("Less", [total, zero], [condition]))
    info = [[helper.make_tensor_value_info(f"{label}{number}", 1, None)] for label in ("then", "else")]
    one = helper.make_graph([helper.make_node("Mul", [x.name, y.name], [f"then{number}"])], "one", [], info[0])
    other = helper.make_graph([helper.make_node("Tanh", [y.name], [f"else{number}"])], "other", [], info[1])
    g.node("If", [condition], x.shape, then_branch=one, else_branch=other)


def _loop(g: Graph) -> None:
    x = g.pick(lambda v: v.rank >= 1)
    if x is None:
        return
    y = g.pick(lambda v: broadcast(v.shape, x.shape) == x.shape)
    assert y is not None
    n = len(g.nodes)
    trips = f"trips{n}"
    g.weights[trips] = np.array(g.rng.randint(0, 3), np.int64)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", [f"c{n}_in"], [f"c{n}_out"]),
            helper.make_node("Mul", [f"h{n}_in", y.name], [f"p{n}"]),
            helper.make_node("Tanh", [f"p{n}"], [f"h{n}_out"]),
        ],
        "body",
        [info(f"i{n}", TensorProto.INT64, []), info(f"c{n}_in", TensorProto.BOOL, []), info(f"h{n}_in", 1, None)],
        [info(f"c{n}_out", TensorProto.BOOL, []), info(f"h{n}_out", 1, None)],
    )
    g.node("Loop", [trips, "", x.name], x.shape, body=body)


STEPS: tuple[tuple[Callable[[Graph], None], int], ...] = (
    (_unary, 4),
    (_binary, 6),
    (_clip, 1),
    (_matmul, 3),
    (_reduce, 3),
    (_reshape, 3),
    (_transpose, 1),
    (_concat, 2),
    (_cut, 2),
    (_split, 1),
    (_pad, 1),
    (_gather, 1),
    (_expand, 2),
    (_softmax, 1),
    (_normalize, 2),
    (_spelled, 2),
    (_image, 3),
    (_branch, 1),
    (_loop, 1),
)
INPUTS = (
    ("N", 3),
    ("M", 3),
    ("U", 3),
    ("N", "T", 4),
    ("T", 4),
    (1, 4),
    (),
    ("N", 2, "H", "W"),
    ("U", 1, "H", 1),
    (3,),
    ("N", 1),
    ("N", "M"),
)


def drawn(rng: random.Random, opset: int = 21) -> Graph:
    """A graph of 3 to 12 steps with one output or two; the second is also read inside, or is an input."""
    g = Graph(rng, opset, drawn=np.random.default_rng(rng.randrange(2**31)))
    for dims in rng.sample(INPUTS, rng.randint(1, 3)):
        g.input(dims)
    steps = [step for step, often in STEPS for _ in range(often)]
    for _ in range(rng.randint(3, 12)):
        rng.choice(steps)(g)
    made = [value for value in g.values if not value.name.startswith("x")]
    if not made:
        made = [g.node("Tanh", [g.values[0].name], g.values[0].shape)]
    g.outputs = [made[-1]]
    if rng.random() < 0.5:
        other = rng.choice(g.values)
        if other.name != made[-1].name:
            g.outputs.append(other)
    return g


def proto(g: Graph) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    inputs = [info(value.name, 1, dims) for value, dims, _ in g.inputs]
    outputs = [info(v.name, 1, [e[0] if is_fixed(e) else f"{v.name}_{i}" for i, e in enumerate(v.shape)]) for v in g.outputs]
    held = [numpy_helper.from_array(array, name) for name, array in g.weights.items()]
    graph = helper.make_graph(g.nodes, "random", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=10)


def feeds(g: Graph, run: int, seed: int) -> dict[str, Array]:
    """Data of one run, without the inputs that have a default."""
    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(size=[e[run] for e in v.shape]) for v, _, default in g.inputs if not default}
