"""Looking up, choosing, scattering, reducing and quantizing against PyTorch, with a symbolic batch and operands at run time; what
is refused, and what stands beside the way of a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, defs, helper, parser, version_converter

import vgcompile
from tests.one_node import FLOAT, build
from vgcompile.errors import GradientRefused
from vgcompile.ops import OPS
from vgcompile.ops.op import Sample, sample
from vgcompile.passes.optimize import optimize

Array = np.ndarray[Any, Any]
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64, np.dtype(np.bool_): TensorProto.BOOL}


SECOND = {"TopK": ("places", TensorProto.INT64), "Dropout": ("mask", TensorProto.BOOL)}  # outputs beside y


def one(operator: str, inputs: Mapping[str, Array], rank: int, **attributes: Any) -> onnx.ModelProto:
    """A model of one node whose inputs all come at run time; the first axis of each is a symbol, and so are those of y."""
    infos = [
        helper.make_tensor_value_info(name, TYPES[value.dtype], [f"{name}.n", *value.shape[1:]] if value.ndim else [])
        for name, value in inputs.items()
    ]
    outputs = [("y", TensorProto.FLOAT), *([SECOND[operator]] if operator in SECOND else [])]
    made = [helper.make_tensor_value_info(name, kind, [f"{name}.{axis}" for axis in range(rank)]) for name, kind in outputs]
    node = helper.make_node(operator, list(inputs), [value.name for value in made], **attributes)
    graph = helper.make_graph([node], operator, infos, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def stock(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def adjoints(model: onnx.ModelProto, inputs: Mapping[str, Array], g: Array) -> dict[str, Array]:
    """Of the real inputs, for the adjoint ``g`` of ``y``, by ONNX Runtime."""
    wanted = [name for name, value in inputs.items() if value.dtype == np.float32]
    made = vgcompile.grad(model, wrt=wanted, seed_input=True, loss="y")
    found = stock(made).run([f"grad.{name}" for name in wanted], {**inputs, "adj.y": g})
    return dict(zip(wanted, found, strict=True))


def by_torch(f: Callable[..., torch.Tensor], inputs: Mapping[str, Array], g: Array) -> dict[str, Array]:
    values = {name: torch.tensor(value, requires_grad=value.dtype == np.float32) for name, value in inputs.items()}
    f(**values).backward(torch.tensor(g))
    return {name: value.grad.numpy() for name, value in values.items() if value.grad is not None}


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)


X, U = normal(4, 5), normal(3, 5)
MEET = np.array([[0, 1, 2, 3, 0], [0, 1, 0, 3, 3], [2, 1, 2, 0, 0]])  # updates that meet in one place
TIED = np.round(X)


def _scattered(reduction: str) -> Callable[..., torch.Tensor]:
    return lambda x, i, u: x.scatter_reduce(0, i, u, reduction, include_self=True)


AGAINST_TORCH: list[tuple[str, str, dict[str, Array], dict[str, Any], Callable[..., torch.Tensor]]] = [
    ("embedding", "Gather", {"x": X, "i": np.array([[0, 3], [3, -1]])}, {}, lambda x, i: x[i]),
    ("columns", "Gather", {"x": X, "i": np.array([4, 0, 0])}, {"axis": 1}, lambda x, i: x[:, i]),
    ("elements", "GatherElements", {"x": X, "i": MEET}, {}, lambda x, i: torch.gather(x, 0, i)),
    ("tuples", "GatherND", {"x": X, "i": np.array([[0, 1], [3, 4], [0, 1]])}, {}, lambda x, i: x[i[:, 0], i[:, 1]]),
    (
        "tuples in a batch",
        "GatherND",
        {"x": X, "i": np.array([[[1]], [[0]], [[4]], [[4]]])},
        {"batch_dims": 1},
        lambda x, i: torch.gather(x, 1, i[..., 0]),
    ),
    ("add", "ScatterElements", {"x": X, "i": MEET, "u": U}, {"reduction": "add"}, _scattered("sum")),
    ("mul", "ScatterElements", {"x": X, "i": MEET, "u": U}, {"reduction": "mul"}, _scattered("prod")),
    ("mul with zeros", "ScatterElements", {"x": TIED, "i": MEET, "u": np.round(U)}, {"reduction": "mul"}, _scattered("prod")),
    ("max", "ScatterElements", {"x": X, "i": MEET, "u": U}, {"reduction": "max"}, _scattered("amax")),
    ("max with ties", "ScatterElements", {"x": TIED, "i": MEET, "u": np.round(U)}, {"reduction": "max"}, _scattered("amax")),
    ("min with ties", "ScatterElements", {"x": TIED, "i": MEET, "u": np.round(U)}, {"reduction": "min"}, _scattered("amin")),
    ("greatest", "TopK", {"x": X, "k": np.array([2])}, {}, lambda x, k: torch.topk(x, 2).values),
    ("least", "TopK", {"x": X, "k": np.array([3])}, {"axis": 0, "largest": 0}, lambda x, k: torch.topk(x, 3, 0, False).values),
    ("where it holds", "Compress", {"x": X, "c": np.array([True, False, True])}, {"axis": 1}, lambda x, c: x[:, [0, 2]]),
    ("mean over axes at run time", "ReduceMean", {"x": X, "a": np.array([-2])}, {"keepdims": 1}, lambda x, a: x.mean(0, True)),
    ("product at run time", "ReduceProd", {"x": TIED, "a": np.array([1])}, {"keepdims": 1}, lambda x, a: x.prod(1, True)),
    (
        "length at run time",
        "ReduceL2",
        {"x": X * (X[:, :1] > 0), "a": np.array([1])},
        {},
        lambda x, a: x.norm(dim=1, keepdim=True),
    ),
    ("remainder", "Mod", {"x": 5.0 * X, "d": X + 0.25}, {"fmod": 1}, lambda x, d: torch.fmod(x, d)),
    ("power", "Pow", {"x": np.abs(X) * (X > 0), "e": np.array([0.0, 1.0, 2.0, 3.0, 0.5], np.float32)}, {}, torch.pow),
]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "f"), [c[1:] for c in AGAINST_TORCH], ids=[c[0] for c in AGAINST_TORCH]
)
def test_adjoints_are_those_of_torch(operator: str, inputs: Any, attributes: Any, f: Any) -> None:
    """Ties and zeros included; with a symbolic batch and integer operands at run time."""
    names = list(inputs)

    def named(**values: torch.Tensor) -> torch.Tensor:
        return f(*(values[name] for name in names))  # type: ignore[no-any-return]

    y = named(**{name: torch.tensor(value) for name, value in inputs.items()}).numpy()
    model = one(operator, inputs, y.ndim, **attributes)
    g = normal(*y.shape)
    expected = by_torch(named, inputs, g)
    for name, found in adjoints(model, inputs, g).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 1.5], np.float32)], ids=["", "weights"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [None, -100, 2])
@pytest.mark.parametrize("log_probabilities", [False, True], ids=["scores", "log probabilities"])
def test_losses_over_classes_are_those_of_torch(
    weights: Any, reduction: str, ignored: int | None, log_probabilities: bool
) -> None:
    x, labels = normal(3, 4, 5), np.random.default_rng(0).integers(0, 4, (3, 5))
    if ignored is not None:
        labels[0, :3] = ignored
    operator, f = "SoftmaxCrossEntropyLoss", torch.nn.functional.cross_entropy
    if log_probabilities:
        operator, f = "NegativeLogLikelihoodLoss", torch.nn.functional.nll_loss
    inputs = {"x": x, "t": labels} | ({} if weights is None else {"w": weights})
    g = normal(3, 5) if reduction == "none" else np.float32(0.7)
    model = one(operator, inputs, np.ndim(g), reduction=reduction, **({} if ignored is None else {"ignore_index": ignored}))
    for value in model.graph.input[0].type.tensor_type.shape.dim:
        value.dim_param = f"X{value.dim_value}"  # classes and positions, too
    index = -1000 if ignored is None else ignored
    frozen = None if weights is None else torch.tensor(weights)
    expected = by_torch(lambda x, **_: f(x, torch.tensor(labels), frozen, ignore_index=index, reduction=reduction), {"x": x}, g)
    np.testing.assert_allclose(adjoints(model, inputs, np.asarray(g))["x"], expected["x"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("training", "ratio"), [(True, 0.25), (True, 0.0), (False, 0.25), (True, 0.999)])
def test_dropout_with_ratio_and_mode_at_run_time(training: bool, ratio: float) -> None:
    """The gradient is that of the very mask that the run drew."""
    inputs = {"x": normal(40, 5), "r": np.array(ratio, np.float32), "t": np.array(training)}
    model = one("Dropout", inputs, 2, seed=3)
    made = vgcompile.grad(model, wrt=["x"], seed_input=True, loss="y")
    mask, found = stock(made).run(["mask", "grad.x"], {**inputs, "adj.y": np.ones((40, 5), np.float32)})
    scale = 1.0 / (1.0 - ratio) if training else 1.0
    np.testing.assert_allclose(found, np.where(mask, scale, 0.0), rtol=1e-3)
    assert mask.all() == (not training or ratio == 0.0)


# ---------------------------------------------------------------------------------------------------------------- compactness


def nodes_of(operator: str, given: Sample) -> int:
    """The nodes of the gradient of a drawn input, forward and its last Identity left out, that an optimizer leaves."""
    made = build(OPS[operator], given, FLOAT)
    model = ir.from_proto(made.gradient)
    model.graph.outputs[:] = [value for value in model.graph.outputs if value.name in made.adjoints.values()]
    return len([node for node in optimize(model).graph if node.op_type not in (operator, "Identity")])


@pytest.mark.parametrize(
    ("operator", "given", "most"),
    [
        ("Gather", sample((50, 8), np.array([[0, 4], [4, -1]])), 3),  # an embedding
        ("GatherND", sample((50, 8), np.array([[0], [4]])), 2),
        ("ReduceMean", sample(("N", 8), np.array([1]), keepdims=0), 2),
        ("ReduceMean", sample(("N", 8, "T"), np.array([1]), keepdims=1), 1),
        ("ReduceSum", sample((4, 8), np.array([1]), keepdims=0), 2),
        ("TopK", sample((4, 8), np.array([3]), outputs=2), 2),
        ("Clip", sample(("N", 5), np.array(-1.0), np.array(0.5)), 2),
        ("Pow", sample(("N", 3), np.array(2.0)), 2),
        ("SoftmaxCrossEntropyLoss", sample((5, 4), np.array([0, 2, 1, 3, 3])), 7),
    ],
)
def test_gradient_is_compact(operator: str, given: Sample, most: int) -> None:
    assert nodes_of(operator, given) <= most


# -------------------------------------------------------------------------------------------------------- refused, and beside


SEQUENCES = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,4] x, int64 at) => (float loss, float[M,K] side, float[N,4] there) <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}>
{
   h = MatMul(x, w)
   pieces = SplitToSequence<axis=1, keepdims=1>(x)
   n = SequenceLength(pieces)
   more = SequenceInsert(pieces, x)
   fewer = SequenceErase(more, at)
   some = SequenceConstruct(x, x)
   side = ConcatFromSequence<axis=0>(some)
   maybe = Optional(x)
   there = OptionalGetElement(maybe)
   is = OptionalHasElement(maybe)
   scale = Cast<to=1>(n)
   z = Mul(h, scale)
   loss = ReduceMean<keepdims=0>(z)
}"""


