"""Decomposed composites become one operator, whatever their spelling, and only where nothing else is meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from scipy import special

from tests.test_normalize import HEAD, assert_same, model_of, run
from vgcompile.derivatives import grad, hvp
from vgcompile.graph.normalize import normalized

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 4, 6)) * 2).astype(np.float32)


def elementwise(body: str, **constants: float) -> onnx.ModelProto:
    given = {name: np.float32(value) for name, value in constants.items()}
    return model_of(HEAD + f" m (float[N, 4, 6] x) => (float[N, 4, 6] y) {{ {body} }}", **given)


def operators(model: onnx.ModelProto) -> list[str]:
    """As they stand in the normalized graph, which computes what the file does."""
    assert_same(model, {"x": X}, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in normalized(model).model.graph]


ROOT, HALF, ONE, CUBIC, INNER = math.sqrt(2), 0.5, 1.0, 0.044715, math.sqrt(2 / math.pi)


@pytest.mark.parametrize(
    ("operator", "body", "constants"),
    [
        ("Gelu", "d = Div(x, r)  e = Erf(d)  a = Add(e, o)  m = Mul(x, a)  y = Mul(m, h)", {"r": ROOT, "o": ONE, "h": HALF}),
        (
            "Gelu",
            "h2 = Mul(h, x)  d = Mul(r, x)  e = Erf(d)  a = Add(o, e)  y = Mul(a, h2)",
            {"r": 1 / ROOT, "o": ONE, "h": HALF},
        ),
        ("Gelu", "d = Div(x, r)  e = Erf(d)  a = Add(e, o)  m = Mul(a, h)  y = Mul(x, m)", {"r": ROOT, "o": ONE, "h": HALF}),
        (
            "Gelu",
            "n = Neg(x)  d = Div(n, r)  e = Erf(d)  s = Sub(o, e)  m = Mul(s, x)  y = Mul(m, h)",
            {"r": ROOT, "o": 1, "h": 0.5},
        ),
        (
            "Gelu",
            "p = Pow(x, three)  q = Mul(p, c)  s = Add(x, q)  i = Mul(s, k)  t = Tanh(i)  a = Add(t, o)  h2 = Mul(x, h)"
            "  y = Mul(h2, a)",
            {"three": 3.0, "c": CUBIC, "k": INNER, "o": ONE, "h": HALF},
        ),
        (
            "Gelu",
            "b = Mul(x, x)  q = Mul(b, c)  s = Add(o, q)  v = Mul(x, k)  i = Mul(s, v)  t = Tanh(i)  a = Add(o, t)"
            "  m = Mul(a, x)  y = Mul(h, m)",
            {"c": CUBIC, "k": INNER, "o": ONE, "h": HALF},
        ),
        ("Swish", "s = Sigmoid(x)  y = Mul(x, s)", {}),
        ("Swish", "b = Mul(x, a)  s = Sigmoid(b)  y = Mul(s, x)", {"a": 1.702}),
        ("Swish", "n = Neg(x)  e = Exp(n)  d = Add(e, o)  y = Div(x, d)", {"o": ONE}),
        ("Sigmoid", "n = Neg(x)  e = Exp(n)  d = Add(e, o)  y = Reciprocal(d)", {"o": ONE}),
        ("Softplus", "e = Exp(x)  a = Add(e, o)  y = Log(a)", {"o": ONE}),
        ("Mish", "s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)", {}),
        (
            "HardSwish",
            "a = Add(x, three)  c = Clip(a, zero, six)  m = Mul(x, c)  y = Div(m, six)",
            {"three": 3, "zero": 0, "six": 6},
        ),
        ("HardSwish", "s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)  y = Mul(x, s)", {}),
    ],
)
def test_one_function_of_many_spellings(operator: str, body: str, constants: dict[str, float]) -> None:
    assert operators(elementwise(body, **constants)) == [operator]


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("s = Sigmoid(x)  m = Mul(x, s)  y = Clip(m, low)", {"low": -100.0}),
        ("d = Div(x, r)  e = Erf(d)  a = Add(e, o)  m = Mul(x, a)  y = Mul(m, h)", {"r": ROOT, "o": 1, "h": 0.501}),
        (
            "a = Add(x, three)  c = Clip(a, zero, six)  m = Mul(x, c)  y = Div(m, five)",
            {"three": 3, "zero": 0, "six": 6, "five": 5},
        ),
    ],
)
def test_what_only_looks_alike_stays(body: str, constants: dict[str, float]) -> None:
    assert len(operators(elementwise(body, **constants))) >= 2


def test_values_that_others_read_stay() -> None:
    model = elementwise("s = Sigmoid(x)  m = Mul(x, s)  y = Add(m, s)")
    assert operators(model) == ["Sigmoid", "Mul", "Add"]
    shown = parser.parse_model(
        HEAD + " m (float[N, 4, 6] x) => (float[N, 4, 6] y, float[N, 4, 6] s) { s = Sigmoid(x)  y = Mul(x, s) }"
    )
    assert operators(shown) == ["Sigmoid", "Mul"]


def test_values_that_are_asked_for_stay() -> None:
    """A factor that the file holds as a number may be learned: who asks for its gradient gets it."""
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float loss) <float beta = {1.5}>
    { b = Mul(x, beta)  s = Sigmoid(b)  y = Mul(x, s)  loss = ReduceSum<keepdims = 0>(y) }"""
    )
    x = np.float32([[1, -2]])
    sigmoid = 1 / (1 + np.exp(-1.5 * x))
    for name, truth in (("beta", (x * x * sigmoid * (1 - sigmoid)).sum()), ("s", x)):
        found = run(grad(parser.parse_model(text), wrt=[name]), {"x": x})
        np.testing.assert_allclose(found[1], truth, rtol=1e-5)


