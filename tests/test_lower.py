"""Opening composites: every body computes the same, in standard operators, under the composite's names; PyTorch is the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from vgcompile.errors import GradientRefused
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import OPSET, Emitter, dims
from vgcompile.graph.provenance import fact
from vgcompile.ops import INTERNAL, OPS
from vgcompile.ops.op import Case, Dim
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import choose, lower
from vgcompile.passes.optimize import optimize

Array = np.ndarray[Any, Any]
FLOAT = ir.DataType.FLOAT


def graph_of(shapes: Mapping[str, tuple[Dim, ...]]) -> tuple[ir.Model, dict[str, ir.Value]]:
    inputs = {name: ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT)) for name, shape in shapes.items()}
    graph = ir.Graph(list(inputs.values()), [], nodes=[], opset_imports={"": OPSET, INTERNAL: 1}, name="test")
    return ir.Model(graph, ir_version=10), inputs


def run(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return session.run(None, {name: x for name, x in feeds.items() if name in names})  # type: ignore[no-any-return]


def gradients(
    emit: Callable[..., Any], shapes: Mapping[str, tuple[Dim, ...]], feeds: Mapping[str, Array], g: Array
) -> tuple[list[Array], ir.Model]:
    """The adjoints of all inputs of a node, given the adjoint of its first output."""
    model, inputs = graph_of(shapes)
    op = Emitter(model.graph)
    made = emit(op, *inputs.values())
    y = made[0] if isinstance(made, tuple) else made
    seed = ir.Value(name="g", shape=ir.Shape(dims(y)), type=ir.TensorType(FLOAT))
    model.graph.inputs.append(seed)
    totals = differentiate(model, {y: seed}, inputs.values(), op).totals
    model.graph.outputs.extend(op.Identity(totals[x]) for x in inputs.values())
    lower(model)
    return run(model, {**feeds, "g": g}), model


def torch_gradients(
    f: Callable[..., torch.Tensor], feeds: Mapping[str, Array], g: Array | None = None
) -> tuple[list[Array], Array]:
    leaves = [torch.from_numpy(x.astype(np.float64)).requires_grad_() for x in feeds.values()]
    y = f(*leaves)
    seed = np.random.default_rng(9).normal(size=y.shape).astype(np.float32) if g is None else g
    y.backward(torch.from_numpy(seed.astype(np.float64)))
    return [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None], seed


def agree(found: list[Array], expected: list[Array]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * max(1.0, float(np.abs(b).max(initial=0.0))))


def bodies(model: ir.Model) -> set[str]:
    return {body for node in model.graph if (body := fact(node, "body")) is not None}


# ------------------------------------------------------------------------------------------------------------ convolutions

CONVOLUTIONS = [
    case
    for case in itertools.product((1, 2, 4), (1, 2, 3), (1, 2, 3), (1, 2), (0, 1, 2))
    if (case[1] - 1) * case[3] + 1 <= 7 + 2 * case[4]
]


@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "static"])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolution_gradients(group: int, symbolic: bool) -> None:
    """Kernel 1 to 3, stride 1 to 3, dilation 1 and 2, padding 0 to 2, uneven extents, with and without symbolic N, H and W."""
    rng = np.random.default_rng(0)
    for _, k, stride, dilation, pad in (case for case in CONVOLUTIONS if case[0] == group):
        height = 7 + k % 3
        feeds = {"x": rng.normal(size=(2, 4, height, 8)), "w": rng.normal(size=(8, 4 // group, k, k)), "b": rng.normal(size=8)}
        feeds = {name: x.astype(np.float32) for name, x in feeds.items()}
        x_shape = ("N", 4, "H", "W") if symbolic else feeds["x"].shape
        given = {"group": group, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
        expected, g = torch_gradients(lambda x, w, b: torch.conv2d(x, w, b, stride, pad, dilation, group), feeds)  # noqa: B023
        shapes = {"x": x_shape, "w": feeds["w"].shape, "b": feeds["b"].shape}
        found, model = gradients(lambda op, x, w, b: op.Conv(x, w, b, **given), shapes, feeds, g)  # noqa: B023
        agree(found, expected)
        assert not any(node.domain for node in model.graph)


CHOICES = [  # x, w, attributes, the bodies expected
    (("N", 8, 6, 6), (4, 8, 3, 3), {"pads": [1, 1, 1, 1]}, ("flipped", "rows")),
    (("N", 8, "H", 6), (4, 8, 3, 3), {"pads": [1, 1, 1, 1]}, ("flipped", "rows")),
    (("N", 8, "H", "W"), (4, 8, 3, 3), {"pads": [1, 1, 1, 1]}, ("flipped", "swapped")),
    (("N", 8, "H", "W"), (4, 8, 1, 1), {}, ("flipped", "pointwise")),
    (("N", 8, 6, 6), (4, 8, 3, 3), {"strides": [2, 2]}, ("transposed", "columns")),
    (("N", 8, 6, 6), (8, 1, 3, 3), {"group": 8}, ("flipped", "swapped")),
    (("N", 8, 6, 6), (4, 8, 1, 1), {"pads": [1, 0, 1, 0]}, ("transposed", "rows")),
]


@pytest.mark.parametrize(("x", "w", "given", "expected"), CHOICES, ids=str)
def test_cheapest_body_is_chosen_and_recorded(x: Any, w: Any, given: Any, expected: tuple[str, str]) -> None:
    feeds = {
        "x": np.ones([2 if d == "N" else 6 if isinstance(d, str) else d for d in x], np.float32),
        "w": np.ones(w, np.float32),
    }
    model, inputs = graph_of({"x": x, "w": w})
    y = Emitter(model.graph).Conv(*inputs.values(), **given)
    model.graph.outputs.append(y)
    (g,) = run(model, feeds)
    found, lowered = gradients(lambda op, a, b: op.Conv(a, b, **given), {"x": x, "w": w}, feeds, np.ones_like(g))
    assert bodies(lowered) == set(expected)
    strides = given.get("strides", [1, 1])
    pads = given.get("pads", [0, 0, 0, 0])[:2]
    agree(
        found,
        torch_gradients(lambda a, b: torch.conv2d(a, b, None, strides, pads, 1, given.get("group", 1)), feeds, np.ones_like(g))[
            0
        ],
    )


def _composites() -> list[tuple[str, int]]:
    return [(row.name, index) for row in OPS.values() if row.domain == INTERNAL for index in range(len(row.samples))]


@pytest.mark.parametrize(("name", "index"), _composites())
def test_all_bodies_compute_the_same(name: str, index: int) -> None:
    """Every body that applies to a sample, run on the same inputs."""
    row, sample = OPS[name], OPS[name].samples[index]
    rng = np.random.default_rng(1)
    results: dict[str, list[Array]] = {}
    for body in row.bodies:
        drawn = {f"x{i}": given for i, given in enumerate(sample.shapes) if isinstance(given, tuple)}
        model, inputs = graph_of(drawn)
        op = Emitter(model.graph)
        operands = [inputs.get(f"x{i}", given) for i, given in enumerate(sample.shapes)]
        made = op.emit(name, *operands, outputs=sample.outputs, **sample.attributes)
        outputs = made if isinstance(made, tuple) else (made,)
        model.graph.outputs.extend(outputs)
        case = case_of(outputs[0].producer())
        if not body.applies(case):
            continue
        only = {**OPS, name: type(row)(**{**vars(row), "bodies": (body,)})}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vgcompile.passes.lower.lookup", lambda operator, domain="", table=only: table.get(operator))
            lower(model)
        rng = np.random.default_rng(1)
        feeds = {
            key: rng.normal(size=[2 if isinstance(d, str) else d for d in shape]).astype(np.float32)
            for key, shape in drawn.items()
        }
        results[body.name] = run(model, feeds)
    first = next(iter(results.values()))
    for other in results.values():
        agree(other, [x.astype(np.float64) for x in first])


TRANSPOSED: list[dict[str, Any]] = [
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 1, "padding": 0},
    {"stride": 3, "padding": 1, "groups": 2},
    {"stride": 2, "padding": 0, "dilation": 2},
]


@pytest.mark.parametrize("given", TRANSPOSED, ids=str)
@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "static"])
def test_transposed_convolution_gradients(given: dict[str, Any], symbolic: bool) -> None:
    rng = np.random.default_rng(2)
    group = given.get("groups", 1)
    feeds = {"x": rng.normal(size=(2, 4, 5, 4)), "w": rng.normal(size=(4, 6 // group, 3, 3)), "b": rng.normal(size=6)}
    feeds = {name: x.astype(np.float32) for name, x in feeds.items()}
    expected, g = torch_gradients(lambda x, w, b: torch.nn.functional.conv_transpose2d(x, w, b, **given), feeds)
    attributes = {
        "strides": [given["stride"]] * 2,
        "pads": [given["padding"]] * 4,
        "group": group,
        "dilations": [given.get("dilation", 1)] * 2,
        "output_padding": [given.get("output_padding", 0)] * 2,
    }
    shapes = {"x": ("N", 4, "H", "W") if symbolic else (2, 4, 5, 4), "w": feeds["w"].shape, "b": (6,)}
    agree(gradients(lambda op, *x: op.ConvTranspose(*x, **attributes), shapes, feeds, g)[0], expected)


# ------------------------------------------------------------------------------------------------------------------- pools

POOLS: list[dict[str, Any]] = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 3, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2},
]


@pytest.mark.parametrize("given", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["max", "average", "average with padding"])
@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "static"])
def test_pool_gradients(given: dict[str, Any], kind: str, symbolic: bool) -> None:
    """Overlap, padding, ceil mode, both ways of counting; the extents 6 and 7 leave remainders."""
    feeds = {"x": np.random.default_rng(3).normal(size=(2, 3, 6, 7)).astype(np.float32)}
    k, stride, pad = given["kernel_size"], given["stride"], given.get("padding", 0)
    attributes = {
        "kernel_shape": [k, k],
        "strides": [stride] * 2,
        "pads": [pad] * 4,
        "ceil_mode": int(given.get("ceil_mode", False)),
    }
    if kind == "max":
        expected, g = torch_gradients(lambda x: torch.nn.functional.max_pool2d(x, **given), feeds)
        emit: Callable[..., Any] = lambda op, x: op.MaxPool(x, **attributes)  # noqa: E731
    else:
        counted = kind == "average with padding"
        expected, g = torch_gradients(lambda x: torch.nn.functional.avg_pool2d(x, count_include_pad=counted, **given), feeds)
        emit = lambda op, x: op.AveragePool(x, count_include_pad=int(counted), **attributes)  # noqa: E731
    agree(gradients(emit, {"x": ("N", 3, "H", "W") if symbolic else (2, 3, 6, 7)}, feeds, g)[0], expected)


def test_a_window_beyond_the_end_is_refused() -> None:
    """Its meaning depends on the version of ONNX: extent 6, two taps, stride 3 and ceil mode would put one at 6."""
    feeds = {"x": np.zeros((1, 1, 6), np.float32)}
    emit = lambda op, x: op.MaxPool(x, kernel_shape=[2], strides=[3], ceil_mode=1)  # noqa: E731
    with pytest.raises(GradientRefused, match="beyond the end"):
        gradients(emit, {"x": (1, 1, 6)}, feeds, np.zeros((1, 1, 3), np.float32))


@pytest.mark.parametrize("operator", ["GlobalMaxPool", "GlobalAveragePool"])
@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 2)])
def test_global_pool_gradients(operator: str, spatial: tuple[int, ...]) -> None:
    feeds = {"x": np.random.default_rng(4).normal(size=(2, 3, *spatial)).astype(np.float32)}
    axes = tuple(range(2, 2 + len(spatial)))
    pool = torch.amax if operator == "GlobalMaxPool" else torch.mean
    expected, g = torch_gradients(lambda x: pool(x, dim=axes, keepdim=True), feeds)
    agree(gradients(lambda op, x: op.emit(operator, x), {"x": ("N", 3, *spatial)}, feeds, g)[0], expected)


# ---------------------------------------------------------------------------------------------------------- normalization


def batch_norm(model_shape: tuple[Dim, ...]) -> Callable[..., Any]:
    def emit(op: Emitter, x: ir.Value, scale: ir.Value, bias: ir.Value) -> Any:
        mean, var = op.constant(np.zeros(3, np.float32)), op.constant(np.ones(3, np.float32))
        return op.BatchNormalization(x, scale, bias, mean, var, outputs=3, training_mode=1)

    return emit


@pytest.mark.parametrize("shape", [("N", 3), ("N", 3, "H", "W"), (4, 3, 5)], ids=str)
def test_batch_normalization_in_training(shape: tuple[Dim, ...]) -> None:
    rng = np.random.default_rng(5)
    feeds = {
        "x": rng.normal(1.0, 2.0, size=[4 if isinstance(d, str) else d for d in shape]),
        "s": rng.normal(size=3),
        "b": rng.normal(size=3),
    }
    feeds = {name: x.astype(np.float32) for name, x in feeds.items()}
    expected, g = torch_gradients(lambda x, s, b: torch.nn.functional.batch_norm(x, None, None, s, b, training=True), feeds)
    found, model = gradients(batch_norm(shape), {"x": shape, "s": (3,), "b": (3,)}, feeds, g)
    agree(found, expected)
    assert not any(node.op_type.startswith("BatchNormalization") for node in model.graph)


def test_forward_and_backward_share_the_batch_statistics() -> None:
    """The variance of x, forward and for the gradient, is one node once common subexpressions are merged."""
    model, inputs = graph_of({"x": ("N", 3, 4, 4), "s": (3,), "b": (3,)})
    op = Emitter(model.graph)
    y = batch_norm(("N", 3, 4, 4))(op, *inputs.values())[0]
    seed = op.Exp(y)
    dx = differentiate(model, {y: seed}, [inputs["x"]], op).totals[inputs["x"]]
    model.graph.outputs.extend([y, op.Identity(dx)])
    optimize(lower(model))
    operators = [node.op_type for node in model.graph]
    assert operators.count("Sqrt") == 1
    assert operators.count("ReduceMean") == 4  # mean, variance, and two of the gradient


def test_running_statistics_follow_the_standard() -> None:
    """old * momentum + batch * (1 - momentum), with the variance of the population."""
    x = np.random.default_rng(6).normal(2.0, 3.0, size=(8, 3)).astype(np.float32)
    model, inputs = graph_of({"x": ("N", 3), "s": (3,), "b": (3,)})
    model.graph.outputs.extend(batch_norm(("N", 3))(Emitter(model.graph), *inputs.values()))
    lower(model)
    _, mean, var = run(model, {"x": x, "s": np.ones(3, np.float32), "b": np.zeros(3, np.float32)})
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(axis=0), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, -100, 2])
@pytest.mark.parametrize("positions", [(), (3, 2)])
def test_cross_entropy_gradients(reduction: str, weighted: bool, ignore: int | None, positions: tuple[int, ...]) -> None:
    """Weights, an ignored label inside and outside of the classes, every reduction, scores with and without positions."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, size=(5, *positions))
    if ignore is not None:
        labels.ravel()[::3] = ignore
    weights = rng.uniform(0.5, 2.0, size=4).astype(np.float32) if weighted else None
    feeds = {"x": rng.normal(size=(5, 4, *positions)).astype(np.float32)}
    chosen = {"reduction": reduction, **({"ignore_index": ignore} if ignore is not None else {})}

    def loss(x: torch.Tensor) -> torch.Tensor:
        w = None if weights is None else torch.from_numpy(weights).double()
        return torch.nn.functional.cross_entropy(x, torch.from_numpy(labels), w, **chosen)  # type: ignore[arg-type]

    expected, g = torch_gradients(loss, feeds, None if reduction == "none" else np.asarray(1.5, np.float32))
    emit = lambda op, x: op.SoftmaxCrossEntropyLoss(x, labels, weights, **chosen)  # noqa: E731
    agree(gradients(emit, {"x": feeds["x"].shape}, feeds, g)[0], expected)


