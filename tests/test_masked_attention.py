"""Attention written out, with masks and dropout, and files whose masks are computed: what the expected tier makes of them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import vgcompile
from benchmarks.expected.cases import language_model
from benchmarks.expected.measuring import Sample, sample
from vgcompile import spec, special
from vgcompile.analysis.expected import CANCELS
from vgcompile.analysis.known import extent
from vgcompile.analysis.pipeline import Options, analyze
from vgcompile.analysis.result import Expected
from vgcompile.analysis.uses import uses
from vgcompile.build import build
from vgcompile.graph.network import Network
from vgcompile.ops import OPS
from vgcompile.ops.op import Case
from vgcompile.ops.tables import low_places
from vgcompile.signal import Signal, Table

N, T, D = 300, 12, 48
NOTHING = Expected()
LATE = np.triu(np.ones((T, T), bool), 1)
Q, V, G = Signal(0.0, 1.0, 0.3, 0.0), Signal(0.0, 1.0, 0.4, 0.0), Signal(0.0, 1.0, 0.5, 0.0)


def correlated(rng: Any, x: Signal) -> Any:
    """Tokens [N, T, D] of one mean square, of which two share ``within``."""
    return rng.normal(size=(N, 1, D)) * x.within**0.5 + rng.normal(size=(N, T, D)) * (x.square - x.within) ** 0.5


def parameters_that_cancel(found: Sample) -> set[str]:
    gains = found.tier.gain
    return {use.value.name or "" for use in uses(found.network) if gains.get((use.node, use.position), NOTHING).reason == CANCELS}


@dataclass(frozen=True)
class Node:
    """One operator on its way through attention: its name, what its row reads, and which operand is followed."""

    operator: str
    case: Case
    position: int = 0


def case(*shapes: Any, out: Any, values: Any = (), **attributes: Any) -> Case:
    return Case(attributes, shapes, (out,), (None,) * len(shapes), tuple(values) or (None,) * len(shapes), N)


SCORES = (N, T, T)
PRODUCT = case((N, T, D), (N, D, T), out=SCORES)
WEIGHED = case(SCORES, (N, T, D), out=(N, T, D))
SOFTMAX = Node("Softmax", case(SCORES, out=SCORES, axis=-1))
MASKS = {
    "where": Node("Where", case((T, T), (), SCORES, out=SCORES, values=(LATE, np.array(-np.inf), None)), 2),
    "where_else": Node("Where", case((T, T), SCORES, (), out=SCORES, values=(~LATE, None, np.array(-1e9))), 1),
    "added_infinity": Node("Add", case(SCORES, (T, T), out=SCORES, values=(None, np.where(LATE, -np.inf, 0.0)))),
    "added_number": Node("Add", case((T, T), SCORES, out=SCORES, values=(np.where(LATE, -3.4e38, 0.0), None)), 1),
    "none": Node("Reshape", case(SCORES, out=SCORES)),
}


def dropout(rate: float) -> Node:
    return Node("Dropout", case(SCORES, (), (), out=SCORES, values=(None, np.array(rate), np.array(True))))


def forward(node: Node, x: Signal) -> Signal:
    signals: list[Signal | None] = [None] * len(node.case.shapes)
    signals[node.position] = x
    found = OPS[node.operator].moments.forward(node.case, signals)  # type: ignore[union-attr]
    assert isinstance(found, Signal)
    return found


def backward(node: Node, g: Signal, x: Signal) -> Signal:
    signals: list[Signal | None] = [None] * len(node.case.shapes)
    signals[node.position] = x
    return OPS[node.operator].moments.backward(node.case, node.position, g, signals)  # type: ignore[union-attr]


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_written_out_agrees_with_monte_carlo(mask: str, rate: float) -> None:
    """Value and adjoints of scaled queries, keys and values, operator by operator."""
    rng, product = np.random.default_rng(0), OPS["MatMul"].moments
    assert product is not None
    q, k, v, g = (correlated(rng, x) for x in (Q.scaled(1.0 / D), Q, V, G))
    hidden = LATE if mask != "none" else np.zeros_like(LATE)
    p = special.softmax(np.where(hidden, -np.inf, q @ k.swapaxes(1, 2)), axis=-1)
    kept = (rng.random(p.shape) >= rate) / (1.0 - rate)
    dp = g @ v.swapaxes(1, 2) * kept
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    drawn = [(p * kept) @ v, ds @ k, ds.swapaxes(1, 2) @ q, (p * kept).swapaxes(1, 2) @ g]

    sides = (Q.scaled(1.0 / D), Q)
    nodes = [MASKS[mask], SOFTMAX, *([dropout(rate)] if rate else [])]
    found = [product.forward(PRODUCT, sides)]
    for node in nodes:
        found.append(forward(node, found[-1]))  # type: ignore[arg-type]
    weights: Any = found.pop()
    y: Any = product.forward(WEIGHED, (weights, V))
    adjoint = product.backward(WEIGHED, 0, G, (weights, V))
    for node, x in zip(reversed(nodes), reversed(found), strict=True):
        adjoint = backward(node, adjoint, x)  # type: ignore[arg-type]
    predicted = [
        y,
        *(product.backward(PRODUCT, i, adjoint, sides) for i in (0, 1)),
        product.backward(WEIGHED, 1, G, (weights, V)),
    ]
    for mine, theirs in zip(predicted, drawn, strict=True):
        assert mine.square == pytest.approx((theirs**2).mean(), rel=0.06)
    assert not y.doubt


def test_places_that_are_as_good_as_minus_infinity() -> None:
    """A row of nothing but large negative numbers is a row that was moved, and none that is hidden."""
    rows = np.array([[0.0, -1e4, -np.inf], [-1e9, -1e9, -1e9], [1.0, -5.0, 0.0]])
    assert np.array_equal(low_places(rows), [[False, True, True], [False] * 3, [False] * 3])  # type: ignore[arg-type]
    assert low_places(rows[2:]) is None
    assert low_places(None) is None


def test_rows_and_columns_survive_what_keeps_them() -> None:
    """A transpose turns them, a reshape of other axes keeps them, and a mask does not go where its places are lost."""
    x = Signal(0.0, 1.0, 0.0, 0.0, table=Table(0.5, 0.25, ~LATE))
    heads = (2, 3, T, T)
    turned = forward(Node("Transpose", case(heads, out=heads, perm=[0, 1, 3, 2])), x).table
    assert turned is not None and (turned.row, turned.column) == (0.25, 0.5)
    assert turned.open is not None and np.array_equal(turned.open, ~LATE.T)
    assert forward(Node("Reshape", case(heads, out=(6, T, T))), x).table is x.table
    with pytest.raises(NotImplementedError, match="minus infinity"):
        forward(Node("Reshape", case(heads, out=(6, T * T))), x)


def test_extents_are_worked_out() -> None:
    """Symbols, and expressions of them; what nobody knows stays a symbol."""
    known = {"time": 12, "batch": 4}
    assert [extent(dim, known) for dim in (3, "time", "batch*time", "floor(time/5) + 1")] == [3, 12, 48, 3]
    assert extent("width", known) == "width"
    assert extent("time + width", known) == "time + width"


def test_learned_places_are_shared_by_no_two_positions() -> None:
    """A bias is the same at each position, a table of places at none."""
    x, w = Signal(0.0, 1.0, 0.0, 0.0), Signal(0.0, 0.5, 0.5, 0.5)
    add = OPS["Add"].moments
    assert add is not None
    for shape, within in (((T, D), 0.0), ((1, T, D), 0.0), ((D,), 0.5), ((T, 1), 0.5)):
        found = add.forward(case((N, T, D), shape, out=(N, T, D)), (x, w))
        assert isinstance(found, Signal) and (found.square, found.within, found.across) == (1.5, within, 0.5)


def test_a_mask_that_is_data_is_refused_in_words() -> None:
    node = MASKS["where"]
    unknown = replace(node, case=replace(node.case, values=(None, np.array(-np.inf), None)))
    with pytest.raises(NotImplementedError, match="run time"):
        forward(unknown, Signal(0.0, 1.0, 0.0, 0.0))


ATTENDING = """name: attending
inputs:
  x: {shape: [batch, 24, 128], distribution: normal}
  label: {shape: [batch], type: int64, classes: 10}
