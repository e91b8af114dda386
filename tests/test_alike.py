"""A rule cannot tell nodes from each other that a recipe takes for alike: what is emitted again is what the rule would emit."""

from __future__ import annotations

from unittest import mock

import onnx_ir as ir
import pytest

from benchmarks.exports.synthetic import KINDS, synthetic
from tests.one_node import DOUBLE, FLOAT, ROWS, alike, allows, over
from vgcompile import grad
from vgcompile.graph.emit import Emitter, dims
from vgcompile.ops.op import Op, Sample
from vgcompile.passes.alike import Recipe, Recipes
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import Profile, lower

COPIES = 3
DIFFERENTIABLE = [row for row in ROWS if not row.blocked and not row.uncovered]


def _gradient(row: Op, sample: Sample, dtype: ir.DataType) -> bytes:
    """The model of several nodes of one kind with its adjoints appended."""
    model, _ = alike(row, sample, dtype, COPIES)
    if row.vjp is None and row.nested is None:
        lower(model)
    graph = model.graph
    real = [y for y in graph.outputs if y.dtype is not None and y.dtype.is_floating_point()]
    seeds = {y: ir.Value(name=f"g.{y.name}", shape=ir.Shape(dims(y)), type=ir.TensorType(y.dtype)) for y in real}
    wanted = list(graph.inputs)
    graph.inputs.extend(seeds.values())
    totals = differentiate(model, seeds, wanted, Emitter(graph, model.opset_imports[""])).totals
    graph.outputs.extend(totals[x] for x in wanted if x in totals and totals[x].producer() is not None)
    text: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return text


@over(DIFFERENTIABLE)
def test_what_is_repeated_is_what_the_rule_would_emit(row: Op) -> None:
    dtype = DOUBLE if allows(row, DOUBLE) else FLOAT
    for sample in row.samples:
        repeated = _gradient(row, sample, dtype)
        with mock.patch.object(Recipes, "likeness", return_value=None):
            assert _gradient(row, sample, dtype) == repeated


def _opened(row: Op, sample: Sample, dtype: ir.DataType, profile: Profile) -> bytes:
    model, _ = alike(row, sample, dtype, COPIES)
    text: bytes = ir.to_proto(lower(model, profile)).SerializeToString(deterministic=True)
    return text


@pytest.mark.parametrize("profile", ["fast", "portable"])
@over([row for row in ROWS if row.bodies])
def test_what_is_repeated_is_what_the_body_would_emit(row: Op, profile: Profile) -> None:
    dtype = DOUBLE if allows(row, DOUBLE) else FLOAT
    for sample in row.samples:
        repeated = _opened(row, sample, dtype, profile)
        with mock.patch.object(Recipes, "likeness", return_value=None):
            assert _opened(row, sample, dtype, profile) == repeated


def test_most_rows_are_repeated() -> None:
    """Those that are not: rows with bodies, rules that make large constants, extents that only a run tells."""
    with mock.patch.object(Recipe, "repeated", autospec=True, side_effect=Recipe.repeated) as calls:
        asked, repeated = 0, 0
        for row in DIFFERENTIABLE:
            if row.vjp is not None:
                before = calls.call_count
                _gradient(row, row.samples[0], DOUBLE if allows(row, DOUBLE) else FLOAT)
                asked, repeated = asked + 1, repeated + (calls.call_count == before + COPIES - 1)
    assert repeated >= 0.8 * asked


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_net_is_differentiated_by_few_rules(kind: str) -> None:
    model = synthetic(kind, 120)
    with mock.patch.object(Recipe, "repeated", autospec=True, side_effect=Recipe.repeated) as calls:
        made = grad(model)
    assert calls.call_count >= 60
    with mock.patch.object(Recipes, "likeness", return_value=None):
        assert grad(model).SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


def test_nodes_that_differ_in_a_constant_are_not_alike() -> None:
    """``x ** 2`` and ``x ** 3``: the exponent is all that tells them apart."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    op = Emitter(graph)
    x = [ir.Value(name=f"x{i}", shape=ir.Shape((3,)), type=ir.TensorType(ir.DataType.FLOAT)) for i in range(3)]
    graph.inputs.extend(x)
    y = [op.Pow(value, exponent) for value, exponent in zip(x, (2.0, 3.0, 2.0), strict=True)]
    recipes = Recipes()
    adjoints = [ir.Value(name=f"g{i}", shape=value.shape, type=value.type) for i, value in enumerate(y)]
    square, cube, again = (recipes.likeness(a.producer(), [g], [True, False]) for a, g in zip(y, adjoints, strict=True))
    assert square == again != cube
    assert None not in (square, cube)


def test_a_value_that_is_read_twice_is_two_operands() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    op = Emitter(graph)
    x, y = (ir.Value(name=name, shape=ir.Shape((3,)), type=ir.TensorType(ir.DataType.FLOAT)) for name in "xy")
    graph.inputs.extend((x, y))
    square, product = op.Mul(x, x), op.Mul(x, y)
    assert Recipes().likeness(square.producer(), [None], [True, True]) is None
    assert Recipes().likeness(product.producer(), [None], [True, True]) is not None
