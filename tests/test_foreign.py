"""Operators outside the standard, and old ones that ONNX's converter spoils: opened, they compute the same.

The oracle is ONNX Runtime on the file as it was: its own kernels for its own operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from tests.old_opsets import CASES as OLD
from tests.old_opsets import Old
from tests.test_normalize import assert_typed, model_of, run, written_out
from vgcompile.errors import ModelError
from vgcompile.graph.contrib import DOMAIN, FORMULAS
from vgcompile.graph.contrib_attention import FORMULAS as ATTENTION
from vgcompile.graph.emit import dims
from vgcompile.graph.normalize import normalized

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Foreign:
    """A node; its first input and what has three axes or more are inputs of the model, the others initializers."""

    name: str
    operator: str
    inputs: Sequence[Array | None]
    outputs: Sequence[int]
    domain: str
    opset: int
    attributes: dict[str, Any]

    def model(self, symbolic: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
        operands = ["" if value is None else f"i{index}" for index, value in enumerate(self.inputs)]
        given: dict[str, Array] = {}
        held = []
        for name, value in zip(operands, self.inputs, strict=True):
            if value is not None and (name == "i0" or (value.dtype.kind == "f" and value.ndim > 2)):
                given[name] = value
            elif value is not None:
                held.append(numpy_helper.from_array(value, name))
        batch = given["i0"].shape[:1]
        infos = [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(value.dtype),
                ["N", *value.shape[1:]] if symbolic and batch and value.shape[:1] == batch else list(value.shape),
            )
            for name, value in given.items()
        ]
        names = [f"o{index}" if index in self.outputs else "" for index in range(max(self.outputs) + 1)]
        nodes = [helper.make_node(self.operator, operands, names, domain=self.domain, name="node", **self.attributes)]
        nodes += [helper.make_node("Identity", [name], [f"y.{name}"]) for name in names if name]
        integers = {"QuantizeLinear": TensorProto.UINT8, "EmbedLayerNormalization": TensorProto.INT32}
        kinds = {f"y.o{1 if 'Embed' in self.operator else 0}": integers[self.operator]} if self.operator in integers else {}
        outputs = [
            helper.make_tensor_value_info(f"y.{name}", kinds.get(f"y.{name}", TensorProto.FLOAT), None) for name in names if name
        ]
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(DOMAIN, 1)]
        graph = helper.make_graph(nodes, "foreign", infos, outputs, held)
        return helper.make_model(graph, opset_imports=imports, ir_version=8), given


CASES: list[Foreign] = []


def case(
    name: str,
    op: str,
    ins: Sequence[Any],
    outs: int | Sequence[int] = 1,
    domain: str = DOMAIN,
    opset: int = 17,
    **attributes: Any,
) -> None:
    CASES.append(Foreign(name, op, ins, range(outs) if isinstance(outs, int) else outs, domain, opset, attributes))


def F(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def I(high: int, *shape: int, t: Any = np.int32) -> Array:  # noqa: E743
    return RNG.integers(0, high, shape).astype(t)


case("Gelu", "Gelu", [F(2, 3)])
case("FastGelu", "FastGelu", [F(2, 3)])
case("FastGelub", "FastGelu", [F(2, 3), F(3)])
case("BiasGelu", "BiasGelu", [F(2, 3), F(3)])
case("QuickGelu", "QuickGelu", [F(2, 3)])
case("QuickGelua", "QuickGelu", [F(2, 3)], alpha=1.5)
case("BiasSoftmax", "BiasSoftmax", [F(2, 4, 3, 3), F(2, 1, 1, 3)], axis=3, is_inner_broadcast=0)
case("BiasSoftmaxin", "BiasSoftmax", [F(2, 4, 3, 3), F(1, 1, 3, 3)], axis=3, is_inner_broadcast=1)
for k in ({}, {"transA": 1}, {"transB": 1}, {"alpha": 0.5}):
    a = F(2, 4, 4)
    b = F(2, 4, 4)
    case(f"FusedMatMul{k}", "FusedMatMul", [a, b], **k)
case("FMMbatchA", "FusedMatMul", [F(3, 2, 4), F(2, 4, 5)], transBatchA=1)
case("FMMbatchAT", "FusedMatMul", [F(4, 2, 3), F(2, 4, 5)], transBatchA=1, transA=1)
case("FMMbatchB", "FusedMatMul", [F(2, 3, 4), F(4, 2, 5)], transBatchB=1)
case("FusedGemm", "FusedGemm", [F(2, 3), F(3, 4), F(4)], activation="Relu")
case("FusedGemmL", "FusedGemm", [F(2, 3), F(3, 4), F(4)], activation="LeakyRelu", activation_alpha=0.2, alpha=0.5)
for act, par in (("Relu", None), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.2, 0.5]), ("Tanh", None)):
    case(
        f"FusedConv{act}",
        "FusedConv",
        [F(1, 4, 5, 5), F(4, 4, 3, 3), F(4)],
        activation=act,
        pads=[1, 1, 1, 1],
        **({"activation_params": par} if par else {}),
    )
case("FusedConvZ", "FusedConv", [F(1, 4, 5, 5), F(4, 4, 3, 3), F(4), F(1, 4, 5, 5)], activation="Relu", pads=[1, 1, 1, 1])
case("SLN", "SkipLayerNormalization", [F(2, 3, 4), F(2, 3, 4), F(4), F(4), F(4)], outs=[0, 3], epsilon=1e-5)
case("SLN2", "SkipLayerNormalization", [F(2, 3, 4), F(2, 3, 4), F(4)], outs=1, epsilon=1e-5)
case("SSLN", "SkipSimplifiedLayerNormalization", [F(2, 3, 4), F(2, 3, 4), F(4)], outs=[0, 3], epsilon=1e-5)
case("SimpLN", "SimplifiedLayerNormalization", [F(2, 3, 4), F(4)], domain="", axis=-1, epsilon=1e-5)
case("SimpLN2", "SimplifiedLayerNormalization", [F(2, 3, 4), F(4)], domain="", outs=2, axis=-1, epsilon=1e-5)
case("LN11", "LayerNormalization", [F(2, 3, 4), F(4), F(4)], domain="", opset=11, axis=-1, epsilon=1e-5)
case("Emb", "EmbedLayerNormalization", [I(5, 2, 3), I(2, 2, 3), F(5, 4), F(7, 4), F(2, 4), F(4), F(4)], outs=2)
case(
    "Embmask",
    "EmbedLayerNormalization",
    [I(5, 2, 3), I(2, 2, 3), F(5, 4), F(7, 4), F(2, 4), F(4), F(4), np.array([[1, 1, 0], [1, 1, 1]], np.int32)],
    outs=[0, 1],
)
case("Embpos", "EmbedLayerNormalization", [I(5, 2, 3), None, F(5, 4), F(7, 4), None, F(4), F(4), None, I(7, 2, 3)], outs=2)
case("Attention", "Attention", [F(2, 3, 8), F(8, 24), F(24)], num_heads=2)
case("Attmask", "Attention", [F(2, 3, 8), F(8, 24), F(24), np.array([[1, 1, 0], [1, 1, 1]], np.int32)], num_heads=2)
case("Attlen", "Attention", [F(2, 3, 8), F(8, 24), F(24), np.array([2, 3], np.int32)], num_heads=2)
case("Att3d", "Attention", [F(2, 3, 8), F(8, 24), F(24), I(2, 2, 3, 3)], num_heads=2)
case("Attcausal", "Attention", [F(2, 3, 8), F(8, 24), F(24)], num_heads=2, unidirectional=1)
case("Attbias", "Attention", [F(2, 3, 8), F(8, 24), F(24), None, None, F(2, 2, 3, 3)], num_heads=2, scale=0.3)
case("Attsizes", "Attention", [F(2, 3, 8), F(8, 20), F(20)], num_heads=2, qkv_hidden_sizes=[8, 8, 4])
case("MHA", "MultiHeadAttention", [F(2, 3, 8), F(2, 5, 8), F(2, 5, 8)], num_heads=2)
case(
    "MHAb",
    "MultiHeadAttention",
    [F(2, 3, 8), F(2, 5, 8), F(2, 5, 4), F(20), np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]], np.int32)],
    num_heads=2,
)
case("MHAbias", "MultiHeadAttention", [F(2, 3, 8), F(2, 5, 8), F(2, 5, 8), None, None, F(1, 2, 3, 5)], num_heads=2)
case("MHAcausal", "MultiHeadAttention", [F(2, 3, 8), F(2, 3, 8), F(2, 3, 8)], num_heads=2, unidirectional=1)
case("MHA4", "MultiHeadAttention", [F(2, 3, 8), F(2, 2, 5, 4), F(2, 2, 5, 4)], num_heads=2)
case("Rot", "RotaryEmbedding", [F(2, 3, 8), I(6, 2, 3, t=np.int64), F(6, 2), F(6, 2)])
case("Rot1", "RotaryEmbedding", [F(2, 3, 8), np.array([2], np.int64), F(6, 2), F(6, 2)])
case("Roti", "RotaryEmbedding", [F(2, 3, 8), I(6, 2, 3, t=np.int64), F(6, 2), F(6, 2)], interleaved=1)
case("Rot4", "RotaryEmbedding", [F(2, 2, 3, 4), I(6, 2, 3, t=np.int64), F(6, 2), F(6, 2)])
case("Rotp", "RotaryEmbedding", [F(2, 3, 8), I(6, 2, 3, t=np.int64), F(6, 1), F(6, 1)], rotary_embedding_dim=2, num_heads=2)
case("NB4", "MatMulNBits", [F(2, 40), I(256, 6, 3, 8, t=np.uint8), np.abs(F(18))], N=6, K=40, bits=4, block_size=16)
case(
    "NB4z",
    "MatMulNBits",
    [F(2, 40), I(256, 6, 3, 8, t=np.uint8), np.abs(F(18)), I(256, 12, t=np.uint8)],
    N=6,
    K=40,
    bits=4,
    block_size=16,
)
case(
    "NB4b",
    "MatMulNBits",
    [F(2, 3, 32), I(256, 6, 2, 8, t=np.uint8), np.abs(F(6, 2)), None, None, F(6)],
    N=6,
    K=32,
    bits=4,
    block_size=16,
)
case("NB8", "MatMulNBits", [F(2, 32), I(256, 6, 2, 16, t=np.uint8), np.abs(F(12))], N=6, K=32, bits=8, block_size=16)
case("DQ", "DequantizeLinear", [I(256, 2, 3, t=np.uint8), np.float32(0.1).reshape(()), np.array(3, np.uint8)])
case("Q", "QuantizeLinear", [F(2, 3), np.array(0.1, np.float32), np.array(3, np.uint8)])
case("Trilu", "Trilu", [F(3, 3)], upper=0)
case("Exp", "ExpandDims", [F(3, 3), np.array(1, np.int32)])
case("GND", "GatherND", [F(4, 2), np.array([[1], [3]], np.int64)])


UNIMPLEMENTED = ("BiasSoftmax",)  # ONNX Runtime has no CPU kernel: the softmax of the sum is the oracle


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
    if given.operator in UNIMPLEMENTED:
        e = np.exp(given.inputs[0] + given.inputs[1])  # type: ignore[operator]
        np.testing.assert_allclose(found[0], e / e.sum(-1, keepdims=True), rtol=1e-5)
        return
    for truth, value in zip(run(model, feeds), found, strict=True):
        assert truth.shape == value.shape
        np.testing.assert_allclose(value, truth, rtol=1e-4, atol=2e-5)


def test_every_formula_has_its_case() -> None:
    assert {*FORMULAS, *ATTENTION} - {given.operator for given in CASES} == {"TransposeMatMul", "Range"}  # older names


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
