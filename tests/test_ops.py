"""The laws of the operator table, each over every row and every sample of it: adding an operator adds its tests."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.one_node import DOUBLE, FLOAT, OneNode, one_node
from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops import NUMPY, OPS, lookup
from vgcompile.ops.op import Array, Case, Op, at
from vgcompile.ops.reading import slope, slope_range
from vgcompile.passes.differentiate import case_of
from vgcompile.signal import Signal, constant

ROWS = sorted(OPS.values(), key=lambda row: row.name)
FLOWING = [row for row in ROWS if row.vjp is not None]
UNARY = [row for row in ROWS if row.elementwise and len(row.derivatives) == 1]
# Derivatives of a slope near a listed turning point are taken over this distance.
NEAR = 1e-3


def rows(chosen: list[Op]) -> Any:
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def nodes(row: Op, dtype: Any = DOUBLE) -> Iterator[OneNode]:
    assert row.samples, f"{row.name} has no samples"
    return (one_node(row.name, index, dtype) for index in range(len(row.samples)))


def stream(row: Op) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(row.name.encode()))


def seeds_for(one: OneNode, outputs: list[Array], rng: np.random.Generator) -> dict[int, Array]:
    return {k: rng.normal(size=np.shape(outputs[k])) for k in one.seeds}


# ------------------------------------------------------------------------------------------------------------ gradients


@rows(FLOWING)
def test_vjp_agrees_with_central_differences(row: Op) -> None:
    """<v, J^T g> = d <g, f(x + t v)> / dt, in float64, at every extent, from one graph; and the gradient has its value's shape."""
    rng = stream(row)
    for one in nodes(row):
        for n in one.extents():
            x = one.draw(rng, n)
            g = seeds_for(one, one.run_forward(x), rng)
            adjoints = one.run_gradient(x, g)
            for position, adjoint in adjoints.items():
                assert adjoint.shape == x[position].shape, f"extent {n}, input {position}"
                assert adjoint.dtype == np.float64
            v = {position: rng.normal(size=value.shape) for position, value in x.items()}
            step = 1e-6
            ahead, behind = (
                sum(float(np.vdot(g[k], one.run_forward({p: x[p] + s * v[p] for p in x})[k])) for k in g) for s in (step, -step)
            )
            expected = (ahead - behind) / (2.0 * step)
            found = sum(float(np.vdot(v[position], adjoint)) for position, adjoint in adjoints.items())
            scale = max(1.0, sum(float(np.abs(v[p] * a).sum()) for p, a in adjoints.items()), max(abs(ahead), abs(behind)))
            assert found == pytest.approx(expected, abs=1e-7 * scale), f"{one.sample}, extent {n}"


@rows(FLOWING)
def test_gradient_runs_in_onnx_runtime(row: Op) -> None:
    """In float32, on stock kernels, at every extent, from one file; shapes and types are those of the values."""
    rng = stream(row)
    for one in nodes(row, FLOAT):
        assert all(adjoint.dtype == FLOAT for adjoint in one.adjoints.values())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(one.gradient.SerializeToString(), options, providers=["CPUExecutionProvider"])
        exact = one_node(row.name, row.samples.index(one.sample)) if False else None
        del exact
        for n in one.extents():
            x = one.draw(rng, n)
            outputs = session.run([y.name for y in one.forward.graph.output], {**one.feeds(x, np.float32), **_zeros(one, session, x)})
            g = {k: rng.normal(size=np.shape(outputs[k])).astype(np.float32) for k in one.seeds}
            feeds = {**one.feeds(x, np.float32), **{one.seeds[k]: g[k] for k in g}}
            for (position, _), found in zip(one.adjoints.items(), session.run([v.name for v in one.adjoints.values()], feeds), strict=True):
                assert found.shape == x[position].shape
                assert found.dtype == np.float32
