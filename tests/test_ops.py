"""The laws of the operator table, each over every row and every sample of it: adding an operator adds its tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import defs

from tests.one_node import DOUBLE, FLOAT, ROWS, OneNode, Twice, allows, build, case_in, one_node, over, samples, stream, twice
from vgcompile.analysis.bounds.slopes import extremes
from vgcompile.errors import UserError
from vgcompile.graph.emit import OPSET
from vgcompile.graph.shapes import misread
from vgcompile.interval import Interval, interval
from vgcompile.ops import NUMPY, OPS, lookup
from vgcompile.ops.op import Array, Case, Op, at, sample
from vgcompile.ops.reading import slope, slope_range

FLOWING = [row for row in ROWS if not row.blocked]
UNARY = [row for row in ROWS if row.elementwise and len(row.derivatives) == 1]
MISTYPED = {"MeanVarianceNormalization"}  # ONNX's own definition of it holds float32 constants, whatever the type
ROUNDED = {"RoiAlign", "MaxRoiPool"}  # in half precision a region's edge lies in another pixel
SCATTERED = {"ScatterElements", "ScatterND"}  # ONNX Runtime's CPU joins no 16-bit numbers, in the operators themselves either
HALF, BRAIN = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


@over(ROWS)
def test_row_is_documented_and_sampled(row: Op) -> None:
    """The documentation is one sentence."""
    assert row.doc.endswith(".")
    assert ". " not in row.doc.replace("...", "")
    assert row.samples or not _can_be_sampled(row)


def _can_be_sampled(row: Op) -> bool:
    """Whether a node of the operator alone is a model of numeric tensors in the opset that is written, and has a rule."""
    if row.domain:
        return True
    schema = newest(row.name)
    values = (*schema.inputs, *schema.outputs)
    numeric = all(any(t.startswith("tensor(") and t != "tensor(string)" for t in value.types) for value in values)
    bodies = any(a.type in (defs.OpSchema.AttrType.GRAPH, defs.OpSchema.AttrType.GRAPHS) for a in schema.attributes.values())
    return numeric and defs.has(row.name, OPSET) and not (bodies or schema.deprecated or row.uncovered)


def newest(name: str) -> defs.OpSchema:
    return defs.get_schema(name, defs.onnx_opset_version(), "")


def test_every_operator_of_the_standard_has_a_row() -> None:
    """It says what the operator is: its gradient, that nothing flows, or why there is no rule."""
    standard = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert sorted(standard - set(OPS)) == []


# ------------------------------------------------------------------------------------------------------------ gradients


@over(FLOWING)
def test_vjp_agrees_with_central_differences(row: Op) -> None:
    """<v, J^T g> = d <g, f(x + t v)> / dt in float64, at every extent from one graph, and each adjoint has its value's shape."""
    rng = stream(row)
    for one in samples(row):
        for n in one.extents:
            x = one.draw(rng, n)
            outputs = one.run_forward(x)
            g = {k: rng.normal(size=np.shape(outputs[k])) for k in one.seeds}
            v = {position: rng.normal(size=value.shape) for position, value in x.items()}
            adjoints = one.run_gradient(x, g)
            assert {position: a.shape for position, a in adjoints.items()} == {
                position: x[position].shape for position in adjoints
            }
            found = sum(float(np.vdot(v[position], adjoint)) for position, adjoint in adjoints.items())
            along = _along(one, x, v, g)
            slope_, scale = (along(1e-6) - along(-1e-6)) / 2e-6, abs(along(0.0))
            scale += sum(float(np.abs(v[position] * adjoint).sum()) for position, adjoint in adjoints.items())
            assert found == pytest.approx(slope_, abs=1e-7 * max(scale, 1.0)), f"{one.sample}, extent {n}"


def _along(one: OneNode, x: Mapping[int, Array], v: Mapping[int, Array], g: Mapping[int, Array]) -> Any:
    def value(t: float) -> float:
        outputs = one.run_forward({position: x[position] + t * v[position] for position in x})
        return sum(float(np.vdot(g[k], outputs[k])) for k in g)

    return value


