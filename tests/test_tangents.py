"""The linear maps of the table: near the Jacobian of every sample of every row that has one, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.one_node import OneNode, case_in, over, samples, stream
from vgcompile.analysis.bounds.slopes import bounds_differences, tangent
from vgcompile.interval import interval, point
from vgcompile.ops import NUMPY, OPS
from vgcompile.ops.maps import gathered
from vgcompile.ops.op import Case, Op, Tangent
from vgcompile.ops.reading import slope_range

Array = np.ndarray[Any, Any]
ROWS = [row for _, row in sorted(OPS.items()) if not row.blocked and (row.tangent or row.derivatives)]
WITH_MAPS = {
    *("Gemm", "MatMul", "Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "ReduceSum", "ReduceMean"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Expand", "Tile"),
    *("Add", "Sub", "Sum", "Mean", "Mul", "Neg", "Tanh", "Relu", "BatchNormalization"),
}


@over(ROWS)
def test_map_is_the_jacobian(row: Op) -> None:
    """At a point the map gives what the gradient rule does, up to slopes that are not known there, and push and pull are
    transposes."""
    rng, there = stream(row), 0
    for one in samples(row):
        drawn = one.draw(rng, 1)
        for position in one.adjoints:
            others = {i: x for i, x in drawn.items() if i != position}
            case = case_in(one, {i: point(x) for i, x in drawn.items()}, others)
            near = tangent(row, case, position)
            if near is not None and (near.slopes is None or near.slopes.bounded):
                there += 1
                compare(one, position, drawn, near, rng)
    assert there or row.name not in WITH_MAPS


def compare(one: OneNode, position: int, drawn: dict[int, Array], near: Tangent, rng: np.random.Generator) -> None:
    output = one.run_forward(drawn)[0]
    g = rng.normal(size=np.shape(output))
    expected = one.run_gradient(drawn, {k: g if k == 0 else np.zeros_like(g) for k in one.seeds})[position].ravel()
    row, middle, away = g.reshape(1, -1), np.ones(g.size), 0.0
    if near.slopes is not None:
        middle = 0.5 * (near.slopes.lo + near.slopes.hi)
        away = float((near.slopes.hi - near.slopes.lo).max(initial=0.0)) / 2.0
    pulled = near.map.pull(row * middle)
    room = (near.ball + away * near.map.norm) * np.linalg.norm(row) + 1e-6 * (1.0 + np.abs(expected).max(initial=0.0))
    assert np.linalg.norm(pulled[0] - expected) <= room
    t, u = rng.normal(size=pulled.shape), rng.normal(size=row.shape)
    assert float((near.map.push(t) * u).sum()) == pytest.approx(float((t * near.map.pull(u)).sum()), rel=1e-9, abs=1e-9)
    assert np.linalg.norm(near.map.pull(u)) <= near.map.norm * np.linalg.norm(u) * (1.0 + 1e-12)


MOVED = [
    ("Transpose", {"perm": [0, 2, 1]}, ("N", 2, 3), [("N", 3, 2)], lambda x: [x.transpose(0, 2, 1)]),
    ("Split", {"axis": 1}, ("N", 5), [("N", 2), ("N", 3)], lambda x: [x[:, :2], x[:, 2:]]),
]


@pytest.mark.parametrize(("name", "attributes", "dims", "outputs", "moved"), MOVED, ids=[entry[0] for entry in MOVED])
def test_outputs_stand_one_after_the_other(name: str, attributes: Any, dims: Any, outputs: Any, moved: Any) -> None:
    case = Case(attributes, (dims,), tuple(outputs), (None,), (None,), data=frozenset({0}))
    near = tangent(OPS[name], case, 0)
    assert near is not None
    x = np.random.default_rng(0).normal(size=(1, *dims[1:]))
    assert near.map.push(x.reshape(1, -1))[0].tolist() == np.concatenate([part.ravel() for part in moved(x)]).tolist()


MIXED = [
    ("Transpose", {"perm": [1, 0]}, ("N", 3), ((3, "N"),), ()),
    ("Slice", {}, ("N", 3), (("N", 3),), (np.array([-1]), np.array([-99]), np.array([0]), np.array([-1]))),
    ("Concat", {"axis": 0}, ("N", 3), (("N", 3),), ()),
    ("ReduceSum", {"keepdims": 1, "noop_with_empty_axes": 0}, ("N", 3), ((1, 3),), (np.array([0]),)),
    ("Reshape", {"allowzero": 0}, ("N", 2, 3), (("unk__0", 3),), (np.array([-1, 3]),)),
]


@pytest.mark.parametrize(("name", "attributes", "dims", "outputs", "rest"), MIXED, ids=[entry[0] for entry in MIXED])
def test_what_mixes_samples_has_no_map(name: str, attributes: Any, dims: Any, outputs: Any, rest: Any) -> None:
    """A reversed batch, a sum over it: nothing that one sample alone decides."""
    case = Case(attributes, (dims, *(np.shape(v) for v in rest)), outputs, (None,), (None, *rest), data=frozenset({0}))
    assert tangent(OPS[name], case, 0) is None


def test_adding_up_copies() -> None:
    spread = gathered(np.array([0, 0, 2, -1]), 3)
    assert spread.push(np.array([[1.0, 2.0, 3.0]])).tolist() == [[1.0, 1.0, 3.0, 0.0]]
    assert spread.pull(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[3.0, 0.0, 3.0]]
    assert spread.norm == pytest.approx(2**0.5)


ELEMENTWISE = [row for row in ROWS if row.derivatives and row.numpy is not None]


@over(ELEMENTWISE)
def test_slopes_bound_differences(row: Op) -> None:
    """No value moves by more than the greatest slope on the segment allows, unless the row says that it jumps."""
    rng = stream(row)
    for one in samples(row):
        drawn = one.draw(rng, 1)
        for position in drawn:
            if not bounds_differences(row, position):
                continue
            x = drawn[position]
            for reach in (0.01, 0.5):
                other = np.clip(x + rng.uniform(-reach, reach, x.shape), *one.sample.domain)
                ends = {i: point(v) for i, v in drawn.items()} | {position: interval(np.minimum(x, other), np.maximum(x, other))}
                most = slope_range(NUMPY, row, position, case_in(one, ends)).magnitude
                before, after = (one.run_forward({**drawn, position: v})[0] for v in (x, other))
                away = np.abs(np.broadcast_to(other - x, np.shape(before)))
                assert (np.abs(after - before) <= most * away * (1.0 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("name", ["ThresholdedRelu", "Shrink", "Mod"])
def test_what_jumps_says_so(name: str) -> None:
    assert OPS[name].jumps
