"""Operators outside the standard, and old ones that ONNX's converter spoils: opened, they compute the same.

The oracle is ONNX Runtime on the file as it was: its own kernels for its own operators; of gradients, differences in float64.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from tests.contrib_cases import CASES, F, Foreign
from tests.old_opsets import CASES as OLD
from tests.old_opsets import Old
from tests.reference import evaluator, in_float64
from tests.test_normalize import assert_typed, model_of, run, written_out
from vgcompile.derivatives import gradients
from vgcompile.errors import ModelError
from vgcompile.graph.contrib import DOMAIN, FORMULAS
from vgcompile.graph.emit import dims
from vgcompile.graph.normalize import normalized

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(1)
STEPS = ("QuantizeLinear", "DequantizeLinear")  # on bytes


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("given", CASES, ids=lambda given: given.name)
def test_an_operator_of_onnx_runtime(given: Foreign, symbolic: bool) -> None:
    model, feeds = given.model(symbolic)
    if symbolic and given.name == "Attlen":  # how many words count, for a batch of any size: the mask has one size
        with pytest.raises(ModelError, match=r"Attention \(node node\) is not covered"):
            normalized(model)
        return
    opened = normalized(model)
    assert_typed(opened)
    found = run(written_out(opened), feeds)
    for truth, value in zip(given.truth() or run(model, feeds), found, strict=True):
        assert truth.shape == value.shape
        np.testing.assert_allclose(value, truth, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("given", [c for c in CASES if c.operator not in STEPS], ids=lambda given: given.name)
def test_its_gradient(given: Foreign) -> None:
    """Along a random direction of all inputs and weights, against differences of the opened forward."""
    model, feeds = given.model(symbolic=False)
    asked = gradients(model, wrt="all", seed_input=True)
    joint = evaluator(in_float64(asked.model).SerializeToString())
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} | feeds
    at = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in values.items()}
    outputs = dict(zip((value.name for value in model.graph.output), run(written_out(normalized(model)), feeds), strict=True))
    adjoints = {root: RNG.standard_normal(outputs[root].shape) for root in asked.root}
    direction = {name: RNG.standard_normal(at[name].shape) for name in asked.by}

    def found(outputs: Iterable[str], far: float) -> list[Any]:
        moved = {name: at[name] + far * by for name, by in direction.items()}
        return joint.run(list(outputs), at | moved | {f"adj.{root}": g for root, g in adjoints.items()})  # type: ignore[return-value]

    ahead, behind = (
        sum(np.sum(g * y) for g, y in zip(adjoints.values(), found(adjoints, far), strict=True)) for far in (1e-6, -1e-6)
    )
    slope = sum(np.sum(g * by) for g, by in zip(found(asked.by.values(), 0.0), direction.values(), strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-6)


def test_every_formula_has_its_case() -> None:
    assert {*FORMULAS} - {given.operator for given in CASES} == {"TransposeMatMul", "Range"}  # older names


def test_the_manual_names_them() -> None:
    """docs/gradients.md lists every operator that is opened."""
    listed = Path("docs/gradients.md").read_text().split("### ONNX Runtime's operators")[1].split("\n\n")[2]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(FORMULAS)


def values(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Any]:
    """ONNX Runtime's, or the reference evaluator's where it has no kernel."""
    try:
        return run(model, feeds)
    except Exception:
        return ReferenceEvaluator(model).run(None, feeds)  # type: ignore[no-any-return]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("old", OLD, ids=lambda old: old.name)
def test_an_old_operator_computes_what_it_did(old: Old, symbolic: bool) -> None:
    model = old.model(symbolic)
    if symbolic and old.name.startswith("Squeeze") and old.name.endswith("none"):  # its rank depends on the batch
        with pytest.raises(ModelError, match="cannot be inferred"):
            normalized(model)
        return
    given = normalized(model)
    assert given.model.opset_imports[""] == 21
    assert_typed(given)
    for before, after in zip(values(model, old.inputs), values(written_out(given), old.inputs), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_old_softmax_behind_a_foreign_operator() -> None:
    """The converter does not know its rank: it would leave the axis and change the meaning."""
    text = """<ir_version: 8, opset_import: ["": 11, "com.microsoft": 1]> m (float[N, 3, 4] x) => (float[N, 3, 4] y)
    { g = com.microsoft.Gelu(x)  y = Softmax<axis = 1>(g) }"""
    model, x = parser.parse_model(text), F(2, 3, 4)
    given = normalized(model)
    assert given.notes[1] == "model.onnx: written in standard operators: com.microsoft::Gelu"
    np.testing.assert_allclose(run(written_out(given), {"x": x})[0], run(model, {"x": x})[0], rtol=1e-5)


def test_batch_statistics_of_an_old_file() -> None:
    """Before opset 14, several outputs say that it trains."""
    outputs = ["y", "m2", "v2", "m3", "v3"]
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], outputs)
    held = [numpy_helper.from_array(np.full(3, k, np.float32), name) for name, k in (("s", 2), ("b", 1), ("m", 0), ("v", 1))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y"))
    model = helper.make_model(helper.make_graph([node], "m", [x], [y], held), opset_imports=[helper.make_opsetid("", 9)])
    model.ir_version = 7
    data = F(8, 3)
    truth = 2 * (data - data.mean(0)) / np.sqrt(data.var(0) + 1e-5) + 1
    np.testing.assert_allclose(run(written_out(normalized(model)), {"x": data})[0], truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            "com.example.Fused(x)",
            "operators outside the ONNX standard: com.example::Fused; export to standard operators, unfused",
        ),
        ("com.microsoft.Inverse(x)", "com.microsoft::Inverse"),
        ('com.microsoft.FusedGemm<activation = "Mystery">(x, x)', r"FusedGemm \(node n\) is not covered: its activation Mystery"),
        ("com.microsoft.BiasGelu(x)", r"BiasGelu \(node n\) is not covered"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(node: str, message: str) -> None:
    text = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "com.example": 1]>'
    model = parser.parse_model(text + f" m (float[2, 2] x) => (float[2, 2] y) {{ y = {node} }}")
    model.graph.node[0].name = "n"
    with pytest.raises(ModelError, match=message):
        normalized(model)


PAST = np.zeros((1, 1, 2, 8), np.float32)
ONES = np.ones(8, np.float32)
TWO_GROUPS = {"groups": 2, "activation": 0}


@pytest.mark.parametrize(
    ("operator", "operands", "attributes", "message"),
    [
        ("GroupQueryAttention", {3: PAST, 4: PAST}, {}, "it carries a cache of past keys"),
        ("GroupQueryAttention", {14: ONES, 15: ONES}, {}, "it scales its cache, normalizes its heads"),
        ("GroupQueryAttention", {}, {"causal": 0}, "it looks ahead"),
        ("GroupQueryAttention", {}, {"sliding_window_cache": 1}, "it carries a cache of past keys"),
        ("GroupQueryAttention", {}, {"do_rotary": 1}, "it rotates, by nothing"),
        ("NhwcConv", {1: np.ones((4, 8, 1, 3), np.float32)}, {"kernel_shape": [1, 3]}, r"its kernels are not \[M, places"),
        (
            "SkipGroupNorm",
            {1: ONES, 2: ONES, 3: ONES},
            {"channels_last": 0, "groups": 2, "activation": 0},
            "its channels come first",
        ),
        ("GatedAdd", {1: ONES, 2: ONES, 3: ONES}, {}, "it projects its gate inside"),
        ("CDist", {1: ONES}, {"metric": "cosine"}, "its metric cosine is not known"),
    ],
)
def test_a_form_that_is_not_covered(operator: str, operands: dict[int, Array], attributes: dict[str, Any], message: str) -> None:
    """The first input is [1, 4, 8]; of a grouped attention all three are, with a head each for queries, keys and values."""
    x = F(1, 4, 8)
    if operator == "GroupQueryAttention":
        lengths = {5: np.array([3], np.int32), 6: np.array(4, np.int32)}
        operands, attributes = {1: x, 2: x, **lengths, **operands}, {"num_heads": 1, "kv_num_heads": 1, **attributes}
    inputs = [x, *(operands.get(index) for index in range(1, max(operands) + 1))]
    model, _ = Foreign("refused", operator, inputs, range(1), DOMAIN, 17, attributes).model(symbolic=False)
    with pytest.raises(ModelError, match=rf"{operator} \(node node\) is not covered: {message}"):
        normalized(model)


def test_a_grouped_attention_of_any_length() -> None:
    """With a window and rotations; lengths go in as they do in exported decoders."""
    given = next(case for case in CASES if case.name == "GQArot")
    model, feeds = given.model(symbolic=True)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "S"
    lengths, total = (next(t for t in model.graph.initializer if t.name == name) for name in ("i5", "i6"))
    for tensor, shape in ((lengths, ["N"]), (total, [])):
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.INT32, shape))
        model.graph.initializer.remove(tensor)
    assert_typed(normalized(model))
    joint = gradients(model, wrt="inputs", seed_input=True).model
    for n, s in ((1, 3), (2, 5)):
        short = {name: x[:n, :s] for name, x in feeds.items()}
        counts = {"i5": np.full(n, s - 1, np.int32), "i6": np.array(s, np.int32)}
        truths = run(model, short | counts)
        seeds = {f"adj.y.o{index}": np.ones_like(y) for index, y in enumerate(truths)}
        found = run(joint, short | counts | seeds)
        np.testing.assert_allclose(found[0], truths[0], rtol=1e-4, atol=2e-5)
        assert [y.shape for y in found[len(truths) :]] == [x.shape for x in short.values()]


def test_a_causal_attention_of_16_bits_hides_what_comes_later() -> None:
    """The least float32 is minus infinity there, and 0 times it no number."""
    node = helper.make_node("Attention", ["x", "w"], ["y"], domain=DOMAIN, num_heads=2, unidirectional=1)
    x, w = F(1, 3, 8).astype(np.float16), F(8, 24).astype(np.float16)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in (("x", [1, 3, 8]), ("y", None))]
    graph = helper.make_graph([node], "half", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)], ir_version=8)
    (y,) = run(written_out(normalized(model)), {"x": x})
    np.testing.assert_allclose(y[0, 0], x[0, 0] @ w[:, 16:], rtol=1e-2, atol=1e-2)  # the first word sees itself alone


def test_an_old_operator_behind_a_reshape_whose_shape_is_put_together() -> None:
    """PyTorch computes the axis to unflatten: the rank is known once that is worked out."""
    text = """<ir_version: 8, opset_import: ["": 13]> m (float[N, 8] x) => (float[] y) {
      a = Add(one, two)  b = Mod(a, two)  r = Reshape(b, vector)  s = Shape(x)  front = Slice(s, zero, r)
      shape = Concat<axis = 0>(front, back)  u = Reshape(x, shape)
      n, m1, v1, m2, v2 = BatchNormalization(u, w, w, w, w)  y = ReduceSum<keepdims = 0>(n)
    }"""
    constants = {
        "one": np.int64(1),
        "two": np.int64(2),
        "vector": np.int64([-1]),
        "zero": np.int64([0]),
        "back": np.int64([2, 4]),
    }
    given = normalized(model_of(text, **constants, w=np.ones(2, np.float32)))
    assert_typed(given)
    reshaped = next(node.outputs[0] for node in given.model.graph if node.op_type == "Reshape")
    assert dims(reshaped) == ("N", 2, 4)