@over(FLOWING)
def test_gradient_of_the_gradient_agrees_with_central_differences(row: Op) -> None:
    """The gradient graph of each sample, opened, is differentiated again, by the inputs and by the adjoints that it reads:
    d <h, J(x + t v)^T (g + t w)> / dt in float64."""
    if row.random:
        pytest.skip("its gradient belongs to a draw, which differs from run to run")
    rng = stream(row)
    for index in range(len(row.samples)):
        again = twice(row.name, index)
        for n in again.one.extents if again.adjoints else ():
            _check_second(again, n, rng)


def _check_second(again: Twice, n: int, rng: np.random.Generator) -> None:
    one = again.one
    x = one.draw(rng, n)
    g = {k: rng.normal(size=np.shape(y)) for k, y in enumerate(one.run_forward(x)) if k in one.seeds}
    h = {position: rng.normal(size=np.shape(x[position])) for position in one.adjoints}
    feeds = one.feeds(x, g)
    v = {name: rng.normal(size=np.shape(feeds[name])) for name in again.adjoints}
    second = again.run({**feeds, **{f"h{position}": value for position, value in h.items()}})
    assert {name: value.shape for name, value in second.items()} == {name: v[name].shape for name in second}
    found = sum(float(np.vdot(v[name], value)) for name, value in second.items())

    def along(t: float) -> float:
        moved = {name: value + t * v[name] if name in v else value for name, value in feeds.items()}
        first = one.run_gradient({i: moved[f"x{i}"] for i in one.drawn}, {k: moved[one.seeds[k]] for k in g})
        return sum(float(np.vdot(h[position], adjoint)) for position, adjoint in first.items())

    scale = abs(along(0.0)) + sum(float(np.abs(v[name] * value).sum()) for name, value in second.items())
    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    assert found == pytest.approx(expected, abs=1e-7 * max(scale, 1.0)), f"{one.sample}, extent {n}"


@over(FLOWING)
def test_gradient_runs_in_onnx_runtime(row: Op) -> None:
    """In float32 on stock kernels, at every extent from one file: the float64 gradient, in the values' shapes and type."""
    rng = stream(row)
    for index, one in enumerate(samples(row, FLOAT)):
        if not one.adjoints:
            continue
        session, exact = _session(one.gradient), one_node(row.name, index)
        for n in one.extents:
            x = {position: value.astype(np.float32) for position, value in one.draw(rng, n).items()}
            g = {k: rng.normal(size=np.shape(y)).astype(np.float32) for k, y in enumerate(exact.run_forward(x)) if k in one.seeds}
            feeds = {i.name: one.feeds(x, g)[i.name].astype(TYPES[i.type]) for i in session.get_inputs()}
            found = dict(zip(one.adjoints, session.run(list(one.adjoints.values()), feeds), strict=True))
            assert {position: (a.shape, a.dtype) for position, a in found.items()} == {p: (x[p].shape, x[p].dtype) for p in found}
            if row.random:
                continue  # each runtime draws its own
            for position, expected in exact.run_gradient(x, g).items():
                scale = max(float(np.abs(expected).max(initial=0.0)), 1.0)
                np.testing.assert_allclose(found[position], expected, rtol=1e-4, atol=1e-5 * scale, err_msg=f"{one.sample}, {n}")


@over([row for row in FLOWING if not row.random])
def test_gradient_keeps_the_type(row: Op) -> None:
    """In float16, bfloat16 and float64, wherever the operator is defined for it: a valid model whose adjoints have the type of
    their values; in float16, where ONNX Runtime has the kernels, the float64 gradient to half precision."""
    rng = stream(row)
    for (index, given), kind in itertools.product(enumerate(row.samples), (HALF, BRAIN, DOUBLE)):
        if not allows(row, kind) or row.name in MISTYPED:
            continue
        try:
            one = build(row, given, kind)
        except UserError as error:  # at opset 21 the standard has many an operator in all real types but bfloat16
            if kind != BRAIN or "unsupported type: tensor(bfloat16)" not in str(error):
                raise
            continue
        onnx.checker.check_model(one.typed, full_check=not misread(ir.from_proto(one.typed).graph))
        kinds = {value.name: value.type.tensor_type.elem_type for value in one.typed.graph.output}
        assert {kinds[name] for name in one.adjoints.values()} <= {int(kind)}, f"{one.sample}, {kind}"
        if kind == HALF and one.adjoints:
            _half_agrees(one, one_node(row.name, index), rng)