# --------------------------------------------------------------------------------------------------------------- the pass


def test_names_shapes_and_origin_are_kept() -> None:
    model, inputs = graph_of({"g": ("N", 4, 6, 6), "x": ("N", 8, 6, 6), "w": (4, 8, 3, 3)})
    op = Emitter(model.graph)
    facts = {"layer": "stage/conv", "kind": "conv2d", "source": "net.yaml:7:3", "role": "backward", "forward": "/stage/conv/Conv"}
    given = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1]}
    with op.scope("grad", **facts):
        dw = op.ConvWeightGradient(*inputs.values(), **given)
    name, shape = dw.name, dims(dw)
    model.graph.outputs.append(dw)
    lower(model)
    (output,) = model.graph.outputs
    assert (output.name, dims(output)) == (name, shape)
    assert INTERNAL not in model.opset_imports
    for node in model.graph:
        assert {key: fact(node, key) for key in facts} == facts
        assert fact(node, "body") == "rows"


def test_nothing_else_is_touched() -> None:
    model, inputs = graph_of({"x": ("N", 3)})
    model.graph.outputs.append(Emitter(model.graph).Tanh(inputs["x"]))
    before = [node.name for node in model.graph]
    lower(model)
    assert [node.name for node in model.graph] == before


def test_a_composite_without_a_body_is_our_mistake() -> None:
    row = OPS["ConvWeightGradient"]
    bare = type(row)(**{**vars(row), "bodies": (row.bodies[0],)})
    shapes: tuple[tuple[Dim, ...], ...] = ((1, 4, 6, 6), (1, 8, 6, 6), (4, 8, 3, 3))
    case = Case({"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [1] * 4}, shapes, ((4, 8, 3, 3),))
    with pytest.raises(AssertionError, match="no body applies"):
        choose(bare, case)
