"""ONNX Runtime's own operators, each in its forms: what tests/test_foreign.py opens.

What its CPU build has no kernel for has a truth of its own, in PyTorch or NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as nn
from onnx import TensorProto, helper, numpy_helper

from vgcompile.graph.contrib import DOMAIN

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Foreign:
    """A node. Its first input, and what has three axes and is not empty, are the model's inputs, the others initializers."""

    name: str
    operator: str
    inputs: Sequence[Array | None]
    outputs: Sequence[int]
    domain: str
    opset: int
    attributes: dict[str, Any]

    def truth(self) -> list[Array] | None:
        """What it computes, where ONNX Runtime's CPU build does not."""
        known = TRUTHS.get(self.name) or TRUTHS.get(self.operator)
        if known is None:
            return None
        made = known(*(None if x is None else torch.from_numpy(x) for x in self.inputs), **self.attributes)
        outputs = made if isinstance(made, tuple) else (made,)
        return [outputs[index].numpy() for index in self.outputs]

    def model(self, symbolic: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
        operands = ["" if value is None else f"i{index}" for index, value in enumerate(self.inputs)]
        given: dict[str, Array] = {}
        held = []
        for name, value in zip(operands, self.inputs, strict=True):
            if value is not None and (name == "i0" or (value.dtype.kind == "f" and value.ndim > 2 and value.size)):
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
case("ScaledSiLU", "ScaledSiLU", [F(2, 3)], alpha=1.5)
case("ScaledSiLUs", "ScaledSiLU", [F(2, 3), np.array(0.7, np.float32)])
case("GatedAdd", "GatedAdd", [F(2, 3, 4), F(2, 3, 4), F(2, 3, 1)])
case("GatedRMS", "GatedRMSNorm", [F(2, 3, 8), F(4), F(2, 3, 8)], epsilon=1e-3)
case("GatedRMSs", "GatedRMSNorm", [F(2, 3, 4), F(4), F(2, 3, 4)], activation="sigmoid")
case("CDist", "CDist", [F(2, 3), F(4, 3)])
case("CDiste", "CDist", [F(2, 3), F(4, 3)], metric="euclidean")
case("Pad", "Pad", [F(2, 3), np.array([0, 1, 0, 2], np.int64), np.array([0.5], np.float32)])
case("Padrow", "Pad", [F(2, 3), np.array([[0, 1, 0, 2]], np.int64)], mode="reflect")
case("Unfold", "UnfoldTensor", [F(2, 7)], size=3, step=2)
case("Unfolddim", "UnfoldTensor", [F(2, 5, 3)], size=2, dim=1)
for sampled in ("bilinear", "bicubic"):
    case(f"Grid{sampled}", "GridSample", [F(2, 3, 4, 5), F(2, 2, 3, 2) / 2], mode=sampled, padding_mode="border")

# a query of 4 heads, keys and values of 2
Q, K, V = F(2, 5, 32), F(2, 5, 16), F(2, 5, 16)
LENGTHS: list[Any] = [np.full(2, 4, np.int32), np.array(5, np.int32)]
FIRST = [None, None, *LENGTHS]
GROUPS = {"num_heads": 4, "kv_num_heads": 2}
case("GQA", "GroupQueryAttention", [Q, K, V, *FIRST], outs=3, **GROUPS)
case("GQA1", "GroupQueryAttention", [Q, F(2, 5, 32), F(2, 5, 32), *FIRST], num_heads=4, kv_num_heads=4, scale=0.3)
case("GQApacked", "GroupQueryAttention", [F(2, 5, 64), None, None, *FIRST], outs=3, **GROUPS)
case("GQApast", "GroupQueryAttention", [Q, K, V, F(2, 2, 0, 8), F(2, 2, 0, 8), *LENGTHS], outs=3, **GROUPS)
case("GQAwindow", "GroupQueryAttention", [Q, K, V, *FIRST], local_window_size=2, **GROUPS)
case("GQAcap", "GroupQueryAttention", [Q, K, V, *FIRST, *[None] * 3, F(1, 4, 5, 5)], softcap=0.7, **GROUPS)
case("GQAsmooth", "GroupQueryAttention", [Q, K, V, *FIRST], smooth_softmax=1, **GROUPS)
case("GQAsink", "GroupQueryAttention", [Q, K, V, *FIRST, *[None] * 4, F(4)], local_window_size=3, **GROUPS)
WIDE = [F(2, 5, 64), F(2, 5, 32), F(2, 5, 32), *FIRST, F(9, 8), F(9, 8)]
PLACES = np.array([[3, 9, 9, 9, 9], [9, 9, 9, 9, 9]], np.int64)  # of which the first counts
case("GQArot", "GroupQueryAttention", WIDE, outs=3, do_rotary=1, **GROUPS)
case("GQAroti", "GroupQueryAttention", WIDE, do_rotary=1, rotary_interleaved=1, **GROUPS)
case("GQArotat", "GroupQueryAttention", [*WIDE, PLACES], do_rotary=1, **GROUPS)
case("GQArotno", "GroupQueryAttention", WIDE, **GROUPS)
case("GQArotpart", "GroupQueryAttention", [F(2, 5, 256), None, None, *FIRST, F(9, 8), F(9, 8)], do_rotary=1, **GROUPS)

Truth = Callable[..., Any]
TRUTHS: dict[str, Truth] = {}  # of what ONNX Runtime's CPU build has no kernel for


def first(x: Any) -> Any:
    return torch.movedim(x, -1, 1)


def last(x: Any) -> Any:
    return torch.movedim(x, 1, -1)


def truth(operator: str, given: Truth) -> None:
    TRUTHS[operator] = given


def conv(x: Any, w: Any, b: Any = None, *, pads: Any, strides: Any = (1, 1), group: int = 1, **_: Any) -> Any:
    return last(nn.conv2d(first(x), w, b, stride=tuple(strides), padding=tuple(pads[:2]), groups=group))


def group_norm(x: Any, gamma: Any, beta: Any, *, groups: int, activation: int, channels_last: int = 1) -> Any:
    y = nn.group_norm(first(x) if channels_last else x, groups, gamma, beta)
    y = nn.silu(y) if activation else y
    return last(y) if channels_last else y


def skip_group_norm(x: Any, gamma: Any, beta: Any, skip: Any, bias: Any = None, **attributes: Any) -> Any:
    total = x + (skip[:, None, None] if skip.ndim == 2 else skip) + (0.0 if bias is None else bias)
    return group_norm(total, gamma, beta, **attributes), total


def split_gelu(x: Any, bias: Any) -> Any:
    left, right = torch.chunk(x + bias, 2, -1)
    return left * nn.gelu(right)


def packed_attention(query: Any, key: Any = None, *, num_heads: int) -> Any:
    q, k, v = query.unbind(3) if key is None else (query.unflatten(-1, (num_heads, -1)), *key.unbind(3))
    return nn.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2).flatten(2)