def test_a_sum_over_as_many_elements_as_a_sample_has_is_no_mean() -> None:
    """An extent that is a symbol is sampled: a constant that happens to be the sample's extent is not that of a run."""
    body = "m = ReduceMean(x, axes)  c = Sub(x, m)  q = Mul(c, c)  v = ReduceSum(q, axes)  u = Div(v, n)  w = Add(u, e)"
    body += "  s = Sqrt(w)  z = Div(c, s)  y = Mul(z, g)"
    text = HEAD + f" m (float[N, T, 6] x, float[T, 6] g) => (float[N, T, 6] y) {{ {body} }}"
    for n in (30.0, 36.0):
        model = model_of(text, axes=np.int64([1, 2]), n=np.float32(n), e=np.float32(1e-3))
        given = assert_same(model, {"x": X, "g": X[0]}, rtol=1e-4, atol=1e-5)
        assert given.notes == ()


def test_a_group_normalization_whose_groups_are_given_out_stays() -> None:
    body = "f = Reshape(x, a)  n = InstanceNormalization(f, one, zero)  y = Reshape(n, b)"
    text = HEAD + f" m (float[3, 4, 6] x) => (float[3, 4, 6] y, float[3, 2, 12] f) {{ {body} }}"
    shapes = {"a": np.int64([3, 2, 12]), "b": np.int64([3, 4, 6])}
    model = model_of(text, one=np.ones(2, np.float32), zero=np.zeros(2, np.float32), **shapes)
    assert operators(model) == ["Reshape", "InstanceNormalization", "Reshape"]


NORMAL = "m = ReduceMean(x, last)  c = Sub(x, m)  {square}  v = ReduceMean(q, last)  w = Add(v, e)  {divide}"
SQUARES = ("q = Mul(c, c)", "q = Pow(c, two)")
DIVISIONS = ("s = Sqrt(w)  z = Div(c, s)", "s = Sqrt(w)  r = Reciprocal(s)  z = Mul(r, c)", "r = Pow(w, minus)  z = Mul(c, r)")


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("divide", DIVISIONS)
@pytest.mark.parametrize("affine", ["y = Identity(z)", "y = Mul(z, scale)", "a = Mul(scale, z)  y = Add(bias, a)"])
def test_layer_normalization(square: str, divide: str, affine: str) -> None:
    model = elementwise(NORMAL.format(square=square, divide=divide) + " " + affine, e=1e-5, two=2.0, minus=-0.5)
    model.graph.initializer.append(numpy_helper.from_array(np.int64([-1]), "last"))
    for name in ("scale", "bias"):
        if name in affine:
            model.graph.initializer.append(numpy_helper.from_array(RNG.standard_normal(6).astype(np.float32), name))
    given = assert_same(model, {"x": X}, rtol=1e-4, atol=1e-5)
    node = next(node for node in given.model.graph if node.op_type == "LayerNormalization")
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-5)
    assert len(given.model.graph) == 1
    assert {"scale", "bias"} & set(given.initializers) <= {v.name for v in node.inputs if v is not None}


