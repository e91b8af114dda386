"""Attention, normalizations and what decoders use: ONNX's published cases, PyTorch, hidden rows, 16-bit numbers, node counts."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tests.one_node import FLOAT, OneNode, build
from tests.reference import evaluator, in_float64
from vgcompile.derivatives import gradients
from vgcompile.errors import GradientRefused
from vgcompile.ops import OPS
from vgcompile.ops.op import sample
from vgcompile.passes.optimize import optimize

Array = np.ndarray[Any, Any]

OPERATORS = frozenset(
    {
        *("Attention", "LinearAttention", "RotaryEmbedding", "TensorScatter", "CausalConvWithState", "Swish", "SwiGLU"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization", "LRN"),
        "MeanVarianceNormalization",
    }
)
HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Published:
    """One of ONNX's own cases: a model of one node, and inputs for it."""

    model: onnx.ModelProto
    inputs: Mapping[str, Array]

    @property
    def real(self) -> list[str]:
        types = {value.name: value.type.tensor_type.elem_type for value in self.model.graph.input}
        return [name for name in self.inputs if types[name] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, *HALF)]

    @property
    def half(self) -> bool:
        return any(value.type.tensor_type.elem_type in HALF for value in self.model.graph.input)

    @property
    def in_double(self) -> dict[str, Array]:
        return {name: x.astype(np.float64) if name in self.real else x for name, x in self.inputs.items()}

    def symbolic(self) -> onnx.ModelProto:
        """With a symbol for each extent of the inputs but a kernel's and those along the last axis, which files state: widths."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim[:-1] if value.name != "weight" else ():
                if dim.dim_value > 1:
                    dim.dim_param = f"D{dim.dim_value}"
        for value in model.graph.output:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"{value.name}.{axis}"
        return model


def _published() -> dict[str, Published]:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in load_model_tests(kind="node"):
            if test.model is None or len(test.model.graph.node) != 1 or test.model.graph.node[0].op_type not in OPERATORS:
                continue
            arrays = [
                numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x) for x in test.data_sets[0][0]
            ]
            names = [value.name for value in test.model.graph.input]
            found[test.name] = Published(test.model, dict(zip(names, arrays, strict=True)))
    return found


CASES = _published()


def _run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        return dict(zip(names, evaluator(model.SerializeToString()).run(names, dict(feeds)), strict=True))


@pytest.mark.parametrize("form", ["published", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_published_case(name: str, form: str) -> None:
    """<v, J^T g> = d <g, f(x + t v)> / dt in float64; what is shown as minus infinity gets no seed. 16-bit cases are finite."""
    case = CASES[name]
    made = gradients(case.symbolic() if form == "symbolic" else case.model, wrt=case.real, seed_input=True)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model, x = (made.model, case.inputs) if case.half else (in_float64(made.model), case.in_double)
    y = _run(case.model, x)
    g = {k: np.where(np.isfinite(out), rng.normal(size=np.shape(out)), 0.0).astype(out.dtype) for k, out in y.items()}
    outputs = _run(model, {**x, **{f"adj.{k}": adjoint for k, adjoint in g.items()}})
    adjoints = {k: outputs[made.by[k]] for k in case.real}
    assert {k: (a.shape, a.dtype) for k, a in adjoints.items()} == {k: (x[k].shape, x[k].dtype) for k in adjoints}
    assert all(np.isfinite(a.astype(np.float64)).all() for a in adjoints.values())
    if case.half:
        return
    v = {k: rng.normal(size=x[k].shape) * (np.isfinite(x[k]) & (x[k] != 0.0)) for k in case.real}

    def along(t: float) -> float:
        moved = _run(in_float64(case.model), {**x, **{k: x[k] + t * v[k] for k in v}})
        return sum(float(np.vdot(g[k], np.where(np.isfinite(moved[k]), moved[k], 0.0))) for k in g)

    found = sum(float(np.vdot(v[k], a)) for k, a in adjoints.items())
    scale = 1.0 + sum(float(np.abs(v[k] * a).sum()) for k, a in adjoints.items())
    assert found == pytest.approx((along(1e-6) - along(-1e-6)) / 2e-6, abs=1e-6 * scale)


# --------------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize(
    ("heads", "causal", "mask", "scale"),
    [
        ((2, 2), False, None, None),
        ((2, 2), True, None, 0.25),
        ((4, 2), False, None, None),
        ((6, 2), True, None, None),
        ((2, 2), False, "float", None),
        ((4, 1), False, "bool", 0.5),
    ],
    ids=str,
)
def test_attention_as_in_pytorch(heads: tuple[int, int], causal: bool, mask: str | None, scale: float | None) -> None:
    """float64; the boolean mask hides every key from one query."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(2, n, 5, size)) for n, size in zip((heads[0], heads[1], heads[1]), (4, 4, 3), strict=True))
    bias: Any = None if mask is None else rng.normal(size=(heads[0], 5, 5))
    if mask == "bool":
        bias = bias[0] > 0.0
        bias[2] = False
    literal = () if bias is None else (bias if mask == "bool" else bias.shape,)
    one = build(OPS["Attention"], sample(q.shape, k.shape, v.shape, *literal, is_causal=int(causal), scale=scale))
    x = {0: q, 1: k, 2: v} | ({3: bias} if mask == "float" else {})
    g = rng.normal(size=(*q.shape[:3], 3))
    found = one.run_gradient(x, {0: g})
    leaves = {i: torch.tensor(a, requires_grad=True) for i, a in x.items()}
    given = None if bias is None else leaves.get(3, torch.tensor(bias))
    y = F.scaled_dot_product_attention(*(leaves[i] for i in range(3)), given, is_causal=causal, scale=scale, enable_gqa=True)
    y.backward(torch.tensor(g))
    for i, leaf in leaves.items():
        np.testing.assert_allclose(found[i], leaf.grad, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------------------- conventions

_NOTHING = np.array([[False, False], [True, False]])


@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        ((_NOTHING,), {}),
        ((np.array([[-np.inf, -np.inf], [0.0, 1.0]]),), {}),
        ((None, None, None, np.array([1])), {"is_causal": 1}),
        ((_NOTHING,), {"softcap": 1.0, "softmax_precision": 1}),
    ],
    ids=["boolean", "infinite", "fewer keys than queries", "capped"],
)
def test_nothing_flows_through_a_query_that_sees_no_key(given: Any, attributes: Any) -> None:
    """In the first row 0 and nowhere NaN, the numbers that are hidden from all are not even read."""
    one = build(OPS["Attention"], sample((1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2), *given, **attributes))
    x = {i: np.ones((1, 1, 2, 2)) * (1.0, 2.0) for i in range(3)}
    assert np.all(one.run_forward(x)[0][0, 0, 0] == 0.0)
    found = one.run_gradient(x, {0: np.ones((1, 1, 2, 2))})
    assert all(np.isfinite(adjoint).all() for adjoint in found.values())
    assert np.all(found[0][0, 0, 0] == 0.0)
    only_dead = one.run_gradient(x, {0: np.array([[[[1.0, 1.0], [0.0, 0.0]]]])})
    assert all(np.all(adjoint == 0.0) for adjoint in only_dead.values())


