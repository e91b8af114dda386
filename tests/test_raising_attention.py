"""Attention that a file spells out becomes one operator, in every spelling, and keeps the file's meaning and its gradient."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.test_normalize import HEAD, assert_same, model_of, run
from vgcompile.derivatives import grad
from vgcompile.graph.normalize import normalized

RNG = np.random.default_rng(3)
SHAPES = {"q": (2, 2, 4, 3), "k": (2, 2, 5, 3), "v": (2, 2, 5, 2)}
HEADS = "float[N, 2, T, 3] q, float[N, 2, S, 3] k, float[N, 2, S, 2] v"
SCALE, CAP = 3**-0.5, 1.5
CONSTANTS = {
    "scale": np.float32(SCALE),
    "root": np.float32(math.sqrt(SCALE)),
    "size": np.float32(3.0),
    "cap": np.float32(CAP),
    "inner": np.float32(SCALE / CAP),
    "low": np.float32(-1e4),
    "minus": np.float32(-np.inf),
    "zero": np.float32(0),
    "flat": np.int64([-1, 5, 3]),
    **{f"at{i}": np.int64([i]) for i in (0, 2, 3, 4)},
}
MASK = np.where(RNG.random((4, 5)) < 0.3, -np.inf, RNG.standard_normal((4, 5))).astype(np.float32)
MASK[:, 1] = 0.0
HIDDEN = np.isinf(MASK)
TURNED = "t = Transpose<perm = [0, 1, 3, 2]>(k)"
PLUMBED = (
    "f = Reshape(k, flat)  ft = Transpose<perm = [0, 2, 1]>(f)  sh = Shape(k)  l = Slice(sh, at0, at2)  n = Slice(sh, at3, at4)"
    "  m = Slice(sh, at2, at3)  to = Concat<axis = 0>(l, n, m)  t = Reshape(ft, to)"
)


@dataclass(frozen=True)
class Spelling:
    """``body`` computes y; ``read`` are further inputs of the file; ``scores`` is what PyTorch makes of the scaled product."""

    body: str
    given: dict[str, Any] = field(default_factory=dict)
    read: str = ""
    scores: Any = lambda s, given: s
    inputs: str = HEADS


def masked(s: Any, given: Any) -> Any:
    return s + given["mask"]


def hidden(s: Any, given: Any) -> Any:
    return s.masked_fill(given["hide"], -math.inf)


BIAS = {"given": {"mask": MASK}, "read": ", float[T, S] mask", "scores": masked}
HIDE = {"given": {"hide": HIDDEN}, "read": ", bool[T, S] hide"}
SPELLINGS = {
    "scale behind": Spelling(f"{TURNED}  s = MatMul(q, t)  a = Mul(s, scale)  p = Softmax(a)  y = MatMul(p, v)"),
    "divided by a root": Spelling(
        f"{TURNED}  s = MatMul(q, t)  r = Sqrt(size)  a = Div(s, r)  p = Softmax<axis = 3>(a)  y = MatMul(p, v)"
    ),
    "scaled queries": Spelling(f"{TURNED}  u = Mul(scale, q)  s = MatMul(u, t)  p = Softmax(s)  y = MatMul(p, v)"),
    "half on either side": Spelling(
        f"{TURNED}  u = Mul(q, root)  w = Mul(t, root)  s = MatMul(u, w)  a = Add(s, mask)  p = Softmax(a)  y = MatMul(p, v)",
        **BIAS,
    ),
    "mask first": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, scale)  a = Add(mask, b)  p = Softmax(a)  y = MatMul(p, v)", **BIAS
    ),
    "two biases": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, scale)  c = Add(b, more)  a = Add(c, mask)  p = Softmax(a)  y = MatMul(p, v)",
        {"mask": MASK, "more": RNG.standard_normal((1, 2, 4, 5)).astype(np.float32)},
        ", float[T, S] mask, float[1, 2, T, S] more",
        lambda s, given: s + given["mask"] + given["more"],
    ),
    "filled where hidden": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, scale)  a = Where(hide, minus, b)  p = Softmax(a)  y = MatMul(p, v)",
        **HIDE,
        scores=hidden,
    ),
    "kept where seen, by a finite number": Spelling(
        f"{TURNED}  o = Not(hide)  s = MatMul(q, t)  b = Mul(s, scale)  a = Where(o, b, low)  p = Softmax(a)  y = MatMul(p, v)",
        **HIDE,
        scores=lambda s, given: s.masked_fill(given["hide"], -1e4),
    ),
    "filled, then biased": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, scale)  c = Where(hide, low, b)  a = Add(c, more)  p = Softmax(a)"
        "  y = MatMul(p, v)",
        {"hide": HIDDEN, "more": RNG.standard_normal((4, 5)).astype(np.float32)},
        ", bool[T, S] hide, float[T, S] more",
        lambda s, given: s.masked_fill(given["hide"], -1e4) + given["more"],
    ),
    "capped": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, inner)  c = Tanh(b)  d = Mul(c, cap)  a = Add(d, mask)  p = Softmax(a)"
        "  y = MatMul(p, v)",
        {"mask": MASK},
        ", float[T, S] mask",
        lambda s, given: CAP * torch.tanh(s / CAP) + given["mask"],
    ),
    "rows that see nothing": Spelling(
        f"{TURNED}  u = Mul(q, scale)  s = MatMul(u, t)  a = Add(s, mask)  p = Softmax(a)  n = IsNaN(p)  w = Where(n, zero, p)"
        "  y = MatMul(w, v)",
        **BIAS,
    ),
    "softmax in another type": Spelling(
        f"{TURNED}  s = MatMul(q, t)  b = Mul(s, scale)  c = Cast<to = 11>(b)  p = Softmax(c)  w = Cast<to = 1>(p)"
        "  y = MatMul(w, v)"
    ),
    "keys turned by reshaping": Spelling(
        f"{PLUMBED}  u = Mul(q, scale)  s = MatMul(u, t)  p = Softmax(s)  y = MatMul(p, v)",
        inputs="float[N, 2, T, 3] q, float[N, 2, 5, 3] k, float[N, 2, 5, 2] v",
    ),
    "keys turned with their heads": Spelling(
        "w = Transpose<perm = [0, 2, 1, 3]>(k)  t = Transpose<perm = [0, 2, 3, 1]>(w)  s = MatMul(q, t)  b = Mul(s, scale)"
        "  p = Softmax(b)  y = MatMul(p, v)"
    ),
    "one head in three axes": Spelling(
        "t = Transpose<perm = [0, 2, 1]>(k)  s = MatMul(q, t)  b = Mul(s, scale)  p = Softmax(b)  y = MatMul(p, v)",
        inputs="float[N, T, 3] q, float[N, S, 3] k, float[N, S, 2] v",
    ),
    "keys that lie in columns": Spelling(
        "s = MatMul(q, k)  b = Mul(s, scale)  p = Softmax(b)  y = MatMul(p, v)",
        inputs="float[N, T, 3] q, float[N, 3, S] k, float[N, S, 2] v",
    ),
}


def written(spelling: Spelling, opset: int = 21) -> onnx.ModelProto:
    body = spelling.body + "  z = Mul(y, y)  loss = ReduceSum<keepdims = 0>(z)"
    words = set(re.findall(r"\w+", body))
    used = {name: array for name, array in CONSTANTS.items() if name in words}
    head = HEAD.replace("21", str(opset))
    return model_of(f"{head} m ({spelling.inputs}{spelling.read}) => (float loss) {{ {body} }}", **used)


def drawn(spelling: Spelling) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    if "[N, T, 3] q" in spelling.inputs:
        feeds = {name: array[:, 0] for name, array in feeds.items()}
    if "[N, 3, S] k" in spelling.inputs:
        feeds["k"] = np.swapaxes(feeds["k"], -1, -2)
    return {**feeds, **spelling.given}


def of_torch(spelling: Spelling, feeds: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    given = {n: torch.tensor(a, dtype=None if a.dtype == np.bool_ else torch.float64) for n, a in feeds.items()}
    q, k, v = (given[name].requires_grad_() for name in "qkv")
    columns = k if "[N, 3, S] k" in spelling.inputs else k.transpose(-1, -2)
    y = torch.softmax(spelling.scores(SCALE * q @ columns, given), -1) @ v
    (y * y).sum().backward()
    return [x.grad.numpy() for x in (q, k, v)]


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_attention_of_many_spellings(name: str) -> None:
    spelling = SPELLINGS[name]
    model, feeds = written(spelling), drawn(spelling)
    assert_same(model, feeds, rtol=1e-5, atol=1e-6)
    left = [node.op_type for node in normalized(model).model.graph if node.op_type not in ("Transpose", "Not", "Add")]
    assert left == ["ScaledDotProductAttention", "Mul", "ReduceSum"]
    found = run(grad(model, wrt="inputs"), feeds)[1:]
    for mine, truth in zip(found, of_torch(spelling, feeds), strict=False):
        np.testing.assert_allclose(mine, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [17, 23])
def test_in_every_opset(opset: int) -> None:
    spelling = SPELLINGS["half on either side"]
    model = written(spelling, opset)
    assert "1 ScaledDotProductAttention" in normalized(model).notes[-1]
    joint = grad(model, wrt="inputs")
    assert {node.domain for node in joint.graph.node} == {""}


def test_a_row_that_sees_nothing_sends_nothing_back() -> None:
    spelling = SPELLINGS["rows that see nothing"]
    feeds = drawn(spelling)
    feeds["mask"] = np.where(np.arange(4)[:, None] == 2, -np.inf, feeds["mask"]).astype(np.float32)
    _loss, dq, dk, dv, *_ = run(grad(written(spelling), wrt="inputs"), feeds)
    assert np.isfinite(dk).all() and np.isfinite(dv).all() and (dq[:, :, 2] == 0).all() and (dq[:, :, 1] != 0).any()


def test_the_weights_are_computed_once() -> None:
    """Forward and gradient share scores and softmax: one of each, five products and a half beside the two of the forward."""
    joint = grad(written(SPELLINGS["mask first"]), wrt=["q", "k", "v"])
    counts = [node.op_type for node in joint.graph.node]
    assert counts.count("Softmax") == 1 and counts.count("MatMul") == 6


LOOKALIKES = {
    "softmax of another axis": f"{TURNED}  s = MatMul(q, t)  p = Softmax<axis = 2>(s)  y = MatMul(p, v)",
    "weights on the right": f"{TURNED}  s = MatMul(q, t)  p = Softmax(s)  w = Transpose<perm = [0, 1, 3, 2]>(p)"
    "  y = MatMul(w, q)",
    "scores that others read": f"{TURNED}  s = MatMul(q, t)  p = Softmax(s)  x = MatMul(p, v)  e = ReduceMax(s)  y = Add(x, e)",
    "weights that others read": f"{TURNED}  s = MatMul(q, t)  p = Softmax(s)  x = MatMul(p, v)  e = ReduceMax(p)  y = Add(x, e)",
    "hidden by scores": f"{TURNED}  s = MatMul(q, t)  c = Less(s, zero)  a = Where(c, minus, s)  p = Softmax(a)"
    "  y = MatMul(p, v)",
    "filled by no one number": f"{TURNED}  s = MatMul(q, t)  c = Less(f, zero)  a = Where(c, f, s)  p = Softmax(a)"
    "  y = MatMul(p, v)",
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_only_looks_alike_stays(name: str) -> None:
    own = ", float[N, 2, T, S] f" if "(f," in LOOKALIKES[name] else ""
    spelling = Spelling(LOOKALIKES[name], read=own)
    feeds = drawn(spelling) | ({"f": RNG.standard_normal((2, 2, 4, 5)).astype(np.float32)} if own else {})
    model = written(spelling)
    assert_same(model, feeds, rtol=1e-5, atol=1e-6)
    assert "ScaledDotProductAttention" not in {node.op_type for node in normalized(model).model.graph}


def test_values_that_are_asked_for_stay() -> None:
    """The scores, or a scale that is to be learned."""
    model, feeds = written(SPELLINGS["scale behind"]), drawn(SPELLINGS["scale behind"])
    for name in ("s", "scale", "p"):
        assert "ScaledDotProductAttention" not in {node.op_type for node in normalized(model, kept={name}).model.graph}
        (found,) = run(grad(model, wrt=[name]), feeds)[1:]
        assert np.isfinite(found).all() and np.any(found)