SQUARE_ROOT = "{square}  v = ReduceMean(q, last)  w = Add(v, e)  s = Sqrt(w)  {divide}"


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("square", ["q = Mul(x, x)", "q = Pow(x, two)"])
@pytest.mark.parametrize("divide", ["z = Div(x, s)", "r = Reciprocal(s)  z = Mul(x, r)"])
@pytest.mark.parametrize("scaled", ["y = Identity(z)", "y = Mul(scale, z)"])
def test_root_mean_square_normalization(opset: int, square: str, divide: str, scaled: str) -> None:
    """In every opset: one that lacks the operator gets it written out, statistics shared with the gradient."""
    body = SQUARE_ROOT.format(square=square, divide=divide) + " " + scaled
    text = HEAD.replace("21", str(opset)) + f" m (float[N, 4, 6] x) => (float[N, 4, 6] y) {{ {body} }}"
    given = {"scale": RNG.standard_normal(6).astype(np.float32)} if "scale" in scaled else {}
    used = {"two": np.float32(2)} if "two" in square else {}
    model = model_of(text, last=np.int64([-1]), e=np.float32(1e-5), **used, **given)
    assert "RMSNormalization" in operators(model)
    joint = grad(model, wrt="all", seed_input=True)
    counts = [node.op_type for node in joint.graph.node]
    assert ("RMSNormalization" in counts) == (opset == 23)
    assert counts.count("Sqrt") == 1
    g = RNG.standard_normal(X.shape).astype(np.float32)
    found = run(joint, {"x": X, "adj.y": g})
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    factor = torch.tensor(given.get("scale", np.ones(6)), dtype=torch.float64, requires_grad=True)
    (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * factor).backward(torch.tensor(g, dtype=torch.float64))
    truth = {"grad.x": x.grad, "grad.scale": factor.grad}
    for value, array in zip(joint.graph.output[1:], found[1:], strict=True):
        np.testing.assert_allclose(array, truth[value.name], rtol=1e-4, atol=1e-5)


def test_a_deviation_with_epsilon_beside_it_is_no_layer_normalization() -> None:
    body = "m = ReduceMean(x, last)  c = Sub(x, m)  q = Mul(c, c)  v = ReduceMean(q, last)"
    body += "  s = Sqrt(v)  w = Add(s, e)  y = Div(c, w)"
    model = elementwise(body, e=1e-3)
    model.graph.initializer.append(numpy_helper.from_array(np.int64([-1]), "last"))
    assert "LayerNormalization" not in operators(model)


def test_a_mean_over_other_axes_than_the_last_ones_is_no_layer_normalization() -> None:
    """The last axis has one element here, over which a layer normalization would give 0 / 0 or 0."""
    text = """<ir_version: 10, opset_import: ["": 18]> g (float[3, 3, 3, 1] x) => (float[3, 3, 3, 1] y)
    <int64[3] axes = {0, 2, 3}, float two = {2}, float tiny = {1e-9}> {
      m = ReduceMean(x, axes)  mm = Mul(m, m)  s = Pow(x, two)  ms = ReduceMean(s, axes)  v = Sub(ms, mm)
      d = Sqrt(v)  e = Add(d, tiny)  c = Sub(x, m)  y = Div(c, e) }"""
    found = normalized(parser.parse_model(text)).model.graph
    assert "LayerNormalization" not in {node.op_type for node in found}


@pytest.mark.parametrize("affine", ["y = Identity(z)", "a = Mul(z, scale)  y = Add(a, bias)", "y = Add(z, bias)"])
def test_group_normalization(affine: str) -> None:
    body = (
        "f = Reshape(x, flat)  n = InstanceNormalization<epsilon = 0.001>(f, one, zero)  s = Shape(x)  z = Reshape(n, s)  "
        + affine
    )
    arrays: dict[str, Any] = {"flat": np.int64([0, 2, -1]), "one": np.ones(2, np.float32), "zero": np.zeros(2, np.float32)}
    for name in ("scale", "bias"):
        if name in affine:
            arrays[name] = RNG.standard_normal((4, 1)).astype(np.float32)
    model = model_of(HEAD + f" m (float[N, 4, 6] x) => (float[N, 4, 6] y) {{ {body} }}", **arrays)
    given = assert_same(model, {"x": X}, rtol=1e-4, atol=1e-5)
    assert "InstanceNormalization" not in {node.op_type for node in given.model.graph}
    assert "GroupNormalization" in {node.op_type for node in given.model.graph}


def test_a_logarithm_of_a_softmax() -> None:
    assert operators(elementwise("s = Softmax<axis = 1>(x)  y = Log(s)")) == ["LogSoftmax"]


def test_names_and_notes() -> None:
    model = elementwise("s = Sigmoid(x)  m = Mul(x, s)  y = Exp(m)")
    model.graph.node[1].name = "/block/act/Mul"
    given = normalized(model)
    assert next((node.name, node.outputs[0].name) for node in given.model.graph) == ("/block/act/Mul", "m")
    assert given.notes == ("model.onnx: recognized 1 Swish",)