init: {weight: pytorch_default, bias: pytorch_default}
layers:
  - {kind: residual, name: block, repeat: 2, layers: [{kind: layer_norm}, {kind: attention, heads: 8, dropout: 0.2, OPTIONS}]}
  - {kind: time_pool, name: pool}
  - {kind: dense, name: logits, units: 10}
loss: {kind: cross_entropy, target: label}
"""


def worst(found: Sample) -> tuple[float, float, set[str]]:
    """Median and largest error of a factor; doubts."""
    errors = [found.local_error(use) for use in found.activations]
    return float(np.median(errors)), max(errors), {found.tier.gain[use.node, use.position].reason for use in found.activations}


@pytest.mark.parametrize("options", ["causal: false", "kv_heads: 2", "rotary: true"])
def test_attention_with_dropout(options: str) -> None:
    """All heads of their own, and heads that share keys and values."""
    median, most, doubt = worst(sample(ATTENDING.replace("OPTIONS", options), batch=8, seeds=3))
    assert median < 0.02 and most < 0.1 and doubt == {""}


def test_a_language_model() -> None:
    """A causal mask, dropout on the weights and learned places. The norms before attention, whose adjoints meet in the first
    positions, are off by more."""
    found = sample(language_model(2, 64, 4, 32, 500), batch=4, seeds=3)
    median, most, doubt = worst(found)
    predicted, measured, _ = found.ends()
    assert {name.split("/")[1] for name in parameters_that_cancel(found)} == {"1", "2"}
    assert all(name.endswith("attention/key/bias") for name in parameters_that_cancel(found))
    assert median < 0.02 and most < 0.12 and doubt == {""}
    assert predicted == pytest.approx(float(measured.mean()), abs=0.03)


def exported(tmp_path: Path, mask: str) -> Network:
    """A head of attention over a number of positions that only data tell, behind a mask that the graph computes."""
    body = f"""
        <ir_version: 10, opset_import: ["" : 21]>
        net (float[N, T, 64] x, int64[N, T] seen) => (float[N, T, 64] y) {{
            q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  kt = Transpose<perm = [0, 2, 1]>(k)
            s = MatMul(q, kt)  e = Mul(s, scale)  sh = Shape<start = 1, end = 2>(x)  n = Squeeze(sh)  i = Range(zero, n, one)
            row = Unsqueeze(i, last)  late = Greater(i, row)  {mask}
            p = Softmax<axis = -1>(m)  z = MatMul(p, v)  y = MatMul(z, wo)
        }}"""
    model, rng = parser.parse_model(body), np.random.default_rng(0)
    known: dict[str, Any] = {f"w{name}": rng.normal(size=(64, 64)).astype(np.float32) / 8.0 for name in "qkvo"}
    known |= {"scale": np.float32(0.125), "zero": np.int64(0), "one": np.int64(1), "last": np.int64([1]), "axis": np.int64([1])}
    known |= {"minus": np.float32(-np.inf), "low": np.float32(-1e9), "nil": np.float32(0.0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in known.items())
    onnx.save(model, tmp_path / "net.onnx")
    return vgcompile.open_network(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "mask",
    [
        "m = Where(late, minus, e)",
        "f = Where(late, low, nil)  m = Add(e, f)",
        "u = Unsqueeze(seen, axis)  b = Equal(u, zero)  h = Or(late, b)  m = Where(h, minus, e)",
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_a_file_whose_mask_is_computed(tmp_path: Path, mask: str, padded: bool) -> None:
    """Extents come from the data, and a mask from them. What the data hide is known where all samples hide the same."""
    network, rng = exported(tmp_path, mask), np.random.default_rng(0)
    seen = np.ones((8, 20), np.int64)
    seen[::2, -4:] = 0 if padded else 1
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(8, 20, 64)).astype(np.float32), seen=seen)
    found = analyze(network, Options(data=str(tmp_path / "data.npz"), tiers=("expected", "measured")))
    reasons = {edge.gain.expected.reason for edge in found.edges if edge.source == "x" and edge.gain.expected is not None}
    if padded and "seen" in mask:
        assert any("differs from sample to sample" in reason for reason in reasons)
        return
    assert reasons == {""}
    for edge in found.edges:
        expected, measured = edge.gain.expected, edge.gain.measured
        if edge.role == "activation" and expected is not None and expected.mean is not None:
            assert expected.mean == pytest.approx(measured, abs=0.06), edge.id


def test_a_class_token_smaller_than_the_words_gets_the_gradient_that_its_norm_gives_it() -> None:
    """It starts at 0.02 where words are of size 1: the first norm divides by that, which no mean over positions tells."""
    text = """
    inputs: {x: {shape: [batch, 24, 32], distribution: normal}, t: {shape: [batch], type: int64, classes: 10}}
    init: {weight: {kind: normal, sd: 0.15}, bias: zeros}
    layers:
      - {kind: class_token, name: token, init: {weight: {kind: normal, sd: 0.02}}}
      - {kind: transformer_encoder, name: block, repeat: 2, heads: 4, norm: pre}
      - {kind: layer_norm, name: norm}
      - {kind: select, name: first, axis: 1, index: 0}
      - {kind: dense, name: logits, units: 10}
    loss: {kind: cross_entropy, target: t}
    """
    network = build(spec.loads(textwrap.dedent(text)))
    analysis = analyze(network, Options(tiers=("expected", "measured"), batch=16, seeds=8))
    edges = {edge.id: edge.gain for edge in analysis.edges}
    joined = ["/token/Concat_2#0", "/token/Concat_2#1"]
    for edge in joined:
        assert edges[edge].expected.mean == pytest.approx(edges[edge].measured, abs=0.15)
    token, words = (edges[edge].measured for edge in joined)
    assert token > words + 1.0
