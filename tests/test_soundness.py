"""Attacks on the sound tier: small graphs on which a careless bound is too small, each run at the input and adjoint that show it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from vgcompile.analysis import Analysis, Options, analyze
from vgcompile.analysis.sound import sound
from vgcompile.graph.load import load
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]
HEADER = '<ir_version: 10, opset_import: ["": 21]> g '


def network(folder: Path, text: str, **options: str) -> Network:
    """A graph in ONNX's text form, loaded as a foreign file."""
    model = onnx.parser.parse_model(HEADER + text)
    onnx.save(model, folder / "g.onnx")
    return load(folder / "g.onnx", **options)


def attack(folder: Path, text: str, **arrays: Array) -> Analysis:
    """Measure on these inputs and, where there is no loss, the adjoints ``adj_<output>``; no edge may leave its bounds."""
    given = {name.replace("adj_", "adj."): array if array.dtype.kind == "i" else array.astype(np.float32) for name, array in arrays.items()}
    np.savez(folder / "data.npz", **given)
    opened = network(folder, text)
    seeded = any(name.startswith("adj.") for name in given)
    found = analyze(opened, Options(data=str(folder / "data.npz"), tiers=("sound", "measured"), seed_input=seeded))
    assert found.self_check.violations == ()
    assert any(edge.gain.measured is not None for edge in found.edges)
    return found