@pytest.mark.parametrize("form", ["heads", "mask", "window"])
def test_symbols_that_differ_at_run_time(form: str) -> None:
    """Numbers of heads, and a mask that covers fewer keys than there are, as those of a graph with numbers."""
    shapes: tuple[Any, ...] = ((2, 4, 3, 3), (2, 2, 4, 3), (2, 2, 4, 2))
    named: tuple[Any, ...] = (("N", "H", "T", 3), ("N", "G", "S", 3), ("N", "G", "S", 2))
    attributes: dict[str, Any] = {}
    if form == "mask":
        shapes, named = (*shapes, (3, 2)), (("N", 4, "T", 3), ("N", 2, "S", 3), ("N", 2, "S", 2), ("T", "M"))
    if form == "window":
        attributes = {"left_window_size": 0, "right_window_size": 1, "softcap": 2.0}
    rng = np.random.default_rng(2)
    x = {i: rng.normal(size=shape) for i, shape in enumerate(shapes)}
    g = {0: rng.normal(size=(2, 4, 3, 2))}
    found, expected = (build(OPS["Attention"], sample(*dims, **attributes)).run_gradient(x, g) for dims in (named, shapes))
    assert found.keys() == expected.keys() == x.keys()
    for i in x:
        np.testing.assert_allclose(found[i], expected[i], rtol=1e-12, atol=1e-12)


def test_attention_refuses_a_mask_of_one_column() -> None:
    """A broadcast has it meant for every key, the padding of short masks for the first one alone."""
    one = build(OPS["Attention"], sample((1, 1, 2, 2), (1, 1, 1, 2), (1, 1, 1, 2), (2, 1)))
    assert one.adjoints.keys() == {0, 1, 2, 3}
    with pytest.raises(GradientRefused, match="extent 1 along the keys"):
        build(OPS["Attention"], sample((1, 1, 2, 2), (1, 1, 3, 2), (1, 1, 3, 2), (2, 1)))