truth("BiasSoftmax", lambda x, bias, **_: torch.softmax(x + bias, -1))
truth("BiasAdd", lambda x, bias, skip: x + bias + skip)
truth("BiasSplitGelu", split_gelu)
truth("FusedMatMulActivation", lambda a, b, **_: nn.leaky_relu(0.5 * a @ b.mT, 0.2))
truth("GemmFastGelu", lambda x, w, bias=0.0: nn.gelu(x @ w + bias, approximate="tanh"))
truth("NhwcConv", lambda x, w, b=None, **attributes: conv(x, first(w), b, **attributes))
truth("NhwcFusedConv", lambda x, w, b, z, **attributes: nn.relu(conv(x, w, b, **attributes) + z))
truth("GroupNorm", group_norm)
truth("SkipGroupNorm", skip_group_norm)

case("BiasAdd", "BiasAdd", [F(2, 3, 4), F(4), F(2, 3, 4)])
case("BiasSplitGelu", "BiasSplitGelu", [F(2, 3, 8), F(8)])
case("FMMA", "FusedMatMulActivation", [F(2, 3, 4), F(2, 5, 4)], activation="LeakyRelu", activation_alpha=0.2, alpha=0.5, transB=1)
case("GemmFG", "GemmFastGelu", [F(2, 3, 4), F(4, 5)])
case("GemmFGb", "GemmFastGelu", [F(2, 3, 4), F(4, 5), F(5)])
case("NhwcConv", "NhwcConv", [F(2, 5, 6, 4), F(8, 3, 3, 4), F(8)], pads=[1, 1, 1, 1], strides=[2, 1], kernel_shape=[3, 3])
case("NhwcConvg", "NhwcConv", [F(2, 5, 6, 4), F(8, 3, 2, 2)], pads=[0, 0, 0, 0], group=2)
case("NhwcFC", "NhwcFusedConv", [F(2, 5, 6, 4), F(8, 4, 3, 3), F(8), F(2, 5, 6, 8)], pads=[1, 1, 1, 1], activation="Relu")
for silu in (0, 1):
    case(f"GN{silu}", "GroupNorm", [F(2, 3, 5, 6), F(6), F(6)], groups=3, activation=silu)
case("GNfirst", "GroupNorm", [F(2, 6, 3, 5), F(6), F(6)], groups=2, activation=1, channels_last=0)
case("SGN", "SkipGroupNorm", [F(2, 3, 5, 6), F(6), F(6), F(2, 3, 5, 6), F(6)], outs=2, groups=3, activation=1)
case("SGNrow", "SkipGroupNorm", [F(2, 3, 5, 6), F(6), F(6), F(2, 1, 1, 6)], groups=3, activation=0)
case("SGNrow2", "SkipGroupNorm", [F(2, 3, 5, 6), F(6), F(6), F(2, 6)], groups=3, activation=0)
case("MHAqkv", "MultiHeadAttention", [F(2, 5, 2, 3, 4)], num_heads=2)
case("MHAkv", "MultiHeadAttention", [F(2, 5, 8), F(2, 3, 2, 2, 4)], num_heads=2)
TRUTHS |= {"MHAqkv": packed_attention, "MHAkv": packed_attention}  # of these forms
