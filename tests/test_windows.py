"""Operators with windows beyond the samples of their rows: PyTorch as the oracle, second derivatives, node counts, types."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F

from tests.one_node import OneNode, build, one_node
from tests.reference import evaluator
from tests.test_lower import graph_of, run
from vgcompile.errors import GradientRefused
from vgcompile.graph.emit import OPSET, Emitter, dims
from vgcompile.ops import INTERNAL, OPS
from vgcompile.ops.op import Sample, sample
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import Profile, lower
from vgcompile.passes.optimize import optimize

Array = np.ndarray[Any, Any]


def agrees_with(f: Callable[..., torch.Tensor], one: OneNode, x: Sequence[Array]) -> None:
    """The value, and every adjoint for a random one of the value."""
    leaves = [torch.from_numpy(value).requires_grad_() for value in x]
    y = f(*leaves)
    g = np.random.default_rng(1).normal(size=tuple(y.shape))
    y.backward(torch.from_numpy(g))
    given = dict(enumerate(x))
    np.testing.assert_allclose(one.run_forward(given)[0], y.detach().numpy(), rtol=1e-10, atol=1e-10)
    found = one.run_gradient(given, {0: g})
    for position, leaf in enumerate(leaves):
        assert leaf.grad is not None
        np.testing.assert_allclose(found[position], leaf.grad.numpy(), rtol=1e-9, atol=1e-9)


def normal(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def same(sizes: Sequence[int], kernel: int, stride: int, dilation: int, upper: bool) -> list[int]:
    """PyTorch's padding, last axis first, for an output of ceil(size / stride)."""
    pads: list[int] = []
    for size in reversed(sizes):
        missing = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        pads += [missing // 2, missing - missing // 2] if upper else [missing - missing // 2, missing // 2]
    return pads


SPATIAL = ["D", "H", "W"]
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (3, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_convolution_padded_to_the_same_extent_of_a_symbol(rank: int, stride: int, dilation: int, mode: str) -> None:
    """One graph for every extent, also where no padding is needed, and where the stride leaves a remainder behind the window."""
    kernel, group = (3,) * rank, 2
    one = build(
        OPS["Conv"],
        sample(
            ("N", 4, *SPATIAL[:rank]),
            (2, 2, *kernel),
            (2,),
            group=group,
            auto_pad=mode,
            strides=[stride] * rank,
            dilations=[dilation] * rank,
        ),
    )
    for size in (4, 5, 6, 9) if rank < 3 else (4, 5):
        sizes = [size + axis for axis in range(rank)]
        pads = same(sizes, 3, stride, dilation, mode == "SAME_UPPER")
        agrees_with(
            lambda x, w, b: CONV[rank](F.pad(x, pads), w, b, stride, 0, dilation, group),  # noqa: B023
            one,
            normal((2, 4, *sizes), (2, 2, *kernel), (2,)),
        )


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_kernel_known_by_its_stated_shape_alone(operator: str) -> None:
    """A kernel that arrives at run time, with no extent of its own known."""
    one = build(OPS[operator], sample((2, 3, 5, "W"), ("M", "C", "K", "L"), kernel_shape=[2, 3], strides=[2, 1]))
    f = F.conv2d if operator == "Conv" else F.conv_transpose2d
    agrees_with(lambda x, w: f(x, w, None, (2, 1)), one, normal((2, 3, 5, 6), (3, 3, 2, 3)))


def _cut(y: torch.Tensor, size: int, upper: bool) -> torch.Tensor:
    """A named output of a transposed convolution: the excess is cut off at both ends, what is missing is zero."""
    excess = max(y.shape[-1] - size, 0)
    first = excess // 2 if upper else excess - excess // 2
    return F.pad(y[..., first : first + size], (0, max(size - y.shape[-1], 0)))


@pytest.mark.parametrize("size", [5, 8, 10, 13])
@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER"])
@pytest.mark.parametrize("length", ["T", 4])
def test_named_output_of_a_transposed_convolution(size: int, mode: str, length: int | str) -> None:
    """Smaller than the kernels reach, just that (2 * 3 + 3 elements and one of output_padding), and larger."""
    shape = {"strides": [2], "output_shape": [size], "auto_pad": mode, "output_padding": [1]}
    one = build(OPS["ConvTranspose"], sample(("N", 2, length), (2, 3, 3), **shape))
    agrees_with(
        lambda x, w: _cut(F.conv_transpose1d(x, w, None, 2, output_padding=1), size, mode == "SAME_UPPER"),
        one,
        normal((2, 2, 4), (2, 3, 3)),
    )


@pytest.mark.parametrize(("pads", "extra"), [([0, 1], 3), ([1, 2], 2), ([0, 0], 1)])
def test_transposed_convolution_padded_by_more_than_its_stride(pads: list[int], extra: int) -> None:
    """PyTorch takes an output_padding that is smaller than the dilation."""
    one = build(
        OPS["ConvTranspose"], sample(("N", 2, "T"), (2, 1, 2), dilations=[4], pads=pads, output_padding=[extra], strides=[1])
    )
    agrees_with(
        lambda x, w: F.conv_transpose1d(x, w, None, 1, 0, extra, 1, 4)[..., pads[0] :][..., : 5 + 3 - sum(pads) + extra],
        one,
        normal((2, 2, 4), (2, 1, 2)),
    )


WINDOWS = [(3, 2, 1, 1), (3, 3, 1, 1), (2, 3, 1, 1), (2, 2, 0, 1), (3, 1, 1, 2), (2, 4, 0, 1)]


@pytest.mark.parametrize("kind", ["max", "average", "counted"])
@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation"), WINDOWS)
@pytest.mark.parametrize("ceil", [False, True])
def test_pools_of_symbolic_tensors(kind: str, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> None:
    """Batch, channels and every extent are symbols; extents that do and do not leave remainders; the rank is 1 to 3."""
    if kind != "max" and dilation > 1:
        pytest.skip("PyTorch has no dilated average")
    for rank in (1, 2, 3):
        given = {"kernel_shape": [kernel] * rank, "strides": [stride] * rank, "pads": [pad] * 2 * rank, "ceil_mode": int(ceil)}
        given |= {"dilations": [dilation] * rank} | ({"count_include_pad": 1} if kind == "counted" else {})
        row = OPS["MaxPool" if kind == "max" else "AveragePool"]
        one = build(row, sample(("N", "C", *SPATIAL[:rank]), **given))
        for size in (5, 6, 7) if rank == 1 else (5,):
            (x,) = normal((1, 2, *(size + axis for axis in range(rank))))
            if kind == "max":
                pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
                agrees_with(lambda x: pool(x, kernel, stride, pad, dilation, ceil), one, [x])  # noqa: B023
            else:
                pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
                agrees_with(lambda x: pool(x, kernel, stride, pad, ceil, kind == "counted"), one, [x])  # noqa: B023


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_pools_padded_to_the_same_extent_of_a_symbol(operator: str, mode: str) -> None:
    one = build(OPS[operator], sample(("N", "C", "T"), kernel_shape=[3], strides=[2], auto_pad=mode))
    pad = {"MaxPool": -np.inf}.get(operator, 0.0)
    for size in (4, 5, 8):
        pads = same([size], 3, 2, 1, mode == "SAME_UPPER")

        def pool(x: torch.Tensor) -> torch.Tensor:
            windows = F.pad(x, pads, value=pad).unfold(2, 3, 2)  # noqa: B023
            if operator == "MaxPool":
                return windows.amax(-1)
            if operator == "LpPool":
                return (windows**2).sum(-1).sqrt()
            return windows.sum(-1) / F.pad(torch.ones_like(x), pads).unfold(2, 3, 2).sum(-1)  # noqa: B023

        agrees_with(pool, one, normal((2, 3, size)))


@pytest.mark.parametrize("length", ["T", 8])
def test_padding_that_the_runtimes_read_differently_is_refused(length: int | str) -> None:
    """Windows of 1 with stride 4 over 8 elements: which are they?"""
    for name, *kernel in (("AveragePool",), ("MaxPool",), ("Conv", (1, 1, 1))):
        with pytest.raises(GradientRefused, match="several ways"):
            build(OPS[name], sample((1, 1, length), *kernel, kernel_shape=[1], strides=[4], auto_pad="SAME_UPPER"))
    one = build(OPS["AveragePool"], sample((1, 1, 9), kernel_shape=[1], strides=[4], auto_pad="SAME_UPPER"))
    agrees_with(lambda x: x[..., ::4], one, normal((1, 1, 9)))


def test_the_first_of_equals_wins_and_zeros_have_no_slope() -> None:
    windows = sample(("N", 1, "T"), kernel_shape=[2], strides=[2])
    g = {0: np.ones((1, 1, 2))}
    largest = build(OPS["MaxPool"], windows).run_gradient({0: np.array([[[2.0, 2.0, 1.0, 3.0]]])}, g)
    np.testing.assert_array_equal(largest[0], [[[1.0, 0.0, 0.0, 1.0]]])
    norm = build(OPS["LpPool"], windows).run_gradient({0: np.array([[[0.0, 0.0, 3.0, 4.0]]])}, g)
    np.testing.assert_allclose(norm[0], [[[0.0, 0.0, 0.6, 0.8]]])
    whole = build(OPS["GlobalLpPool"], sample((1, 1, "T"), p=3)).run_gradient({0: np.zeros((1, 1, 3))}, {0: np.ones((1, 1, 1))})
    np.testing.assert_array_equal(whole[0], np.zeros((1, 1, 3)))


# ------------------------------------------------------------------------------------- operands that arrive at run time


def gradient_of(name: str, given: dict[str, tuple[Any, ir.DataType]], shape: Sequence[Any], **attributes: Any) -> ir.Model:
    """A node whose integer operands are graph inputs too; the adjoint of its first input for ``g``, an input of ``shape``."""
    values = [ir.Value(name=key, shape=ir.Shape(dims_), type=ir.TensorType(t)) for key, (dims_, t) in given.items()]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": OPSET, INTERNAL: 1}, name="t")
    model, op = ir.Model(graph, ir_version=10), Emitter(graph)
    y = op.emit(name, *values, **attributes)
    y.shape = ir.Shape(shape)
    seed = ir.Value(name="g", shape=ir.Shape(shape), type=ir.TensorType(values[0].dtype or ir.DataType.FLOAT))
    graph.inputs.append(seed)
    graph.outputs.append(op.Identity(differentiate(model, {y: seed}, [values[0]], op).totals[values[0]]))
    graph.outputs.append(y)
    return lower(model)


FLOAT, INT = ir.DataType.FLOAT, ir.DataType.INT64


@pytest.mark.parametrize("index", range(len(OPS["Col2Im"].samples)))
def test_columns_of_a_block_that_arrives_at_run_time(index: int) -> None:
    """The lookup gives what the convolution gives, in ONNX Runtime."""
    known = one_node("Col2Im", index)
    image, block = (np.asarray(known.sample.shapes[i]) for i in (1, 2))
    x, shape = known.shape(0, 2), (known.shape(0, 2)[0], known.shape(0, 2)[1] // int(block.prod()), *image)
    (g,) = (v.astype(np.float32) for v in normal(shape))
    expected = known.run_gradient({0: np.zeros(x)}, {0: g})[0]
    symbols = ("N", shape[1], *SPATIAL[: len(image)])
    model = gradient_of(
        "Col2Im",
        {"x": (known.sample.shapes[0], FLOAT), "i": (image.shape, INT), "b": (block.shape, INT)},
        symbols,
        **known.sample.attributes,
    )
    found = run(model, {"x": np.zeros(x, np.float32), "i": image, "b": block, "g": g})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_unpooling_to_a_named_shape_follows_the_runtime(runtime: str) -> None:
    """They disagree about what indices count through; the gradient finds each element where the runtime put it."""
    feeds = {
        "x": np.array([[[[5.0, 6.0], [7.0, 8.0]]]], np.float32),
        "i": np.array([[[[5, 7], [13, 15]]]]),
        "s": np.array([1, 1, 5, 5]),
        "g": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5),
    }
    model = gradient_of(
        "MaxUnpool",
        {"x": (("N", 1, "H", "W"), FLOAT), "i": (("N", 1, "H", "W"), INT), "s": ((4,), INT)},
        ("N", 1, "P", "Q"),
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    if runtime == "onnxruntime":
        found, y = run(model, feeds)
    else:
        found, y = evaluator(ir.to_proto(model).SerializeToString()).run(None, feeds)
    np.testing.assert_array_equal(
        found, [[[[float(np.flatnonzero(y == value)[0]) for value in row] for row in ((5, 6), (7, 8))]]]
    )


def test_boxes_of_several_images() -> None:
    """Each box reads the image that it names, and no other gets its adjoint."""
    boxes = np.array([[0.5, 0.5, 3.0, 3.0], [1.0, 0.0, 4.0, 2.5], [0.0, 1.0, 2.0, 4.0]])
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 2, 5, 5))
    for mode in ("avg", "max"):
        one = build(OPS["RoiAlign"], sample(("N", 2, "H", "W"), boxes, np.array([2, 0, 2]), mode=mode, output_height=2))
        g, v = rng.normal(size=(3, 2, 2, 1)), rng.normal(size=x.shape)
        found = one.run_gradient({0: x}, {0: g})[0]
        assert not found[1].any()
        ends = [float(np.vdot(g, one.run_forward({0: x + step * v})[0])) for step in (1e-6, -1e-6)]
        assert np.vdot(v, found) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


# ----------------------------------------------------------------------------------------------------- second derivatives

TWICE = [
    ("Conv", sample(("N", 4, 5, "W"), (2, 2, 3, 2), group=2, strides=[2, 2], pads=[1, 0, 1, 1])),
    ("Conv", sample(("N", 2, "T"), (2, 2, 3), auto_pad="SAME_UPPER", strides=[2])),
    ("Conv", sample((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), strides=[1, 2, 1])),
    ("ConvTranspose", sample(("N", 2, "T"), (2, 2, 3), strides=[2], output_padding=[1])),
    ("ConvTranspose", sample(("N", 2, "T"), (2, 1, 3), strides=[2], output_shape=[6])),
    ("MaxPool", sample(("N", 2, "T"), kernel_shape=[3], strides=[2], ceil_mode=1)),
    ("AveragePool", sample(("N", "C", "T"), kernel_shape=[3], strides=[2], pads=[1, 1], ceil_mode=1)),
    ("AveragePool", sample(("N", 2, 5), kernel_shape=[2], strides=[2], pads=[1, 0], ceil_mode=1, count_include_pad=1)),
    ("AveragePool", sample(("N", 2, "T"), kernel_shape=[3], strides=[2], auto_pad="SAME_LOWER")),
    ("LpPool", sample(("N", 2, "T"), kernel_shape=[3], strides=[2], p=3, domain=(0.1, 2.0))),
    ("GlobalLpPool", sample(("N", 2, "T"))),
    ("DeformConv", sample((1, 2, 4, 4), (2, 1, 2, 2), (1, 8, 3, 3), None, (1, 4, 3, 3), group=2, domain=(-0.9, 0.9))),
    ("RoiAlign", sample((1, 1, 4, 4), np.array([[0.2, 0.1, 3.0, 2.5]]), np.array([0]), output_height=2, mode="max")),
    ("Col2Im", sample(("N", 4, 4), np.array([3, 3]), np.array([2, 2]))),
]


@pytest.mark.parametrize(("name", "chosen"), TWICE, ids=lambda item: item if isinstance(item, str) else "")
def test_gradients_of_gradients(name: str, chosen: Sample) -> None:
    """<v, d <h, dx> / d(x, g)> = d <h, dx(x + t v, g + t v)> / dt, in float64."""
    double = ir.DataType.DOUBLE
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, INTERNAL: 1}, name="t")
    model, op = ir.Model(graph, ir_version=10), Emitter(graph)
    operands: list[Any] = []
    for i, given in enumerate(chosen.shapes):
        real = isinstance(given, tuple)
        value = ir.Value(name=f"x{i}", shape=ir.Shape(given), type=ir.TensorType(double)) if real else given
        operands.append(value)
        graph.inputs.extend([value] if real else [])
    op.dtype = double
    y = op.emit(name, *operands, **chosen.attributes)
    y = y[0] if isinstance(y, tuple) else y
    g = ir.Value(name="g", shape=ir.Shape(dims(y)), type=ir.TensorType(double))
    graph.inputs.append(g)
    wanted = list(graph.inputs)
    with op.scope(dtype=double):
        first = differentiate(model, {y: g}, wanted[:-1], op).totals
        first_names = [str(x.name) for x in wanted[:-1] if x in first]
        adjoints = [first[x] for x in wanted[:-1] if x in first]
        seeds = {d: ir.Value(name=f"h{i}", shape=ir.Shape(dims(d)), type=ir.TensorType(double)) for i, d in enumerate(adjoints)}
        graph.inputs.extend(seeds.values())
        second = differentiate(model, seeds, wanted, op).totals
        outputs = [op.Identity(value) for value in (*adjoints, *(second[x] for x in wanted if x in second))]
        graph.outputs.extend(outputs)
    proto = ir.to_proto(lower(model)).SerializeToString()
    rng, size = np.random.default_rng(3), {"N": 2, "C": 3, "T": 6, "W": 4}
    feeds = {str(v.name): rng.uniform(*chosen.domain, _shape(v, size)) for v in wanted[:-1]}
    one = build(OPS[name], chosen)
    y_of_x = one.run_forward({i: feeds[f"x{i}"] for i in one.drawn})[0]
    feeds |= {"g": rng.normal(size=y_of_x.shape)} | {f"h{i}": rng.normal(size=feeds[k].shape) for i, k in enumerate(first_names)}
    moving = [str(x.name) for x in wanted if x in second]
    v = {key: rng.normal(size=feeds[key].shape) for key in moving}

    def along(t: float) -> float:
        moved = {**feeds, **{key: feeds[key] + t * step for key, step in v.items()}}
        values = evaluator(proto).run([str(d.name) for d in outputs[: len(adjoints)]], moved)
        return sum(float(np.vdot(feeds[f"h{i}"], d)) for i, d in enumerate(values))

    expected = (along(1e-5) - along(-1e-5)) / 2e-5
    found = evaluator(proto).run([str(d.name) for d in outputs[len(adjoints) :]], feeds)
    total = sum(float(np.vdot(step, d)) for step, d in zip(v.values(), found, strict=True))
    assert total == pytest.approx(expected, rel=1e-6, abs=1e-6)