@pytest.mark.parametrize(
    ("name", "x", "attributes", "expected"),
    [
        ("LpNormalization", [[0.0, 0.0], [3.0, 4.0]], {"p": 2}, [[0.0, 0.0], [0.128, -0.096]]),
        ("LpNormalization", [[0.0, 0.0], [1.0, -3.0]], {"p": 1}, [[0.0, 0.0], [0.1875, 0.0625]]),
        ("MeanVarianceNormalization", [[2.0, 2.0]], {"axes": [1]}, [[5e8, -5e8]]),
    ],
)
def test_rows_without_a_length(name: str, x: Any, attributes: Any, expected: Any) -> None:
    """The adjoint (1, 0) of each row."""
    value = np.array(x)
    one = build(OPS[name], sample(value.shape, **attributes))
    found = one.run_gradient({0: value}, {0: np.broadcast_to([1.0, 0.0], value.shape)})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), ("N", 4, 3), ("N", "C", 2, "W"), (1, 3, 1, 2, "W")], ids=str)
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_local_response_of_any_size_and_rank(shape: Any, size: int) -> None:
    """Even sizes look one channel further up than down; ONNX Runtime takes odd ones over images alone."""
    one = build(OPS["LRN"], sample(shape, size=size, alpha=0.5, beta=0.6, bias=1.5))
    _agrees_with_differences(one)


def _agrees_with_differences(one: OneNode) -> None:
    rng = np.random.default_rng(3)
    for n in one.extents:
        x = one.draw(rng, n)
        g = {k: rng.normal(size=np.shape(y)) for k, y in enumerate(one.run_forward(x)) if k in one.seeds}
        v = {k: rng.normal(size=a.shape) for k, a in x.items()}
        ends = [one.run_forward({k: a + t * v[k] for k, a in x.items()}) for t in (1e-6, -1e-6)]
        slope = sum(float(np.vdot(g[k], ends[0][k] - ends[1][k])) for k in g) / 2e-6
        found = one.run_gradient(x, g)
        assert sum(float(np.vdot(v[k], a)) for k, a in found.items()) == pytest.approx(slope, rel=1e-6, abs=1e-6)


# ------------------------------------------------------------------------------------------------- types and sizes


@pytest.mark.parametrize("name", ["LayerNormalization", "RMSNormalization", "GroupNormalization"])
def test_half_precision_computes_where_the_operator_does(name: str) -> None:
    """float16 numbers whose squares overflow, in ONNX Runtime: with statistics in float32 the gradient is right to float16."""
    shapes = {"GroupNormalization": ((2, 4, 3), (4,), (4,)), "RMSNormalization": ((2, 6), (6,))}.get(name, ((2, 6), (6,), (6,)))
    attributes = {"num_groups": 2} if name == "GroupNormalization" else {}
    half, exact = (build(OPS[name], sample(*shapes, **attributes), dtype) for dtype in (ir.DataType.FLOAT16, ir.DataType.DOUBLE))
    rng = np.random.default_rng(5)
    x = {i: rng.normal(size=shape) * (1000.0 if i == 0 else 1.0) for i, shape in enumerate(shapes)}
    g = {0: rng.normal(size=shapes[0])}
    session = onnxruntime.InferenceSession(half.gradient.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(half.adjoints.values()), half.feeds(x, g, np.float16))
    for value, (i, expected) in zip(found, exact.run_gradient(x, g).items(), strict=True):
        assert value.dtype == np.float16
        np.testing.assert_allclose(
            value.astype(np.float64), expected, rtol=0.0, atol=5e-3 * np.abs(expected).max(), err_msg=str(i)
        )


@pytest.mark.parametrize("name", ["RMSNormalization", "GroupNormalization"])
def test_half_precision_stays_where_the_node_says_so(name: str) -> None:
    shapes, more = (((2, 4, 3), (4,), (4,)), {"num_groups": 2}) if name == "GroupNormalization" else (((2, 6), (6,)), {})
    half = build(OPS[name], sample(*shapes, stash_type=int(ir.DataType.FLOAT16), **more), ir.DataType.FLOAT16)
    assert not any(node.op_type == "Cast" for node in half.gradient.graph.node)


@pytest.mark.parametrize(
    ("name", "given", "nodes"),
    [
        ("Attention", sample(("N", 2, "T", 4), ("N", 2, "S", 4), ("N", 2, "S", 4)), 16),
        ("Attention", sample(("N", 4, "T", 4), ("N", 2, "T", 4), ("N", 2, "T", 4), is_causal=1), 33),
        ("Attention", sample(("N", "T", 8), ("N", "S", 8), ("N", "S", 8), q_num_heads=2, kv_num_heads=2), 32),
        ("LayerNormalization", sample(("N", "T", 4), (4,), (4,)), 14),
        ("RMSNormalization", sample(("N", "T", 4), (4,)), 15),  # the operator itself is written out
        ("InstanceNormalization", sample(("N", 3, "H", "W"), (3,), (3,)), 19),
        ("GroupNormalization", sample(("N", 4, "H", "W"), (4,), (4,), num_groups=2), 25),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_number_of_nodes(name: str, given: Any, nodes: int) -> None:
    """Of the gradient by every input in float32, without the operator itself."""
    model = optimize(ir.from_proto(build(OPS[name], given, FLOAT).gradient))
    assert sum(node.op_type not in (name, "Identity") for node in model.graph) <= nodes
