"""Small models at old opsets, one for each form of each operator that changed between opsets 7 and 21."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

Array = np.ndarray[Any, Any]
N = h.make_node


@dataclass(frozen=True)
class Old:
    name: str
    opset: int
    nodes: Sequence[onnx.NodeProto]
    inputs: dict[str, Array]
    initializers: dict[str, Array] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)

    def model(self, symbolic: bool) -> onnx.ModelProto:
        """With its first axis as a symbol, or with numbers alone."""
        given = [
            h.make_tensor_value_info(
                name, h.np_dtype_to_tensor_dtype(v.dtype), ["N", *v.shape[1:]] if symbolic and v.ndim else list(v.shape)
            )
            for name, v in self.inputs.items()
        ]
        held = [nh.from_array(v, name) for name, v in self.initializers.items()]
        outputs = [h.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = h.make_graph(self.nodes, "old", given, outputs, held)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", self.opset)], ir_version=8 if self.opset >= 15 else 7)


CASES: list[Old] = []


def case(name: str, opset: int, nodes: Any, inputs: Any, initializers: Any = None, outs: Sequence[str] = ("y",)) -> None:
    CASES.append(Old(name, opset, nodes, inputs, initializers or {}, outs))


def F(*shape: int) -> Array:
    return np.random.default_rng(sum(shape) + 1).standard_normal(shape).astype(np.float32)


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


for o in (7, 8):
    case(f"Upsample{o}", o, [N("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")], {"x": F(1, 2, 3, 4)})
case("Upsample7lin", 7, [N("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="linear")], {"x": F(1, 2, 3, 4)})
case(
    "Upsample9",
    9,
    [N("Upsample", ["x", "s"], ["y"], mode="nearest")],
    {"x": F(1, 2, 3, 4)},
    {"s": np.array([1, 1, 2, 2], np.float32)},
)
case(
    "Upsample9lin",
    9,
    [N("Upsample", ["x", "s"], ["y"], mode="linear")],
    {"x": F(1, 2, 3, 4)},
    {"s": np.array([1, 1, 2, 2], np.float32)},
)
case(
    "Upsample9dyn",
    9,
    [N("Upsample", ["x", "s"], ["y"], mode="nearest")],
    {"x": F(1, 2, 3, 4), "s": np.array([1, 1, 2, 2], np.float32)},
)
for mode in ("nearest", "linear"):
    case(
        f"Resize10{mode}",
        10,
        [N("Resize", ["x", "s"], ["y"], mode=mode)],
        {"x": F(1, 2, 4, 4)},
        {"s": np.array([1, 1, 1.5, 2], np.float32)},
    )
    case(
        f"Resize10down{mode}",
        10,
        [N("Resize", ["x", "s"], ["y"], mode=mode)],
        {"x": F(1, 2, 7, 5)},
        {"s": np.array([1, 1, 0.6, 0.5], np.float32)},
    )
for o in (11, 13, 18):
    case(
        f"Resize{o}",
        o,
        [N("Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners")],
        {"x": F(1, 2, 4, 4)},
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
case(
    "Resize11roi",
    11,
    [N("Resize", ["x", "r", "s"], ["y"], mode="linear")],
    {"x": F(1, 2, 4, 4)},
    {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
)
case(
    "Resize11sizes",
    11,
    [N("Resize", ["x", "r", "s", "z"], ["y"], mode="nearest")],
    {"x": F(1, 2, 4, 4)},
    {"r": np.zeros(0, np.float32), "s": np.zeros(0, np.float32), "z": i64(1, 2, 8, 8)},
)
case(
    "Resize13sizes",
    13,
    [N("Resize", ["x", "r", "", "z"], ["y"], mode="nearest")],
    {"x": F(1, 2, 4, 4)},
    {"r": np.zeros(0, np.float32), "z": i64(1, 2, 8, 8)},
)
case("Slice7", 7, [N("Slice", ["x"], ["y"], axes=[0, 2], starts=[0, 1], ends=[1, 9999999])], {"x": F(2, 2, 4)})
case("Slice7noaxes", 7, [N("Slice", ["x"], ["y"], starts=[0, 1], ends=[1, -1])], {"x": F(2, 4, 4)})
case("Slice10", 10, [N("Slice", ["x", "s", "e"], ["y"])], {"x": F(2, 4, 4)}, {"s": i64(0, 1), "e": i64(2, 3)})
for m in ("constant", "reflect", "edge"):
    case(f"Pad7{m}", 7, [N("Pad", ["x"], ["y"], pads=[0, 1, 0, 1], mode=m, value=1.5)], {"x": F(3, 4)})
case("Pad11", 11, [N("Pad", ["x", "p", "v"], ["y"])], {"x": F(3, 4)}, {"p": i64(0, 1, 1, 0), "v": np.array(2, np.float32)})
case("Pad7neg", 7, [N("Pad", ["x"], ["y"], pads=[0, -1, 0, 1])], {"x": F(3, 4)})
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    for o in (7, 11):
        for ax in (None, 0, 1, 2, -1):
            if ax == -1 and o < 11:
                continue
            case(f"{op}{o}ax{ax}", o, [N(op, ["x"], ["y"], **({} if ax is None else {"axis": ax}))], {"x": F(2, 3, 4)})
for op in (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
    "ReduceLogSum",
):
    for o in (7, 11, 12, 13, 17):
        if op == "ReduceSum" and o >= 13:
            continue
        x = np.abs(F(2, 3, 4)) + 0.1
        case(f"{op}{o}", o, [N(op, ["x"], ["y"], axes=[1], keepdims=0)], {"x": x})
        case(f"{op}{o}all", o, [N(op, ["x"], ["y"])], {"x": x})
for o in (7, 11, 12):
    case(f"Squeeze{o}", o, [N("Squeeze", ["x"], ["y"], axes=[1])], {"x": F(2, 1, 4)})
    case(f"Squeeze{o}none", o, [N("Squeeze", ["x"], ["y"])], {"x": F(2, 1, 4)})
    case(f"Unsqueeze{o}", o, [N("Unsqueeze", ["x"], ["y"], axes=[0, 2])], {"x": F(2, 4)})
for o in (7, 10):
    case(f"Dropout{o}", o, [N("Dropout", ["x"], ["y", "m"], ratio=0.3)], {"x": F(2, 4)})
case("Dropout12", 12, [N("Dropout", ["x"], ["y"])], {"x": F(2, 4)})
case("Dropout7one", 7, [N("Dropout", ["x"], ["y"])], {"x": F(2, 4)})
bn = {"s": F(3), "b": F(3) + 1, "m": F(3) * 2, "v": np.abs(F(3)) + 0.5}
for o in (7, 8, 9, 13, 14):
    case(f"BN{o}", o, [N("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=1e-3)], {"x": F(2, 3, 4)}, bn)
case(
    "BN7spatial0",
    7,
    [N("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], spatial=0)],
    {"x": F(2, 3, 4)},
    {k: np.abs(np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)) + 0.1 for k in "sbmv"},
)
case(
    "BN9train",
    9,
    [N("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "om", "ov", "sm", "sv"])],
    {"x": F(2, 3, 4)},
    bn,
    ("y",),
)
for o in (7, 10):
    case(f"Clip{o}", o, [N("Clip", ["x"], ["y"], min=-0.5, max=0.7)], {"x": F(2, 4)})
    case(f"Clip{o}min", o, [N("Clip", ["x"], ["y"], min=0.0)], {"x": F(2, 4)})
    case(f"Clip{o}none", o, [N("Clip", ["x"], ["y"])], {"x": F(2, 4)})
case("Clip11", 11, [N("Clip", ["x", "", "hi"], ["y"])], {"x": F(2, 4)}, {"hi": np.array(0.5, np.float32)})
for o in (7, 9):
    case(f"TopK{o}", o, [N("TopK", ["x"], ["y", "i"], k=2, axis=1)], {"x": F(2, 4)}, outs=("y", "i"))
case("TopK10", 10, [N("TopK", ["x", "k"], ["y", "i"])], {"x": F(2, 4)}, {"k": i64(2)}, outs=("y", "i"))
case("TopK11", 11, [N("TopK", ["x", "k"], ["y", "i"], largest=0)], {"x": F(2, 4)}, {"k": i64(2)}, outs=("y", "i"))
for o in (9, 10):
    case(
        f"Scatter{o}",
        o,
        [N("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        {"x": F(2, 4)},
        {"i": np.array([[1, 3], [0, 2]], np.int64), "u": F(2, 2)},
    )
for o in (7, 11):
    case(f"Gather{o}", o, [N("Gather", ["x", "i"], ["y"], axis=1)], {"x": F(2, 4)}, {"i": i64(1, 3)})
for o in (7, 11, 12):
    case(f"Split{o}", o, [N("Split", ["x"], ["y", "z"], axis=1, split=[1, 3])], {"x": F(2, 4)}, outs=("y", "z"))
    case(f"Split{o}even", o, [N("Split", ["x"], ["y", "z"], axis=1)], {"x": F(2, 4)}, outs=("y", "z"))
case("Split13even", 13, [N("Split", ["x"], ["y", "z"], axis=1)], {"x": F(2, 4)}, outs=("y", "z"))
case("Split13", 13, [N("Split", ["x", "s"], ["y", "z"], axis=1)], {"x": F(2, 4)}, {"s": i64(1, 3)}, outs=("y", "z"))
case("Split17three", 17, [N("Split", ["x"], ["y", "z", "w"], axis=-1)], {"x": F(2, 6)}, outs=("y", "z", "w"))
for o in (7, 9, 13, 19):
    case(f"Cast{o}", o, [N("Cast", ["x"], ["y"], to=T.INT64)], {"x": F(2, 4) * 9})
gn = {"s": F(2), "b": F(2) + 1}
case("GroupNorm18", 18, [N("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=1e-3)], {"x": F(2, 6, 4)}, gn)
case("GroupNorm18dyn", 18, [N("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], {"x": F(2, 6, 4), **gn})
case("DFT17", 17, [N("DFT", ["x"], ["y"], axis=1)], {"x": F(1, 8, 1)})
case("DFT17inv", 17, [N("DFT", ["x"], ["y"], axis=1, inverse=1)], {"x": F(1, 8, 2)})
case("DFT17len", 17, [N("DFT", ["x", "l"], ["y"], axis=1, onesided=1)], {"x": F(1, 8, 1)}, {"l": np.array(6, np.int64)})
case("DFT17def", 17, [N("DFT", ["x"], ["y"])], {"x": F(1, 8, 4, 1)})
case("LN17", 17, [N("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1)], {"x": F(2, 3)}, {"s": F(3), "b": F(3)})
for mode in ("bilinear", "nearest", "bicubic"):
    case(
        f"GridSample16{mode}",
        16,
        [N("GridSample", ["x", "g"], ["y"], mode=mode)],
        {"x": F(1, 1, 4, 4), "g": np.tanh(F(1, 3, 3, 2))},
    )
rois = {"r": np.array([[0, 0, 4, 4], [1, 1, 5, 6]], np.float32), "b": i64(0, 0)}
for o in (10, 11, 16):
    case(
        f"RoiAlign{o}",
        o,
        [N("RoiAlign", ["x", "r", "b"], ["y"], output_height=2, output_width=2, sampling_ratio=2)],
        {"x": F(1, 1, 8, 8)},
        rois,
    )
for o in (7, 11, 18):
    case(
        f"AvgPool{o}",
        o,
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])],
        {"x": F(1, 2, 6, 6)},
    )
case(
    "AvgPool10ceil",
    10,
    [N("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[2], ceil_mode=1, pads=[1, 1], count_include_pad=1)],
    {"x": F(1, 2, 6)},
)
for o in (7, 8, 11):
    case(
        f"MaxPool{o}",
        o,
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], auto_pad="NOTSET")],
        {"x": F(1, 2, 6, 6)},
    )
case("MaxPool8idx", 8, [N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], {"x": F(1, 2, 6, 6)}, outs=("y", "i"))
case("LpPool11", 11, [N("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=2)], {"x": F(1, 2, 6, 6)})
case(
    "MaxUnpool9",
    9,
    [
        N("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        N("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    {"x": F(1, 2, 6, 6)},
)
rnn = {"W": F(1, 12, 3), "R": F(1, 12, 3) + 0.1, "B": F(1, 24)}
for o in (7, 13, 14):
    case(
        f"LSTM{o}", o, [N("LSTM", ["x", "W", "R", "B"], ["y", "h", "c"], hidden_size=3)], {"x": F(4, 2, 3)}, rnn, ("y", "h", "c")
    )
    case(
        f"GRU{o}",
        o,
        [N("GRU", ["x", "W", "R"], ["y", "h"], hidden_size=3, linear_before_reset=1)],
        {"x": F(4, 2, 3)},
        {"W": F(1, 9, 3), "R": F(1, 9, 3)},
        ("y", "h"),
    )
    case(
        f"RNN{o}",
        o,
        [N("RNN", ["x", "W", "R"], ["y", "h"], hidden_size=3)],
        {"x": F(4, 2, 3)},
        {"W": F(1, 3, 3), "R": F(1, 3, 3)},
        ("y", "h"),
    )
for o in (7, 13):
    case(f"Gemm{o}", o, [N("Gemm", ["x", "w", "b"], ["y"])], {"x": F(2, 3)}, {"w": F(3, 4), "b": F(4)})
case("Gemm11nob", 11, [N("Gemm", ["x", "w"], ["y"])], {"x": F(2, 3)}, {"w": F(3, 4)})
for o in (7, 9, 13):
    case(f"Flatten{o}", o, [N("Flatten", ["x"], ["y"], axis=2)], {"x": F(2, 3, 4)})
for o in (7, 9):
    case(f"PRelu{o}", o, [N("PRelu", ["x", "s"], ["y"])], {"x": F(2, 3, 4)}, {"s": F(3, 1)})
for o in (8, 12):
    case(f"Max{o}", o, [N("Max", ["x", "z"], ["y"])], {"x": F(2, 3), "z": F(3)})
    case(f"Sum{o}", o, [N("Sum", ["x", "z"], ["y"])], {"x": F(2, 3), "z": F(3)})
case("Mean8", 8, [N("Mean", ["x", "z"], ["y"])], {"x": F(2, 3), "z": F(3)})
for o in (7, 12, 13, 14):
    case(f"Pow{o}", o, [N("Pow", ["x", "z"], ["y"])], {"x": np.abs(F(2, 3)), "z": F(3)})
case("Expand8", 8, [N("Expand", ["x", "s"], ["y"])], {"x": F(2, 1)}, {"s": i64(2, 3)})
case("Where9", 9, [N("Where", ["c", "x", "z"], ["y"])], {"c": np.array([True, False, True]), "x": F(2, 3), "z": F(3)})
for o in (9, 11):
    case(
        f"OneHot{o}",
        o,
        [N("OneHot", ["i", "d", "v"], ["y"])],
        {"i": i64(0, 2)},
        {"d": np.array(3, np.int64), "v": np.array([0, 1], np.float32)},
    )
for o in (11, 13, 16):
    case(
        f"ScatterND{o}",
        o,
        [N("ScatterND", ["x", "i", "u"], ["y"])],
        {"x": F(4, 2)},
        {"i": np.array([[1], [3]], np.int64), "u": F(2, 2)},
    )
case(
    "ScatterElements11",
    11,
    [N("ScatterElements", ["x", "i", "u"], ["y"], axis=1)],
    {"x": F(2, 4)},
    {"i": np.array([[1, 3], [0, 2]], np.int64), "u": F(2, 2)},
)
for o in (11, 12):
    case(f"GatherND{o}", o, [N("GatherND", ["x", "i"], ["y"])], {"x": F(4, 2)}, {"i": np.array([[1], [3]], np.int64)})
for o in (11, 13):
    case(f"ArgMax{o}", o, [N("ArgMax", ["x"], ["y"], axis=1)], {"x": F(2, 4)})
case("DepthToSpace10", 10, [N("DepthToSpace", ["x"], ["y"], blocksize=2)], {"x": F(1, 8, 2, 2)})
for o in (7, 11, 13):
    case(f"Concat{o}", o, [N("Concat", ["x", "z"], ["y"], axis=1)], {"x": F(2, 3), "z": F(2, 1)})
    case(f"Transpose{o}", o, [N("Transpose", ["x"], ["y"], perm=[1, 0])], {"x": F(2, 3)})
    case(f"Reshape{o}", o, [N("Reshape", ["x", "s"], ["y"])], {"x": F(2, 3)}, {"s": i64(0, -1)})
    case(f"Conv{o}", o, [N("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], {"x": F(1, 2, 4, 4)}, {"w": F(3, 2, 3, 3)})
    case(f"ConvT{o}", o, [N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], {"x": F(1, 2, 4, 4)}, {"w": F(2, 3, 3, 3)})
    case(f"LRN{o}", o, [N("LRN", ["x"], ["y"], size=3)], {"x": F(1, 4, 2, 2)})
    case(f"IN{o}", o, [N("InstanceNormalization", ["x", "s", "b"], ["y"])], {"x": F(2, 3, 4)}, {"s": F(3), "b": F(3)})
    case(f"Identity{o}", o, [N("Identity", ["x"], ["y"])], {"x": F(2, 3)})
    case(f"Tile{o}", o, [N("Tile", ["x", "r"], ["y"])], {"x": F(2, 3)}, {"r": i64(2, 1)})
    for u in (
        "Elu",
        "LeakyRelu",
        "Selu",
        "HardSigmoid",
        "Softplus",
        "Softsign",
        "Exp",
        "Sqrt",
        "Neg",
        "Abs",
        "Relu",
        "Sigmoid",
        "Tanh",
    ):
        case(f"{u}{o}", o, [N(u, ["x"], ["y"])], {"x": np.abs(F(2, 3))})
case("Shrink9", 9, [N("Shrink", ["x"], ["y"], lambd=0.3, bias=0.1)], {"x": F(2, 4)})
case("Mod10", 10, [N("Mod", ["x", "z"], ["y"], fmod=1)], {"x": F(3), "z": np.abs(F(3))})
for o in (11, 14):
    case(f"CumSum{o}", o, [N("CumSum", ["x", "a"], ["y"])], {"x": F(2, 3)}, {"a": np.array(1, np.int64)})
case("Trilu14", 14, [N("Trilu", ["x"], ["y"])], {"x": F(3, 3)})
case("HardSwish14", 14, [N("HardSwish", ["x"], ["y"])], {"x": F(3, 3)})
case("MVN9", 9, [N("MeanVarianceNormalization", ["x"], ["y"])], {"x": F(2, 3, 4, 4)})
case("Einsum12", 12, [N("Einsum", ["x", "z"], ["y"], equation="ij,jk->ik")], {"x": F(2, 3), "z": F(3, 4)})
for o in (12, 13):
    case(f"SCE{o}", o, [N("SoftmaxCrossEntropyLoss", ["x", "t"], ["y"])], {"x": F(2, 3), "t": i64(0, 2)})
for o in (12, 13):
    case(f"NLL{o}", o, [N("NegativeLogLikelihoodLoss", ["x", "t"], ["y"])], {"x": F(2, 3), "t": i64(0, 2)})
case("Constant7", 7, [N("Constant", [], ["c"], value=nh.from_array(F(3))), N("Add", ["x", "c"], ["y"])], {"x": F(2, 3)})
case(
    "QDQ10",
    10,
    [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["y"])],
    {"x": F(2, 3)},
    {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)},
)
case("Celu12", 12, [N("Celu", ["x"], ["y"], alpha=2.0)], {"x": F(2, 3)})


def branch(op, **k):
    return h.make_graph([N(op, ["x"], ["o" + op], **k)], op, [], [h.make_tensor_value_info("o" + op, T.FLOAT, None)])


for o in (7, 9, 11):
    case(
        f"If{o}",
        o,
        [N("If", ["c"], ["y"], then_branch=branch("Squeeze", axes=[1]), else_branch=branch("ReduceSum", axes=[1], keepdims=0))],
        {"c": np.array(True), "x": F(2, 1)},
    )
case(
    "IfSoft11",
    11,
    [N("If", ["c"], ["y"], then_branch=branch("Softmax", axis=1), else_branch=branch("ReduceSum", axes=[1], keepdims=1))],
    {"c": np.array(True), "x": F(2, 3, 4)},
)
body = h.make_graph(
    [
        N("Add", ["s", "e"], ["so"]),
        N("Softmax", ["e"], ["eo"], axis=0),
        N("Unsqueeze", ["eo"], ["e1"], axes=[0]),
        N("Squeeze", ["e1"], ["e2"], axes=[0]),
    ],
    "b",
    [h.make_tensor_value_info(n, T.FLOAT, [3]) for n in ("s", "e")],
    [h.make_tensor_value_info(n, T.FLOAT, [3]) for n in ("so", "e2")],
)
for o in (9, 11):
    case(
        f"Scan{o}",
        o,
        [N("Scan", ["s0", "x"], ["sf", "y"], body=body, num_scan_inputs=1)],
        {"s0": F(3), "x": F(4, 3)},
        outs=("y", "sf"),
    )
for count in (1, 2):
    case(
        f"Scan8 of {count}",
        8,
        [N("Scan", ["", "s0", "x"], ["sf", "y"], body=body, num_scan_inputs=1, directions=[1])],
        {"s0": F(count, 3), "x": F(count, 4, 3)},
        outs=("y", "sf"),
    )
lb = h.make_graph(
    [N("Add", ["s", "x"], ["so"]), N("Unsqueeze", ["so"], ["u"], axes=[0]), N("Identity", ["cond"], ["co"])],
    "b",
    [
        h.make_tensor_value_info("i", T.INT64, []),
        h.make_tensor_value_info("cond", T.BOOL, []),
        h.make_tensor_value_info("s", T.FLOAT, [3]),
    ],
    [
        h.make_tensor_value_info("co", T.BOOL, []),
        h.make_tensor_value_info("so", T.FLOAT, [3]),
        h.make_tensor_value_info("u", T.FLOAT, [1, 3]),
    ],
)
for o in (7, 11):
    case(
        f"Loop{o}",
        o,
        [N("Loop", ["m", "", "s0"], ["sf", "y"], body=lb)],
        {"s0": F(3), "x": F(3)},
        {"m": np.array(3, np.int64)},
        outs=("y", "sf"),
    )