def _shape(value: ir.Value, size: dict[str, int]) -> list[int]:
    return [size[dim] if isinstance(dim, str) else dim for dim in dims(value)]


# -------------------------------------------------------------------------------------------------- profiles and types


def backward_nodes(profile: Profile, operator: str, *shapes: tuple[Any, ...], **attributes: Any) -> list[str]:
    """Those behind the operator itself."""
    model, inputs = graph_of(dict(zip("xwb", shapes, strict=False)))
    op = Emitter(model.graph)
    made = op.emit(operator, *inputs.values(), **attributes)
    y = made[0] if isinstance(made, tuple) else made
    g = ir.Value(name="g", shape=ir.Shape(dims(y)), type=ir.TensorType(FLOAT))
    model.graph.inputs.append(g)
    totals = differentiate(model, {y: g}, inputs.values(), op).totals
    model.graph.outputs.extend(totals[value] for value in inputs.values())
    return [
        node.op_type for node in optimize(lower(model, profile)).graph if node.op_type != operator or node is not y.producer()
    ]


PADDED = {"pads": [1, 1, 1, 1]}
IMAGE = ("N", 8, 32, 32)
COUNTS = [  # x, w, attributes, the number of backward nodes: portable, fast
    (IMAGE, (8, 8, 3, 3), PADDED, 6, 33),
    (IMAGE, (8, 8, 3, 3), PADDED | {"strides": [2, 2]}, 6, 21),
    (IMAGE, (8, 8, 1, 1), {}, 6, 9),
    (IMAGE, (8, 8, 1, 1), {"strides": [2, 2]}, 7, 10),
    (IMAGE, (8, 1, 3, 3), PADDED | {"group": 8}, 7, 8),
    (("N", 8, "H", "W"), (8, 8, 3, 3), PADDED, 6, 8),
    (("N", 8, "H", "W"), (8, 8, 3, 3), PADDED | {"strides": [2, 2]}, 9, 9),
]


