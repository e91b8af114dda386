"""Gradients through branches and loops, in float64 on ONNX Runtime, against central differences along random directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

import vgcompile
from vgcompile.errors import GradientRefused

Array = np.ndarray[Any, Any]
HEAD = '<ir_version: 8, opset_import: ["": 17]>'
WEIGHT = "double[3, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, -0.6, -0.7, 0.8, 0.9}"

LOOP = f"""{HEAD} f (double[N, 3] x, int64 n) => (double[N, 3] y, double[T, N, 3] ys) <{WEIGHT}> {{
  go = Constant<value = bool {{1}}>()
  y, ys = Loop(n, go, x) <body = b (int64 i, bool c, s) => (bool c2, double[N, 3] s2, double[N, 3] o) {{
    c2 = Identity(c)  h = MatMul(s, w)  fi = Cast<to = 11>(i)  z = Add(h, fi)  s2 = Tanh(z)  o = Mul(s2, s) }}>
}}"""

# A state that stays, one that nothing reads, an integer one; the loop ends by its condition.
STATES = f"""{HEAD} f (double[2, 3] x, double[3] k, int64 n) => (double[2, 3] y) <{WEIGHT}> {{
  go = Constant<value = bool {{1}}>()  zero = Constant<value = int64 {{0}}>()  one = Constant<value = int64 {{1}}>()
  y, k2, m2, last = Loop("", go, x, k, zero, x) <body = b (int64 i, bool c, s, kk, m, dead)
      => (bool c2, double[2, 3] s2, double[3] k1, int64 m1, double[2, 3] d2) {{
    k1 = Identity(kk)  m1 = Add(m, one)  c2 = Less(m1, n)  h = MatMul(s, w)  z = Mul(h, k1)  s2 = Tanh(z)  d2 = Mul(s2, s2) }}>
}}"""

SCAN = f"""{HEAD} f (double[3] s0, double[T, 3] x, double[3, T] z)
    => (double[3] s, double[T, 3] ys, double[3, T] zs) <{WEIGHT}> {{
  s, ys, zs = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
      scan_output_axes = [0, 1], scan_output_directions = [1, 0],
      body = b (double[3] h, double[3] a, double[3] c) => (double[3] h2, double[3] o, double[3] p) {{
    m = MatMul(w, h)  t = Add(m, a)  u = Mul(t, c)  h2 = Tanh(u)  o = Mul(h2, h)  p = Mul(a, a) }}> (s0, x, z)
}}"""

BRANCH = f"""{HEAD} f (double[N, 3] x, double[N, 3] v, bool yes) => (double[N, 3] y) <{WEIGHT}> {{
  p = Mul(x, v)
  y = If (yes) <then_branch = a () => (double[N, 3] t) {{ m = MatMul(p, w)  t = Tanh(m) }},
                else_branch = b () => (double[N, 3] e) {{ e = Mul(x, x) }}>
}}"""

# A branch in a loop in a loop; the inner one runs as often as the outer one has run before.
NESTED = f"""{HEAD} f (double[2, 3] x, int64 n) => (double[2, 3] y) <{WEIGHT}> {{
  go = Constant<value = bool {{1}}>()  two = Constant<value = int64 {{2}}>()  zero = Constant<value = int64 {{0}}>()
  y = Loop(n, go, x) <body = outer (int64 i, bool c, s) => (bool c2, double[2, 3] s3) {{
    c2 = Identity(c)
    s2 = Loop(i, c, s) <body = inner (int64 j, bool d, r) => (bool d2, double[2, 3] r2) {{
      d2 = Identity(d)  odd = Mod(j, two)  q = Equal(odd, zero)
      r2 = If (q) <then_branch = a () => (double[2, 3] t) {{ m = MatMul(r, w)  t = Tanh(m) }},
                   else_branch = b () => (double[2, 3] e) {{ k = Mul(r, s)  e = Sin(k) }}> }}>
    s3 = Add(s2, s) }}>
}}"""

CASES = {
    "loop": (LOOP, {"x": (2, 3)}, [{"n": np.array(n)} for n in (0, 1, 4)]),
    "states": (STATES, {"x": (2, 3), "k": (3,)}, [{"n": np.array(n)} for n in (1, 3)]),
    "scan": (SCAN, {"s0": (3,), "x": (4, 3), "z": (3, 4)}, [{}]),
    "branch": (BRANCH, {"x": (2, 3), "v": (2, 3)}, [{"yes": np.array(yes)} for yes in (False, True)]),
    "nested": (NESTED, {"x": (2, 3)}, [{"n": np.array(n)} for n in (0, 1, 4)]),
}


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    known = {given.name for given in (*session.get_inputs(), *session.get_overridable_initializers())}
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in known}), strict=True))


def agrees(model: onnx.ModelProto, seeded: onnx.ModelProto, feeds: dict[str, Array], prefix: str = "grad.") -> None:
    """<v, J^T g> against differences of <g, f(x + t v)>, for each gradient that ``seeded`` gives out of ``model``."""
    rng = np.random.default_rng(0)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in seeded.graph.initializer}
    outputs = run(model, feeds)
    given = [i.name[len("adj.") :] for i in seeded.graph.input if i.name.startswith("adj.") and i.name not in feeds]
    g = {f"adj.{name}": rng.normal(size=outputs[name].shape) for name in given}
    found = run(seeded, {**feeds, **g})
    wanted = [o.name for o in seeded.graph.output if o.name.startswith(prefix) and o.name not in outputs]
    assert wanted
    for name in wanted:
        value = name[len(prefix) :]
        at = feeds.get(value, weights.get(value))
        assert at is not None
        v = rng.normal(size=at.shape)

        def loss(t: float, value: str = value, at: Array = at, v: Array = v) -> float:
            moved = run(model, {**feeds, value: at + t * v})
            return sum(float(np.vdot(moved[out], g[f"adj.{out}"])) for out in given)

        difference = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert float(np.vdot(v, found[name])) == pytest.approx(difference, rel=1e-6, abs=1e-7), name


def as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights can be fed: listed as inputs, as the joint graph has them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    listed = {i.name for i in copy.graph.input}
    for tensor in copy.graph.initializer:
        if tensor.name not in listed and tensor.data_type == onnx.TensorProto.DOUBLE and tensor.dims:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


@pytest.mark.parametrize("name", CASES)
def test_gradient_agrees_with_differences(name: str) -> None:
    text, shapes, runs = CASES[name]
    model = parser.parse_model(text)
    seeded = vgcompile.grad(model, wrt="all", seed_input=True)
    assert {node.domain for node in seeded.graph.node} == {""}
    for feeds in runs:
        rng = np.random.default_rng(1)
        agrees(as_inputs(model), seeded, {**{k: rng.normal(size=s) for k, s in shapes.items()}, **feeds})


@pytest.mark.parametrize("name", CASES)
def test_second_gradient_agrees_with_differences(name: str) -> None:
    """The gradient's own gradient: loops of loops, tapes of tapes."""
    text, shapes, runs = CASES[name]
    first = vgcompile.grad(parser.parse_model(text), wrt="all", seed_input=True)
    second = vgcompile.grad(first, wrt="all", seed_input=True, loss="grad.x", prefix="second.")
    for feeds in runs:
        rng = np.random.default_rng(2)
        drawn = {k: rng.normal(size=s) for k, s in shapes.items()}
        outputs = run(parser.parse_model(text), {**drawn, **feeds})
        adjoints = {f"adj.{k}": rng.normal(size=y.shape) for k, y in outputs.items()}
        agrees(first, second, {**drawn, **feeds, **adjoints}, prefix="second.")