def test_sequences_beside_the_way_of_a_gradient() -> None:
    made = vgcompile.grad(parser.parse_model(SEQUENCES), wrt="all")
    x = np.ones((2, 4), np.float32)
    found = stock(made).run(["side", "grad.w"], {"x": x, "at": np.array(0)})
    assert found[0].shape == (4, 4)
    np.testing.assert_allclose(found[1], np.full((4, 3), 4.0 / 3.0), rtol=1e-6)


@pytest.mark.parametrize(("output", "operator"), [("side", "ConcatFromSequence"), ("there", "OptionalGetElement")])
def test_a_way_through_a_sequence_is_refused_by_name(output: str, operator: str) -> None:
    with pytest.raises(GradientRefused, match=f"{operator} .* has no adjoint yet; "):
        vgcompile.grad(parser.parse_model(SEQUENCES), wrt=["x"], seed_input=True, loss=output)


def test_scatter_of_old_files_is_converted() -> None:
    text = """<ir_version: 4, opset_import: ["" : 10]>
    g (float[3,3] x, int64[2,3] i, float[2,3] u) => (float[3,3] y) { y = Scatter<axis=0>(x, i, u) }"""
    model = parser.parse_model(text)
    assert [node.op_type for node in version_converter.convert_version(model, 21).graph.node] == ["ScatterElements"]
    inputs = {"x": normal(3, 3), "i": np.array([[1, 0, 2], [0, 2, 1]]), "u": normal(2, 3)}
    g = normal(3, 3)
    expected = by_torch(lambda x, i, u: x.scatter(0, i, u), inputs, g)
    for name, found in adjoints(model, inputs, g).items():
        np.testing.assert_allclose(found, expected[name])


def test_nothing_flows_through_types_of_eight_bits() -> None:
    """A cast there and back is a quantization, as QuantizeLinear is; through 16 bits the gradient passes."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2] x) => (float[2] y) {{ narrow = Cast<to={to}>(x) y = Cast<to=1>(narrow) }}"""
    for to, slope in ((TensorProto.FLOAT8E4M3FN, 0.0), (TensorProto.FLOAT16, 1.0), (TensorProto.INT32, 0.0)):
        model = parser.parse_model(text.format(to=to))
        found = adjoints(model, {"x": np.array([1.5, -2.0], np.float32)}, np.ones(2, np.float32))["x"]
        np.testing.assert_array_equal(found, [slope, slope])


def test_every_row_of_the_standard_is_one_of_its_operators() -> None:
    """Nothing is invented, but what `lower` opens."""
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert [row.name for row in OPS.values() if not row.domain and row.name not in names] == []