def test_a_normalization_by_other_axes_than_the_last_is_no_layer_normalization() -> None:
    """The last axis has one element: its normalization is 0 / 0, which is close to everything or to nothing."""
    body = "m = ReduceMean(x, axes)  p = Mul(m, m)  q = Mul(x, x)  a = ReduceMean(q, axes)  v = Sub(a, p)  s = Sqrt(v)"
    body += "  c = Sub(x, m)  d = Add(s, e)  y = Div(c, d)"
    model = model_of(
        HEAD + f" m (float[N, 4, 1] x) => (float[N, 4, 1] y) {{ {body} }}", e=np.float32(1e-9), axes=np.int64([0, 2])
    )
    given = assert_same(model, {"x": X[..., :1]}, rtol=1e-4, atol=1e-4)
    assert "LayerNormalization" not in {node.op_type for node in given.model.graph}


MENDED = {
    "rows without a number": "p = Softmax(s)  w = Where(n, zero, p)  n = IsNaN(p)",
    "rows of a condition": "p = Softmax(s)  w = Where(dead, zero, p)",
    "in another type": "h = Cast<to = 1>(s)  k = Softmax(h)  p = Cast<to = {own}>(k)  "
    "z = CastLike(zero, p)  w = Where(dead, z, p)",
}


def masked(mending: str, kind: str = "float") -> onnx.ModelProto:
    """A loss of x and of a bias that hides keys; the last row of it hides all."""
    own = {"float": 1, "float16": 10}[kind]
    lines = MENDED[mending].format(own=own).split("  ")
    steps = sorted(lines, key=lambda line: line.startswith("w ="))
    body = "  ".join(["s = Add(x, b)", "r = ReduceMax(b, last)", "dead = Equal(r, minus)", *steps, "t = Mul(w, v)"])
    text = (
        HEAD
        + f" m ({kind}[N, 3, 4] x, {kind}[3, 4] b, {kind}[3, 4] v) => ({kind} y) {{ {body}  y = ReduceSum<keepdims = 0>(t) }}"
    )
    dtype = np.dtype(kind if kind != "float" else "float32").type
    return model_of(text, last=np.int64([-1]), minus=dtype(-np.inf), zero=dtype(0))


def hidden_keys(kind: str) -> dict[str, np.ndarray[Any, Any]]:
    dtype = kind if kind != "float" else "float32"
    bias = np.array([[0, -np.inf, 0, 1], [0.5, 0, 0, 0], [-np.inf] * 4], dtype)
    x, v = RNG.standard_normal((2, 3, 4)).astype(dtype), RNG.standard_normal((3, 4)).astype(dtype)
    return {"x": x, "b": bias, "v": v}


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("mending", MENDED)
def test_a_softmax_whose_hidden_rows_become_zero(mending: str, kind: str) -> None:
    """The gradient of a hidden row is 0, where operator by operator it is no number; so is the second one."""
    model, feeds = masked(mending, kind), hidden_keys(kind)
    given = assert_same(model, feeds, rtol=2e-3, atol=1e-3)
    assert given.notes == ("model.onnx: recognized 1 MaskedSoftmax",)
    exact = {name: array.astype(np.float64) for name, array in feeds.items()}
    with np.errstate(invalid="ignore"):
        p = np.nan_to_num(special.softmax(exact["x"] + exact["b"], axis=-1))
    v, d = exact["v"], RNG.standard_normal((2, 3, 4))
    first = p * (v - (p * v).sum(-1, keepdims=True))
    allowed = {"rtol": 1e-4, "atol": 1e-5} if kind == "float" else {"rtol": 2e-2, "atol": 4e-3}
    outputs = run(grad(model, wrt=["x"]), feeds)
    np.testing.assert_allclose(outputs[-1], first, **allowed)
    once = p * (d - (p * d).sum(-1, keepdims=True))
    second = once * (v - (p * v).sum(-1, keepdims=True)) - p * (once * v).sum(-1, keepdims=True)
    product = hvp(model, wrt=["x"])
    direction = next(value.name for value in product.graph.input if value.name not in feeds)
    found = run(product, {**feeds, direction: d.astype(feeds["x"].dtype)})
    np.testing.assert_allclose(found[-1], second, **allowed)


def test_a_softmax_with_hidden_elements_stays() -> None:
    """What is hidden behind the softmax has a share in the sum: its weight is part of the gradient."""
    body = "p = Softmax(x)  w = Where(c, zero, p)  t = Mul(w, x)  y = ReduceSum<keepdims = 0>(t)"
    text = HEAD + f" m (float[N, 3, 4] x, bool[3, 4] c) => (float y) {{ {body} }}"
    given = normalized(model_of(text, zero=np.float32(0)))
    assert "MaskedSoftmax" not in {node.op_type for node in given.model.graph}
