"""Graphs of any number of nodes, with a symbolic batch, to see how compile time grows.

dense        x -> Gemm -> Relu -> Add(x) ...
attention    normalization, heads by Reshape and Transpose, MatMul, Softmax, MatMul, residual, two dense layers with Gelu
convolution  Conv -> BatchNormalization -> Relu -> Conv -> Add ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, TIME, HEADS = 8, 4, 2


class Writer:
    """Nodes in order, each with one output; weights are drawn as they are asked for."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def __call__(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"/{name}", **attributes))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.random.standard_normal(shape).astype(np.float32) / 4.0, "weight")

    def constant(self, array: np.ndarray, kind: str = "constant") -> str:
        name = f"{kind}_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def dense(write: Writer, x: str) -> str:
    y = write("Gemm", x, write.weight(WIDTH, WIDTH), write.weight(WIDTH), transB=1)
    return write("Add", x, write("Relu", y))


def attention(write: Writer, x: str) -> str:
    y = write("LayerNormalization", x, write.weight(WIDTH), write.weight(WIDTH), axis=-1)
    split = write.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))
    heads = []
    for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        dense = write("Add", write("MatMul", y, write.weight(WIDTH, WIDTH)), write.weight(WIDTH))
        heads.append(write("Transpose", write("Reshape", dense, split), perm=order))
    scores = write("Mul", write("MatMul", heads[0], heads[1]), write.constant(np.array(0.5, np.float32)))
    mixed = write("Transpose", write("MatMul", write("Softmax", scores, axis=-1), heads[2]), perm=[0, 2, 1, 3])
    joined = write("Reshape", mixed, write.constant(np.array([0, 0, WIDTH])))
    x = write("Add", x, write("MatMul", joined, write.weight(WIDTH, WIDTH)))
    y = write("LayerNormalization", x, write.weight(WIDTH), write.weight(WIDTH), axis=-1)
    y = write("Gelu", write("Add", write("MatMul", y, write.weight(WIDTH, 16)), write.weight(16)))
    return write("Add", x, write("MatMul", y, write.weight(16, WIDTH)))


def convolution(write: Writer, x: str) -> str:
    y = write("Conv", x, write.weight(WIDTH, WIDTH, 3, 3), write.weight(WIDTH), pads=[1, 1, 1, 1])
    positive = write.constant(np.abs(write.random.standard_normal(WIDTH)).astype(np.float32) + 0.5, "weight")
    y = write("Relu", write("BatchNormalization", y, write.weight(WIDTH), write.weight(WIDTH), write.weight(WIDTH), positive))
    return write("Add", x, write("Conv", y, write.weight(WIDTH, WIDTH, 1, 1)))


KINDS: Mapping[str, tuple[Callable[[Writer, str], str], list[int | str]]] = {
    "dense": (dense, ["batch", WIDTH]),
    "attention": (attention, ["batch", TIME, WIDTH]),
    "convolution": (convolution, ["batch", WIDTH, 8, 8]),
}


def synthetic(kind: str, nodes: int) -> onnx.ModelProto:
    """A model of at least this many nodes with a scalar loss."""
    block, shape = KINDS[kind]
    write, x = Writer(), "x"
    while len(write.nodes) < nodes - 1:
        x = block(write, x)
    write.nodes.append(helper.make_node("ReduceMean", [x], ["loss"], name="/loss", keepdims=0))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])]
    graph = helper.make_graph(write.nodes, kind, inputs, outputs, write.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