def test_a_body_that_draws_is_refused() -> None:
    text = f"""{HEAD} f (double[2] x, int64 n) => (double[2] y) {{
      go = Constant<value = bool {{1}}>()
      y = Loop(n, go, x) <body = b (int64 i, bool c, s) => (bool c2, double[2] s2) {{
        c2 = Identity(c)  r = RandomNormalLike(s)  s2 = Mul(s, r) }}> }}"""
    with pytest.raises(GradientRefused, match=r"Loop .*draws random numbers \(RandomNormalLike\)"):
        vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)


def test_two_outputs_that_hold_one_value_keep_their_names() -> None:
    text = f"{HEAD} f (double[2] a, double[2] b) => (double[2] y) {{ y = Add(a, b) }}"
    made = vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)
    found = run(made, {"a": np.ones(2), "b": np.ones(2), "adj.y": np.array([1.0, 2.0])})
    assert {name: value.tolist() for name, value in found.items()} == {"y": [2, 2], "grad.a": [1, 2], "grad.b": [1, 2]}


@pytest.mark.parametrize("trips", [(1, 3), (3, 1), (2, 2)])
def test_loops_whose_bodies_share_a_name_do_not_share_a_length(trips: tuple[int, int]) -> None:
    loop = """<body = body (int64 i{k}, bool c{k}, s{k}) => (bool d{k}, double[2] t{k}, double[2] o{k}) {{
        d{k} = Identity(c{k})  t{k} = Mul(s{k}, {by})  o{k} = Tanh(t{k}) }}>"""
    text = f"""{HEAD} f (double[2] x, double[2] z, int64 n, int64 m) => (double[T, 2] y) {{
      go = Constant<value = bool {{1}}>()
      a, p = Loop(n, go, x) {loop.format(k=1, by="x")}
      b, q = Loop(m, go, z) {loop.format(k=2, by="z")}
      y = Mul(p, q)
    }}"""
    joint = vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)
    x, z = np.array([0.5, 1.1]), np.array([0.7, -0.4])
    powers = [np.stack([v ** (k + 2) for k in range(n)]) for v, n in zip((x, z), trips, strict=True)]
    slopes = [
        (k[:, None] + 2) * v ** (k[:, None] + 1) * (1 - np.tanh(p) ** 2)
        for v, p, k in zip((x, z), powers, map(np.arange, trips), strict=True)
    ]
    g = np.arange(1.0, 1.0 + 2 * max(trips)).reshape(-1, 2)
    found = run(joint, {"x": x, "z": z, "n": np.asarray(trips[0]), "m": np.asarray(trips[1]), "adj.y": g})
    np.testing.assert_allclose(found["grad.x"], (g * slopes[0] * np.tanh(powers[1])).sum(0))
    np.testing.assert_allclose(found["grad.z"], (g * slopes[1] * np.tanh(powers[0])).sum(0))


def test_dropout_outside_of_training_draws_nothing() -> None:
    text = f"""{HEAD} f (double[3] x, int64 n) => (double[3] y) {{
      go = Constant<value = bool {{1}}>()
      y = Loop(n, go, x) <body = b (int64 i, bool c, s) => (bool c2, double[3] t) {{
        c2 = Identity(c)  d = Dropout(s)  t = Mul(d, s) }}>
    }}"""
    joint = vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)
    session = onnxruntime.InferenceSession(joint.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([0.5, 1.0, 2.0])
    (found,) = session.run(["grad.x"], {"x": x, "n": np.asarray(2), "adj.y": np.ones(3)})
    np.testing.assert_allclose(found, 4 * x**3)


def test_a_branch_that_nothing_reads_goes_with_what_it_reads() -> None:
    text = f"""{HEAD} f (double[3] x, bool yes) => (double[3] y) {{
      a = Sin(x)
      z = If (yes) <then_branch = a () => (double[3] t) {{ t = Mul(a, a) }}, else_branch = b () => (double[3] e) {{ e = Neg(a) }}>
      y = Mul(x, x)
    }}"""
    joint = vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)
    assert {node.op_type for node in joint.graph.node} <= {"Mul", "Add"}
