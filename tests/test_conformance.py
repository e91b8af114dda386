"""The conformance suite on a few cases of each family, and the suite itself: what is wrong is called wrong, a kink is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.conformance import tools
from benchmarks.conformance.cases import Case, published, symbolic
from benchmarks.conformance.suite import judged, suite
from benchmarks.conformance.table import markdown, summary
from benchmarks.conformance.tools import Compiled, Refused
from benchmarks.conformance.truth import truth
from benchmarks.conformance.verdict import REFUSED, RIGHT, WRONG, judge
from benchmarks.conformance.workers import spread

CASES = [
    "add_bcast",
    "averagepool_2d_pads",
    "basic_conv_with_padding",
    "batchnorm_epsilon",
    "clip_default_max_expanded",
    "concat_2d_axis_1",
    "div",
    "dropout_default_ratio",
    "gather_1",
    "gelu_tanh_1",
    "gemm_default_vector_bias",
    "hardswish",
    "instancenorm_epsilon",
    "layer_normalization_2d_axis1",
    "logsoftmax_axis_1",
    "matmul_3d",
    "maxpool_2d_ceil",
    "maxpool_with_argmax_2d_precomputed_pads",
    "nllloss_NC",
    "pow_types_float32_int32",
    "prelu_broadcast",
    "reduce_l2_keep_dims_example",
    "reduce_max_default_axes_keepdim_example",
    "relu",
    "scatter_elements_with_axis",
    "sce_mean",
    "slice",
    "softmax_large_number",
    "split_equal_parts_1d_opset18",
    "transpose_all_permutations_2",
    "where_example",
]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {case.name: case for case in published()[0]}


def test_the_set() -> None:
    found, excluded = published()
    assert len(found) + len(excluded) > 1800
    assert len({case.operator for case in found}) > 130
    assert {e.reason for e in excluded} >= {"no real output", "no real input", "neither real input nor output"}


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_right_in_both_forms(cases: dict[str, Case], name: str) -> None:
    found = judged(cases[name], ["vgcompile"], ["published", "symbolic"])
    assert not found.excluded
    assert {(v.form, v.verdict, v.reason) for v in found.verdicts} <= {("published", RIGHT, ""), ("symbolic", RIGHT, "")}


def test_the_symbolic_form_counts_samples(cases: dict[str, Case]) -> None:
    found = symbolic(cases["basic_conv_with_padding"])
    assert found is not None
    first = [str(value.type.tensor_type.shape.dim[0].dim_param) for value in found.model.graph.input]
    assert first == ["N", ""]  # the kernel has the same extent and is no sample


# The suite itself: tools that do what the test says.


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Case], Compiled]], None]]:
    def use(compile_: Callable[[Case], Compiled]) -> None:
        monkeypatch.setitem(tools.TOOLS, "tool", compile_)

    return use


def gradient_of(case: Case, *nodes: onnx.NodeProto) -> Compiled:
    """A file with an input adj.y, and nodes that make grad.x."""
    (x,), (y,) = case.model.graph.input, case.model.graph.output
    adjoint, gradient = onnx.ValueInfoProto(), onnx.ValueInfoProto()
    adjoint.CopyFrom(y)
    gradient.CopyFrom(x)
    adjoint.name, gradient.name = "adj.y", "grad.x"
    graph = helper.make_graph(nodes, "gradient", [x, adjoint], [gradient])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Compiled(model, {y.name: "adj.y"}, {x.name: "grad.x"})


def unary(operator: str, x: Any) -> Case:
    x = np.asarray(x, np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], operator, values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    expected = {"Relu": np.maximum(x, 0), "Abs": np.abs(x), "Sign": np.sign(x)}[operator]
    return Case(operator.lower(), operator, model, {"x": x}, {"y": expected})


def verdict(case: Case) -> tuple[str, str]:
    found = judge(case, "published", "tool", lambda: truth(case))
    return found.verdict, found.kind


MASK = (helper.make_node("Sign", ["y"], ["m"], "mask"), helper.make_node("Mul", ["adj.y", "m"], ["grad.x"]))


@pytest.mark.parametrize("x", [[1.0, -2.0, 3.0], [0.0, -2.0, 0.0]], ids=["smooth", "kink"])
def test_right_is_right(tool: Any, x: list[float]) -> None:
    tool(lambda case: gradient_of(case, *forward(case), *MASK))
    assert verdict(unary("Relu", x)) == (RIGHT, "")


def forward(case: Case) -> list[onnx.NodeProto]:
    return list(case.model.graph.node)


def test_a_wrong_gradient_is_wrong(tool: Any) -> None:
    tool(lambda case: gradient_of(case, helper.make_node("Add", ["adj.y", "adj.y"], ["grad.x"])))
    assert verdict(unary("Relu", [1.0, -2.0, 3.0])) == (WRONG, "disagrees")
    assert verdict(unary("Abs", [0.0, 0.0, 0.0])) == (WRONG, "disagrees")  # 2 is not between -1 and 1


def test_a_gradient_that_is_wrong_beside_a_kink_is_wrong(tool: Any) -> None:
    """Zeros lie between the slopes of |x| at 0; a little beside it they do not."""
    tool(lambda case: gradient_of(case, helper.make_node("Sub", ["adj.y", "adj.y"], ["grad.x"])))
    assert verdict(unary("Abs", [0.0, 0.0])) == (WRONG, "disagrees")
    assert verdict(unary("Sign", [0.0, 1.0])) == (RIGHT, "")  # a jump: zeros are right beside it


def test_a_gradient_that_is_not_finite_is_wrong(tool: Any) -> None:
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["adj.y", "zero"], ["grad.x"])]
    tool(lambda case: gradient_of(case, *nodes))
    assert verdict(unary("Relu", [1.0, -2.0, 3.0])) == (WRONG, "not finite")


def test_a_file_that_does_not_run_and_a_tool_that_crashes_are_wrong(tool: Any) -> None:
    tool(lambda case: gradient_of(case, helper.make_node("Reshape", ["adj.y", "x"], ["grad.x"])))
    assert verdict(unary("Relu", [1.0, -2.0])) == (WRONG, "does not run")

    def crash(case: Case) -> Compiled:
        raise KeyError("x")

    tool(crash)
    assert verdict(unary("Relu", [1.0, -2.0])) == (WRONG, "crashes")


def test_a_refusal_is_a_refusal(tool: Any) -> None:
    def refuse(case: Case) -> Compiled:
        raise Refused("no rule")

    tool(refuse)
    assert verdict(unary("Relu", [1.0])) == (REFUSED, "")


def test_a_process_that_dies_or_hangs_ends_its_case_alone() -> None:
    def task(index: int) -> int:
        if index == 1:
            __import__("os")._exit(1)
        if index == 2:
            __import__("time").sleep(60)
        return index

    found = dict(spread(task, 4, 2, 2.0, lambda index, why: why))
    assert found == {0: 0, 1: "the process died", 2: "it took more than 2 s", 3: 3}


def test_the_tables() -> None:
    found = suite(["vgcompile"], ["published"], lambda case: case.name in ("relu", "hardmax_example"), jobs=1)
    assert "2" in summary(found, ["vgcompile"], ["published"])
    text = markdown(found, ["vgcompile"], ["published"], "onnx")
    assert "| published | vgcompile | 2 | 2 (100.0 %)" in text and "| Relu | 1 | 1 right |" in text
    assert replace(found, verdicts=()).size == 0