NO_KERNEL = ("NOT_IMPLEMENTED", "Could not find an implementation")


def _half_agrees(one: OneNode, exact: OneNode, rng: np.random.Generator) -> None:
    try:
        session = _session(one.typed)
    except Exception as error:  # ONNX Runtime's own classes have no common base but this
        if any(words in str(error) for words in NO_KERNEL):
            return
        raise
    n = one.extents[-1]
    x = {position: value.astype(np.float16) for position, value in one.draw(rng, n).items()}
    g = {k: rng.normal(size=np.shape(y)).astype(np.float16) for k, y in enumerate(exact.run_forward(x)) if k in one.seeds}
    given = one.feeds(x, g)
    feeds = {i.name: given[i.name].astype({"tensor(float16)": np.float16, **TYPES}[i.type]) for i in session.get_inputs()}
    try:
        found = dict(zip(one.adjoints, session.run(list(one.adjoints.values()), feeds), strict=True))
    except Exception as error:
        if "MLFloat16 data type is not supported" in str(error) and one.row.name in SCATTERED:
            return
        raise
    for position, expected in exact.run_gradient(x, g).items() if one.row.name not in ROUNDED else ():
        scale = max(float(np.abs(expected).max(initial=0.0)), 1.0)
        np.testing.assert_allclose(found[position], expected, rtol=2e-2, atol=2e-2 * scale, err_msg=f"{one.sample}")