N, T = 7, 5
W33 = "<float[3,3] w = {1,2,0,-1,1,0.5,2,0,1}>"
ONES = np.ones
COUPLED = {
    "bias over a symbolic axis": (
        "(float[N,T,3] x) => (float[N,T,3] y) <float[3] b = {1,2,3}> { y = Add(x, b) }",
        {"x": ONES((N, T, 3)), "adj_y": ONES((N, T, 3))},
    ),
    "data over a symbolic axis": (
        "(float[N,1,3] x, float[N,T,3] z) => (float[N,T,3] y) { a = Tanh(x) b = Tanh(z) y = Add(a, b) }",
        {"x": ONES((N, 1, 3)), "z": ONES((N, T, 3)), "adj_y": ONES((N, T, 3))},
    ),
    "a transposed weight": (
        f"(float[N,3] x) => (float[N,3] y) {W33} {{ t = Transpose(w) y = MatMul(x, t) }}",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a prepared bias": (
        "(float[N,3] x) => (float[N,3] y) <float[3] b = {1,2,3}> { a = Tanh(b) y = Add(x, a) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a prepared bias, expanded": (
        "(float[N,3] x) => (float[N,3] y) <float[3] b = {1,2,3}> { a = Tanh(b) s = Shape(x) e = Expand(a, s) y = Add(x, e) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "a Gram matrix": (
        "(float[N,3] x) => (float[N,N] y) { t = Transpose(x) y = MatMul(x, t) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, N))},
    ),
    "similarities of two embeddings": (
        "(float[N,3] x, float[N,3] z) => (float[N,N] y) { a = Tanh(x) b = Tanh(z) t = Transpose(b) y = MatMul(a, t) }",
        {"x": ONES((N, 3)), "z": ONES((N, 3)), "adj_y": ONES((N, N))},
    ),
    "the mean of a batch": (
        "(float[N,3] x) => (float[N,3] y) <int64[1] zero = {0}> "
        "{ m = ReduceMean<keepdims = 1>(x, zero) a = Tanh(m) y = Sub(x, a) }",
        {"x": 0.01 * ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "the mean of a batch, against a matrix": (
        "(float[N,3] x) => (float[N,3] y) <int64[1] zero = {0}> "
        "{ m = ReduceMean<keepdims = 0>(x, zero) a = Tanh(m) e = Unsqueeze(a, zero) t = Transpose(e) "
        "d = MatMul(t, e) b = Tanh(x) y = MatMul(b, d) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
    "time first": (
        f"(float[T,N,3] x) => (float[N,3] y) {W33} <int64[1] zero = {{0}}> "
        "{ a = ReduceSum<keepdims = 0>(x, zero) y = MatMul(a, w) }".replace("> <", ", "),
        {"x": ONES((2, N, 3)), "adj_y": ONES((N, 3))},
    ),
    "samples and positions in one axis, dense": (
        "(float[N,4,3] x) => (float[M,3] y) <float[3,3] w = {1,2,0,-1,1,0.5,2,0,1}, int64[2] s = {-1,3}> "
        "{ a = Reshape(x, s) b = Clip(a) y = MatMul(b, w) }",
        {"x": ONES((N, 4, 3)), "adj_y": ONES((4 * N, 3))},
    ),
    "samples and positions in one axis, convolution": (
        "(float[N,4,1,3] x) => (float[M,1,3] y) <float[1,1,1] w = {2}, float[1] b = {1}, int64[3] s = {-1,1,3}> "
        "{ c = Softsign(x) a = Reshape(c, s) d = Sigmoid(a) y = Conv(d, w, b) }",
        {"x": 100 * ONES((N, 4, 1, 3)), "adj_y": ONES((4 * N, 1, 3))},
    ),
    "a convolution's bias over a symbolic axis": (
        "(float[N,1,T] x) => (float[N,1,T] y) <float[1,1,1] w = {2}, float[1] b = {1}> { y = Conv(x, w, b) }",
        {"x": ONES((N, 1, T)), "adj_y": ONES((N, 1, T))},
    ),
    "samples looked up": (
        "(float[N,3] x, int64[M] i) => (float[M,3] y) { a = Tanh(x) y = Gather(a, i) }",
        {"x": ONES((N, 3)), "i": np.zeros(6, np.int64), "adj_y": ONES((6, 3))},
    ),
    "positions looked up by the batch": (
        "(float[N,4] x, int64[N] i) => (float[N,N] y) { a = Tanh(x) y = Gather<axis = 1>(a, i) }",
        {"x": ONES((N, 4)), "i": np.zeros(N, np.int64), "adj_y": ONES((N, N))},
    ),
    "elements of samples looked up": (
        "(float[N,1] x, int64[N,1] i) => (float[N,1] y) { a = Tanh(x) y = GatherElements<axis = 0>(a, i) }",
        {"x": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": ONES((N, 1))},
    ),
    "slices of samples looked up": (
        "(float[N,1] x, int64[N,1] i) => (float[N,1] y) { a = Tanh(x) y = GatherND(a, i) }",
        {"x": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": ONES((N, 1))},
    ),
    "samples added up": (
        "(float[N,1] x, float[N,1] u, int64[N,1] i) => (float[N,1] y) "
        "{ a = Tanh(x) b = Tanh(u) y = ScatterElements<axis = 0, reduction = \"add\">(a, i, b) }",
        {"x": ONES((N, 1)), "u": ONES((N, 1)), "i": np.zeros((N, 1), np.int64), "adj_y": np.eye(N, 1)},
    ),
    "two outputs": (
        "(float[N,3] x) => (float[N,3] y, float[N,3] z) { a = Tanh(x) y = Neg(a) z = Neg(a) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3)), "adj_z": 0.01 * ONES((N, 3))},
    ),
    "statistics of a normalization": (
        "(float[N,3] x) => (float[N,3] y, float[N,1] m, float[N,1] v) <float[3] s = {1,1,1}> "
        "{ a = Tanh(x) y, m, v = LayerNormalization<epsilon = 0.01>(a, s) }",
        {"x": np.tile([1.0, 1.1, 0.9], (N, 1)), "adj_y": np.zeros((N, 3)), "adj_m": np.zeros((N, 1)), "adj_v": ONES((N, 1))},
    ),
    "whole numbers": (
        "(float[N,1] x, int64[N,1] k) => (float[N,1] y) <int64[1] two = {2}, float[1] h = {-0.4}> "
        "{ s = Sigmoid(x) c = Cast<to = 7>(s) d = Add(c, k) f = Cast<to = 1>(d) a = Add(x, h) b = Relu(a) y = Mul(b, f) }",
        {"x": ONES((N, 1)), "k": np.full((N, 1), 3), "adj_y": ONES((N, 1))},
    ),
    "without epsilon": (
        "(float[N,3] x) => (float[N,3] y) <float[3] s = {1,1,1}> { y = LayerNormalization<epsilon = 0.0>(x, s) }",
        {"x": np.tile([1.0, 2.0, 0.5], (N, 1)), "adj_y": ONES((N, 3)) * np.arange(3)},
    ),
    "unbounded after dead": (
        "(float[N,3] x) => (float[N,3] y) { e = Exp(x) n = Neg(e) r = Relu(n) a = Mul(x, x) b = Mul(a, r) c = Add(a, b) y = Mul(c, c) }",
        {"x": ONES((N, 3)), "adj_y": ONES((N, 3))},
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_no_bound_is_too_small(name: str, tmp_path: Path) -> None:
    text, arrays = COUPLED[name]
    attack(tmp_path, text, **arrays)