@pytest.mark.parametrize(("x", "w", "given", "portable", "fast"), COUNTS, ids=str)
def test_number_of_backward_nodes(x: Any, w: Any, given: Any, portable: int, fast: int) -> None:
    assert len(backward_nodes("portable", "Conv", x, w, w[:1], **given)) == portable
    assert len(backward_nodes("fast", "Conv", x, w, w[:1], **given)) == fast


def test_number_of_backward_nodes_of_a_pool() -> None:
    tiles = {"kernel_shape": [2, 2], "strides": [2, 2]}
    assert len(backward_nodes("portable", "MaxPool", IMAGE, **tiles)) == 6
    assert len(backward_nodes("fast", "MaxPool", IMAGE, **tiles)) == 7
    assert backward_nodes("portable", "AveragePool", IMAGE, **tiles) == ["ConvTranspose"]
    assert len(backward_nodes("fast", "AveragePool", IMAGE, **tiles)) == 4


def test_portable_nodes_are_few_and_plain() -> None:
    found = backward_nodes("portable", "Conv", IMAGE, (8, 8, 3, 3), (8,), **PADDED)
    assert sorted(found) == ["Conv", "ConvTranspose", "ReduceSum", "Transpose", "Transpose", "Transpose"]


@pytest.mark.parametrize(
    ("name", "profile"),
    list(
        itertools.product(
            ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "MaxUnpool", "DeformConv"), ("portable", "fast")
        )
    ),
)
def test_half_precision_stays_half(name: str, profile: Profile) -> None:
    """Every real value of the gradient has the type of the operands, for every sample and both profiles; but what is added up at
    places is added up in float32."""
    half = ir.DataType.FLOAT16
    for index in range(len(OPS[name].samples)):
        one = build(OPS[name], OPS[name].samples[index], half, profile)
        model = ir.from_proto(one.gradient)
        kept = {value.dtype for value in model.graph.outputs if value.dtype is not None and value.dtype.is_floating_point()}
        assert kept == {half}
        scattered = {node for node in model.graph if node.op_type in ("ScatterND", "ScatterElements")}
        feeding = {value.producer() for node in scattered for value in node.inputs if value is not None}
        apart = scattered | feeding
        made = [v for n in model.graph for v in n.outputs if n.op_type not in ("Cast", "MaxUnpool") and n not in apart]
        assert {v.dtype for v in made if v.dtype is not None and v.dtype.is_floating_point()} <= {half}


@pytest.mark.parametrize("opset", [22, 28])
def test_newer_opsets(opset: int) -> None:
    """What the rules emit exists in every opset that files may have."""
    for name, chosen in TWICE:
        graph = ir.Graph([], [], nodes=[], opset_imports={"": opset, INTERNAL: 1}, name="t")
        model, op = ir.Model(graph, ir_version=10), Emitter(graph, opset)
        shapes = chosen.shapes
        operands = [
            ir.Value(name=f"x{i}", shape=ir.Shape(s), type=ir.TensorType(FLOAT))
            if isinstance(s, tuple)
            else s.astype(np.float32)
            if s is not None and s.dtype.kind == "f"
            else s
            for i, s in enumerate(shapes)
        ]
        graph.inputs.extend(value for value in operands if isinstance(value, ir.Value))
        y = op.emit(name, *operands, **chosen.attributes)
        g = ir.Value(name="g", shape=ir.Shape(dims(y)), type=ir.TensorType(FLOAT))
        graph.inputs.append(g)
        assert differentiate(model, {y: g}, [graph.inputs[0]], op).totals
        lower(model)