def _session(model: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# At a corner or a tie, and where a formula would say 0 * inf: operator, its attributes and literals, its inputs, their
# adjoints for g = 1.
CONVENTIONS: list[tuple[str, dict[str, Any], tuple[Any, ...], list[Any], list[Any]]] = [
    ("Relu", {}, (), [[0.0]], [[0.0]]),
    ("Abs", {}, (), [[0.0]], [[0.0]]),
    ("LeakyRelu", {"alpha": 0.25}, (), [[0.0]], [[0.25]]),
    ("Elu", {"alpha": 0.5}, (), [[0.0]], [[0.5]]),
    ("ThresholdedRelu", {"alpha": 1.0}, (), [[1.0]], [[0.0]]),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}, (), [[-1.0, 1.0]], [[0.0, 0.0]]),
    ("HardSwish", {}, (), [[-3.0, 3.0]], [[0.0, 1.0]]),
    ("Shrink", {"lambd": 0.5}, (), [[-0.5, 0.5]], [[0.0, 0.0]]),
    ("Clip", {}, (np.array(-1.0), np.array(2.0)), [[-1.5, -1.0, 2.0, 2.5]], [[0.0, 1.0, 1.0, 0.0]]),
    ("PRelu", {}, (), [[0.0, 0.0], [0.5, -2.0]], [[0.5, -2.0], [0.0, 0.0]]),
    ("Max", {}, (), [[1.0, 2.0], [1.0, 3.0]], [[0.5, 0.0], [0.5, 1.0]]),
    ("Min", {}, (), [[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]], [[1 / 3, 0.5], [1 / 3, 0.0], [1 / 3, 0.5]]),
    ("Pow", {}, (np.array([2.0, 1.0, 0.0]),), [[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]),
    ("Pow", {}, (), [[0.0, 2.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, math.log(2.0)]]),
    ("ReduceMax", {}, (np.array([1]),), [[[3.0, 1.0, 3.0]]], [[[0.5, 0.0, 0.5]]]),
    ("ReduceMin", {}, (np.array([1]),), [[[3.0, 1.0, 1.0]]], [[[0.0, 0.5, 0.5]]]),
    ("ReduceL1", {}, (np.array([1]),), [[[0.0, -2.0]]], [[[0.0, -1.0]]]),
    ("ReduceL2", {}, (np.array([1]),), [[[0.0, 0.0], [3.0, 4.0]]], [[[0.0, 0.0], [0.6, 0.8]]]),
    ("ReduceProd", {}, (np.array([1]),), [[[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]], [[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]),
    ("ReduceLogSumExp", {}, (np.array([1]),), [[[-math.inf, 1.0], [-math.inf, -math.inf]]], [[[0.0, 1.0], [0.0, 0.0]]]),
    ("ReduceSumSquare", {"noop_with_empty_axes": 1}, (), [[3.0, -2.0]], [[6.0, -4.0]]),
    ("ReduceL2", {"noop_with_empty_axes": 1}, (), [[3.0, -2.0, 0.0]], [[1.0, -1.0, 0.0]]),
    ("ReduceMean", {}, (np.zeros(0, np.int64),), [[[3.0, -2.0]]], [[[0.5, 0.5]]]),
    ("Unique", {}, (), [[2.0, 1.0, 2.0]], [[0.5, 1.0, 0.5]]),
    ("Unique", {"axis": 0}, (), [[[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]]], [[[0.5, 0.5], [0.5, 0.5], [1.0, 1.0]]]),
    ("Pow", {}, (), [[0.0, 0.0, -2.0], [2.0, 1.0, 2.0]], [[0.0, 1.0, -4.0], [0.0, 0.0, math.nan]]),
    ("Mod", {"fmod": 1}, (), [[-5.5, 5.5], [2.0, -2.0]], [[1.0, 1.0], [2.0, 2.0]]),
    ("Compress", {"axis": 0}, (np.array([False, False]),), [[[1.0], [2.0]]], [[[0.0], [0.0]]]),
]


@pytest.mark.parametrize(
    ("name", "attributes", "literals", "inputs", "adjoints"), CONVENTIONS, ids=lambda item: item if isinstance(item, str) else ""
)
def test_conventions(name: str, attributes: Any, literals: Any, inputs: Any, adjoints: Any) -> None:
    x = dict(enumerate(map(np.array, inputs)))
    one = build(OPS[name], sample(*(value.shape for value in x.values()), *literals, **attributes))
    found = one.run_gradient(x, {0: np.ones_like(one.run_forward(x)[0])})
    for position, expected in enumerate(adjoints):
        np.testing.assert_allclose(found[position], expected, rtol=1e-12, atol=0.0)


@over(ROWS)
def test_gradient_emits_operators_of_the_table(row: Op) -> None:
    """The table is closed, so that a gradient can be differentiated again."""
    for one in samples(row):
        assert [name for domain, name in sorted(one.emitted) if lookup(name, domain) is None] == []


@over([row for row in ROWS if row.blocked])
def test_nothing_flows_through_a_blocked_row(row: Op) -> None:
    for one in samples(row):
        assert not one.adjoints


# -------------------------------------------------------------------------------------------------------------- readings


@over([row for row in ROWS if row.numpy is not None and not row.random])
def test_numpy_reading_is_the_operator(row: Op) -> None:
    rng = stream(row)
    for one in samples(row):
        x = one.draw(rng, 5)
        found = row.numpy(*one.operands(x), **one.attributes)
        for value, expected in zip(found if isinstance(found, tuple) else (found,), one.run_forward(x), strict=False):
            np.testing.assert_allclose(np.asarray(value, np.float64), np.asarray(expected, np.float64), rtol=1e-6, atol=1e-7)


def boxes(one: OneNode, rng: np.random.Generator, open_ends: bool = True) -> tuple[dict[int, Interval], dict[int, Array]]:
    """A random sub-interval of the domain for each element, a batch axis at extent 1, some ends open; and a point in it at
    extent 5."""
    ranges, points = {}, {}
    a, b = one.sample.domain
    for position in one.drawn:
        ends = np.sort(rng.uniform(a, b, (2, *one.shape(position, 1))), axis=0)
        points[position] = np.broadcast_to(ends[0], one.shape(position, 5)) + rng.uniform(
            0.0, 1.0, one.shape(position, 5)
        ) * np.broadcast_to(ends[1] - ends[0], one.shape(position, 5))
        opened = rng.uniform(size=ends.shape) < (0.2 if open_ends and rng.uniform() < 0.5 else 0.0)
        ranges[position] = interval(np.where(opened[0], -np.inf, ends[0]), np.where(opened[1], np.inf, ends[1]))
    return ranges, points


@over([row for row in ROWS if row.range is not None and not row.random])
def test_range_contains_the_values(row: Op) -> None:
    rng = stream(row)
    for one in samples(row):
        for _ in range(20):
            ranges, x = boxes(one, rng)
            found = row.range(case_in(one, ranges))
            outputs = one.run_forward(x)
            for bound, y in zip(found if isinstance(found, tuple) else (found,), outputs, strict=False):
                assert bound.contains(np.asarray(y, np.float64)), f"{one.sample}: {ranges} -> {bound}, but {y}"


@over([row for row in ROWS if row.elementwise])
def test_slope_range_contains_the_slopes(row: Op) -> None:
    rng = stream(row)
    for one in samples(row):
        flowing = [i for i in one.drawn if row.derivatives[i] is not None]
        for _ in range(20):
            ranges, x = boxes(one, rng)
            case = case_in(one, ranges)
            for position in flowing:
                found = slope(NUMPY, row, position, tuple(one.operands(x)), **one.attributes)
                assert slope_range(NUMPY, row, position, case).contains(found), f"{one.sample}, input {position}: {ranges}"


def _line(one: OneNode, lo: float, hi: float) -> Array:
    """Points from ``lo`` to ``hi``, dense near 0, far out to 1e300, and on both sides of each kink."""
    far = np.geomspace(1e-3, 1e300, 4000)
    kinks = np.array([k + d for k in at(one.row.kinks, one.attributes) for d in (-1e-9, 1e-9)])
    grid = np.concatenate([np.linspace(-30.0, 30.0, 120001), far, -far, kinks, [lo, hi] if math.isfinite(hi - lo) else []])
    grid = np.concatenate([grid, np.linspace(max(lo, -30.0), min(hi, 30.0), 2001)])
    lo, hi = max(lo, one.row.defined[0]), min(hi, one.row.defined[1])
    return grid[(grid >= lo) & (grid <= hi)]


INTERVALS = [
    (-np.inf, np.inf),
    (-np.inf, -0.3),
    (0.2, np.inf),
    (-1.0, 1.0),
    (-3.5, -1.2),
    (-0.4, 6.0),
    (0.9, 2.5),
    (1.45, 1.6),
    (-2.0, -0.0),
]


@over(UNARY)
@pytest.mark.parametrize("ends", INTERVALS, ids=str)
def test_bounds_of_one_number_are_tight(row: Op, ends: tuple[float, float]) -> None:
    """The bounds of slope and value are the ranges themselves: no sample leaves them, and samples come within 1e-6 of their
    ends."""
    for one in samples(row):
        x = _line(one, *ends)
        if np.unique(x).size < 2:
            continue  # the function is defined nowhere on the interval, or at its end alone
        case = Case(one.attributes, ranges=(interval(*ends),))
        with np.errstate(all="ignore"):
            _is_range_of(slope_range(NUMPY, row, 0, case), np.asarray(slope(NUMPY, row, 0, (x,), **one.attributes), np.float64))
            _is_range_of(row.range(case), np.asarray(row.numpy(x, **one.attributes), np.float64))


def _is_range_of(bound: Interval, found: Array) -> None:
    assert not np.isnan(found).any()
    assert bound.contains(found)
    for end, reached in ((bound.lo, found.min()), (bound.hi, found.max())):
        # The logarithm and its like go to infinity so slowly that 1e300 and 1e-300 do not show it.
        assert abs(reached) > 6.0 if np.isinf(end) else reached == pytest.approx(float(end), rel=1e-6, abs=1e-6)


@over([row for row in UNARY if row.turns or row.extrema])
def test_listed_turning_points_are_turning_points(row: Op) -> None:
    """The slope at a turn, and the value at an extremum, is above or below both its neighbours, and stationary where it is
    smooth."""
    for one in samples(row):
        for turn in at(row.turns, one.attributes):
            _turns(slope(NUMPY, row, 0, (turn + NEAR,), **one.attributes), turn)
        for extremum in at(row.extrema, one.attributes):
            _turns(row.numpy(extremum + NEAR, **one.attributes), extremum)


NEAR = np.array([-1e-3, 0.0, 1e-3])


def _turns(f: Array, turn: float) -> None:
    """``f`` at three points around ``turn``: the middle one sticks out, and the parabola through them turns within 1e-6 of it."""
    assert (f[1] - f[0]) * (f[1] - f[2]) > 0, f"{turn}: {f}"
    off = 0.5e-3 * (f[2] - f[0]) / (f[0] - 2.0 * f[1] + f[2])
    assert abs(off) < 1e-6, f"{turn} is off by about {off:.1e}"


# ------------------------------------------------------------------------------------------------------------------ norms


def jacobian(one: OneNode, x: Mapping[int, Array], position: int) -> Array:
    """d output / d input by central differences, as a matrix."""
    columns = []
    for index in np.ndindex(x[position].shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = x[position].copy()
            moved[index] += step
            ends.append(np.ravel(one.run_forward({**x, position: moved})[0]))
        columns.append((ends[0] - ends[1]) / 2e-6)
    return np.stack(columns, axis=1)


@over([row for row in ROWS if row.norms is not None and not row.blocked])
def test_norms_enclose_the_singular_values(row: Op) -> None:
    """Of the Jacobian of the first output, for one sample, the other inputs known or in a range; J^T has a kernel where there
    are more outputs than inputs."""
    rng = stream(row)
    for one in samples(row):
        ranges, _ = boxes(one, rng, open_ends=False)
        x = {i: np.asarray(r.lo + rng.uniform(0.0, 1.0, r.lo.shape) * (r.hi - r.lo)) for i, r in ranges.items()}
        for position in one.drawn:
            others = {i: value for i, value in x.items() if i != position}
            j = jacobian(one, x, position)
            if not j.size:
                continue  # it chose nothing
            values = np.linalg.svd(j, compute_uv=False)
            least = float(values.min()) if j.shape[0] <= j.shape[1] else 0.0
            for case in (case_in(one, {position: ranges[position]}, others), case_in(one, ranges)):
                try:
                    lo, hi = row.norms(case, position)
                except NotImplementedError:
                    continue
                assert lo - 1e-6 * max(lo, 1.0) <= least, f"{one.sample}, input {position}: {lo} > {least}"
                assert float(values.max()) <= hi + 1e-6 * max(hi, 1.0), f"{one.sample}, input {position}: {hi} < {values.max()}"


SAMPLED = [row for row in ROWS if row.vjp is not None and (row.norms is not None or len(row.derivatives) > 1) and not row.random]


@over(SAMPLED)
def test_bound_of_a_row_holds_for_a_batch(row: Op) -> None:
    """Of the Jacobian of a whole batch: as it is for an operand that depends on data, over sqrt(N) for one that is shared.

    The first symbol counts samples; every other one is unknown.
    """
    rng = stream(row)
    for one in samples(row):
        if one.extents == (1,):
            continue
        ranges, _ = boxes(one, rng, open_ends=False)
        n = 3
        x = {i: np.asarray(r.lo + rng.uniform(size=one.shape(i, n)) * (r.hi - r.lo)) for i, r in ranges.items()}
        for position in one.adjoints:
            case = case_in(one, ranges)
            case = replace(case, shapes=tuple(map(anonymous, case.shapes)), outputs=tuple(map(anonymous, case.outputs)))
            greatest = float(np.linalg.norm(jacobian(one, x, position), 2))
            for data, scale in ((frozenset(range(len(x))), 1.0), (frozenset(x) - {position}, math.sqrt(n))):
                if scale > 1.0 and "N" in (case.shapes[position] or ()):
                    continue  # nothing that has samples is shared by them
                hi = extremes(row, replace(case, data=data), position, 0.0)[1]
                assert greatest <= scale * hi * (1.0 + 1e-6) + 1e-6, f"{one.sample}, input {position}, data {data}: {hi}"


def anonymous(dims: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return dims and tuple("?" + dim if isinstance(dim, str) and dim != "N" else dim for dim in dims)
