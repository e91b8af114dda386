"""ONNX's own test cases of single operators, differentiated: as published, with integer operands that come at run time, and with
symbols for extents; against differences in float64, and run by ONNX Runtime."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx
import pytest

from tests.node_cases import CaseGradient, NodeCase, differentiated, node_cases, symbolic

OPERATORS = """
Gather GatherElements GatherND ScatterElements ScatterND TopK Compress Unique ReverseSequence OneHot Range Where Max Min Mean Sum
Mod Pow PRelu Clip Softmax LogSoftmax SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss Dropout DequantizeLinear
DynamicQuantizeLinear Reshape Flatten Squeeze Unsqueeze ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2
ReduceLogSum ReduceLogSumExp ReduceSumSquare Elu Selu Celu Softplus Softsign Sqrt Abs Relu LeakyRelu ThresholdedRelu Shrink
HardSigmoid HardSwish Mish Gelu
"""

# Cases whose inputs lie on a corner, at a jump, or where the value is not finite: differences say nothing there.
CORNERS = """
elu_example leakyrelu_example selu_example thresholdedrelu_example reduce_min_default_axes_keepdims_example pow
range_float_type_positive_delta range_float16_type_positive_delta unique_sorted_without_axis unique_not_sorted_without_axis
unique_sorted_with_axis unique_sorted_with_axis_3d unique_sorted_with_negative_axis mod_float_edge_cases_fmod_0_float16
mod_float_edge_cases_fmod_0_float32 mod_float_edge_cases_fmod_0_float64 mod_float_edge_cases_fmod_1_float16
mod_float_edge_cases_fmod_1_float32 mod_float_edge_cases_fmod_1_float64 reduce_log_sum_empty_set
reduce_log_sum_exp_empty_set reduce_max_empty_set reduce_min_empty_set
"""
# A node that draws, and settings that no gradient is claimed for, by their operator.
DRAWN = "training_dropout_default training_dropout_default_mask training_dropout training_dropout_mask"
FIXED = {"OneHot": ("indices", "depth"), "Dropout": ("r",), "Range": ("limit",)}
# Types and attributes that ONNX Runtime 1.32 has no kernel for, forward.
UNKNOWN_TO_RUNTIME = (
    "e4m3fn",
    "e5m2",
    "int2",
    "int4",
    "float4e2m1",
    "bfloat16",
    "uint32",
    "uint64",
    "fmod_0",
    "celu_float16",
    "range_float16",
)

CASES = [
    pytest.param(case, id=case.name.removeprefix("test_"))
    for case in node_cases(frozenset(OPERATORS.split()))
    if case.real and case.name.removeprefix("test_") not in DRAWN.split()
]


def _models(case: NodeCase) -> dict[str, onnx.ModelProto]:
    """The readings of a case."""
    return {"published": case.model, "real": symbolic(case, case.real), "all": symbolic(case, list(case.inputs))}


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_a_published_case(case: NodeCase) -> None:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    name = case.name.removeprefix("test_")
    y = case.values(case.in_double)
    v = {x: rng.normal(size=case.inputs[x].shape) * (x not in FIXED.get(case.operator, ())) for x in case.real}
    for reading, model in _models(case).items():
        made = differentiated(model, case.real)
        g = {output: rng.normal(size=np.shape(y[output])) for output in made.seeds}
        exact = made.run(case.in_double, g)
        assert {x: value.shape for x, value in exact.items()} == {x: case.inputs[x].shape for x in case.real}
        if name not in CORNERS.split():
            found = sum(float(np.vdot(v[x], value)) for x, value in exact.items())
            scale = 1.0 + sum(float(np.abs(v[x] * value).sum()) for x, value in exact.items())
            assert found == pytest.approx(case.along(g, v), abs=1e-6 * scale), reading
        if not any(word in name for word in UNKNOWN_TO_RUNTIME):
            _check_stock(made.run_stock(case.inputs, g), exact, reading)


def _check_stock(found: dict[str, Any], exact: dict[str, Any], reading: str) -> None:
    for x, value in found.items():
        assert value.shape == exact[x].shape
        rounding = 1e-2 if value.dtype == np.float16 else 1e-4
        scale = max(float(np.abs(np.where(np.isfinite(exact[x]), exact[x], 0.0)).max(initial=0.0)), 1.0)
        np.testing.assert_allclose(np.asarray(value, np.float64), exact[x], rtol=rounding, atol=rounding * scale, err_msg=reading)


# Cases with operands that are no real numbers, a gradient, and none of the elements that tie (a jump of the gradient).
TIES = "scatternd_max scatternd_min"
AT_RUN_TIME = [
    pytest.param(case, id=name)
    for case, name in ((param.values[0], str(param.id)) for param in CASES)
    if set(case.inputs) - set(case.real)
    and set(case.real) - set(FIXED.get(case.operator, ()))
    and name not in (CORNERS + TIES).split()
]


@pytest.mark.parametrize("case", AT_RUN_TIME)
def test_gradient_of_the_gradient_with_operands_at_run_time(case: NodeCase) -> None:
    """By the case's first real input that has a gradient: <h, dx(x + t v, g + t w)> / dt."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    x = next(value for value in case.real if value not in FIXED.get(case.operator, ()))
    first = differentiated(case.model, [x])
    adjoint, seeds = first.by[x], [f"adj.{output}" for output in first.seeds]
    again = differentiated(first.model, [x, *seeds], loss=adjoint)
    y = case.values(case.in_double)
    feeds = {**case.in_double, **{seed: rng.normal(size=np.shape(y[seed.removeprefix("adj.")])) for seed in seeds}}
    h = {adjoint: rng.normal(size=case.inputs[x].shape)}
    v = {name: rng.normal(size=np.shape(feeds[name])) for name in (x, *seeds)}
    second = again.run(feeds, h)
    found = sum(float(np.vdot(v[name], value)) for name, value in second.items())

    def along(t: float) -> float:
        moved = {name: value + t * v[name] if name in v else value for name, value in feeds.items()}
        return float(np.vdot(h[adjoint], first.run(moved, {})[x]))

    scale = 1.0 + sum(float(np.abs(v[name] * value).sum()) for name, value in second.items())
    assert found == pytest.approx((along(1e-6) - along(-1e-6)) / 2e-6, abs=1e-6 * scale)


def test_cases_are_many() -> None:
    """An empty list of cases would pass in silence."""
    assert len(CASES) > 250
    assert isinstance(differentiated(CASES[0].values[0].model, CASES[0].values[0].real), CaseGradient)
