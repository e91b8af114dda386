"""A rule cannot tell nodes from each other that a recipe takes for alike: what is emitted again is what the rule would emit."""

from __future__ import annotations

from unittest import mock

import ml_dtypes
import numpy as np
import onnx
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


def _asked(recipes: Recipes, x: ir.Value, **attributes: float) -> object:
    y = ir.node("Elu", [x], attributes=attributes).outputs[0]
    y.name, y.shape, y.type = "y", x.shape, x.type
    return recipes.likeness(y.producer(), [None], [True])  # type: ignore[arg-type]


def test_nodes_that_differ_in_a_zero_or_in_a_type_are_not_alike() -> None:
    """0.0 and -0.0 are equal, 1 and 1.0 as well: what is emitted with them is not."""
    x = ir.Value(name="x", shape=ir.Shape((3,)), type=ir.TensorType(ir.DataType.FLOAT))
    recipes = Recipes()
    assert len({_asked(recipes, x, alpha=alpha) for alpha in (0.0, -0.0, 0, 1, 1.0, 0.0, 1.0)}) == 5


def test_a_slope_of_negative_zero_is_not_repeated_as_zero() -> None:
    text = "m (float[N] x, float[N] y) => (float[N] a, float[N] b) { a = Elu<alpha = 0.0>(x)  b = Elu<alpha: float = -0.0>(y) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    made = grad(model, wrt="inputs", seed_input=True)
    with mock.patch.object(Recipes, "likeness", return_value=None):
        assert grad(model, wrt="inputs", seed_input=True).SerializeToString() == made.SerializeToString()


def test_a_shape_that_is_no_more_is_taken_for_no_other() -> None:
    """A value's shape may be stated again: another may then come to lie where it lay."""
    recipes, kind, asked = Recipes(), ir.TensorType(ir.DataType.FLOAT), []
    for extent in range(1, 50):
        x = ir.Value(name="x", shape=ir.Shape((extent,)), type=kind)
        asked.append(recipes.likeness(ir.node("Elu", [x]), [None], [True]))
        x.shape = None
    assert len(set(asked)) == len(asked)


def test_constants_of_equal_bytes_keep_their_types() -> None:
    op = Emitter(ir.Graph([], [], nodes=[], opset_imports={"": 21}))
    types = ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.int8, np.bool_
    made = [op.constant(np.zeros((), dtype)) for dtype in types]
    assert [value.const_value.numpy().dtype for value in made] == [np.dtype(dtype) for dtype in types]
    recipes = Recipes()
    assert len({recipes._constant(value) for value in made}) == len(types)
