"""Operands that arrive at run time: the gradient is the one that constants give, from one file for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.one_node import FLOAT, OneNode, one_node, over, samples, stream
from tests.reference import evaluator
from vgcompile.derivatives import gradients
from vgcompile.ops import OPS
from vgcompile.ops.op import Op

Array = np.ndarray[Any, Any]

ROWS = [
    OPS[name]
    for name in (
        *("Slice", "Pad", "CenterCropPad", "Expand", "Tile", "Trilu", "Split", "Reshape", "Squeeze", "Unsqueeze"),
        *("Resize", "AffineGrid", "DFT", "STFT", "CumSum", "CumProd"),
    )
]


def opened(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model with its integer constants, and the scales of a resize, as graph inputs; and what they were. Outputs keep their
    rank alone."""
    given: dict[str, Array] = {}
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for tensor in list(free.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "i" or array.dtype == np.float32:
            given[tensor.name] = array
            free.graph.initializer.remove(tensor)
            free.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape))
    for value in free.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}.{axis}"
    return free, given


def _real(one: OneNode) -> list[str]:
    return [f"x{position}" for position in one.adjoints]


@over(ROWS)
def test_operands_at_run_time_give_the_same_gradient(row: Op) -> None:
    rng = stream(row)
    for one in samples(row):
        model, operands = opened(one.forward)
        if not operands:
            continue
        made = gradients(model, wrt=_real(one), seed_input=True)
        run = evaluator(made.model.SerializeToString())
        for n in one.extents:
            x = one.draw(rng, n)
            g = {k: rng.normal(size=np.shape(y)) for k, y in enumerate(one.run_forward(x)) if k in one.seeds}
            feeds = {f"adj.{one.forward.graph.output[k].name}": adjoint for k, adjoint in g.items()}
            found = run.run([made.by[name] for name in _real(one)], {**one.feeds(x), **operands, **feeds})
            for adjoint, expected in zip(found, one.run_gradient(x, g).values(), strict=True):
                np.testing.assert_allclose(adjoint, expected, rtol=1e-6, atol=1e-6, err_msg=f"{one.sample}, extent {n}")


@over([row for row in ROWS if row.name != "Resize"])  # its scales cannot be told from its values in float32
def test_operands_at_run_time_run_in_onnx_runtime(row: Op) -> None:
    rng = stream(row)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for index, one in enumerate(samples(row, FLOAT)):
        exact = one_node(row.name, index)
        model, operands = opened(one.forward)
        if not operands:
            continue
        made = gradients(model, wrt=_real(one), seed_input=True)
        session = onnxruntime.InferenceSession(made.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for n in one.extents:
            x = {k: value.astype(np.float32) for k, value in one.draw(rng, n).items()}
            g = {k: rng.normal(size=np.shape(y)) for k, y in enumerate(exact.run_forward(x)) if k in one.seeds}
            feeds = {f"adj.{one.forward.graph.output[k].name}": adjoint.astype(np.float32) for k, adjoint in g.items()}
            given = {**one.feeds(x, dtype=np.float32), **operands, **feeds}
            wanted = {i.name for i in session.get_inputs()}
            found = session.run(
                [made.by[name] for name in _real(one)], {name: array for name, array in given.items() if name in wanted}
            )
            for adjoint, expected in zip(found, exact.run_gradient(x, g).values(), strict=True):
                np.testing.assert_allclose(adjoint, expected, rtol=1e-3, atol=1e-4, err_msg=f"{one.sample}, extent {n}")


@pytest.mark.parametrize("k", [-1, 0, 2])
def test_trilu_takes_its_diagonal_at_run_time(k: int) -> None:
    one = next(one for one in samples(OPS["Trilu"]) if len(one.sample.shapes) > 1)
    model, operands = opened(one.forward)
    (name,) = operands
    made = gradients(model, wrt=["x0"], seed_input=True)
    x, g = np.ones((2, 3, 4)), np.arange(24.0).reshape(2, 3, 4)
    feeds = {"x0": x, f"adj.{one.forward.graph.output[0].name}": g, name: np.array(k)}
    (found,) = evaluator(made.model.SerializeToString()).run([made.by["x0"]], feeds)
    np.testing.assert_array_equal(found, np.tril(g, k))


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd"])
def test_reduced_axes_that_go_are_counted(operator: str) -> None:
    """The operand's extent tells the rank of what is left, also to operators behind the reduction."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> m (double[N, 3, 4] x, int64[2] axes) => (double[M] y) {{
      r = {operator}<keepdims = 0>(x, axes)  y = Mul(r, r)
    }}"""
    made = gradients(onnx.parser.parse_model(text), wrt="inputs", seed_input=True)
    x, g = np.random.default_rng(3).uniform(0.5, 2.0, (2, 3, 4)), np.array([0.5, -1.0, 2.0])
    run = evaluator(made.model.SerializeToString())
    axes = np.array([2, 0])
    value = {
        "ReduceSum": lambda x: x.sum((0, 2)),
        "ReduceMean": lambda x: x.mean((0, 2)),
        "ReduceMax": lambda x: x.max((0, 2)),
        "ReduceL2": lambda x: np.sqrt((x * x).sum((0, 2))),
        "ReduceLogSumExp": lambda x: np.log(np.exp(x).sum((0, 2))),
        "ReduceProd": lambda x: x.prod((0, 2)),
    }[operator]
    direction = np.random.default_rng(4).standard_normal(x.shape)
    found = dict(zip(run.output_names, run.run(None, {"x": x, "axes": axes, "adj.y": g}), strict=True))
    slope = (value(x + 1e-6 * direction) ** 2 - value(x - 1e-6 * direction) ** 2) / 2e-6
    np.testing.assert_allclose((found["grad.x"] * direction).sum(), (g * slope).sum(), rtol=1e-6)
