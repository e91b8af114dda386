"""What a row has no formula for it refuses by NotImplementedError, in words: an assertion that fails is our fault, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vgcompile
from tests.one_node import ROWS, one_node
from vgcompile.analysis import Options
from vgcompile.graph.case import case_of
from vgcompile.graph.load import load
from vgcompile.ops.op import Case, Op
from vgcompile.signal import Signal, constant

PREDICTED = [(row, index) for row in ROWS if row.moments is not None for index in range(len(row.samples))]
SOME = Signal(0.1, 1.0, 0.3, 0.2)


def answers(row: Op, case: Case, signals: Sequence[Signal | None]) -> None:
    """Each statistic that is asked of the row is given, or refused by a reason."""
    assert row.moments is not None
    asked: list[Any] = [lambda: row.moments.forward(case, signals)]  # type: ignore[union-attr]
    for position, shape in enumerate(case.shapes):
        if shape is not None:
            asked.append(lambda position=position: row.moments.backward(case, position, SOME, signals))  # type: ignore[union-attr]
    given: list[Any] = []
    said = []
    for ask in asked:
        try:
            found = ask()
        except NotImplementedError as refused:
            said.append(str(refused))
        else:
            given += found if isinstance(found, tuple) else (found,)
    assert all(isinstance(each, Signal) for each in given)
    assert all(reason and not reason.endswith(".") for reason in said)


@pytest.mark.parametrize(("row", "index"), PREDICTED, ids=lambda each: getattr(each, "name", each))
def test_moments_are_given_or_refused_whatever_is_known(row: Op, index: int) -> None:
    """On each sample: with every operand's statistics known, with each one's unknown, and with none."""
    case = replace(case_of(one_node(row.name, index).node), batch=8)
    known = [None if shape is None else SOME if i == 0 else constant(0.0, 0.5) for i, shape in enumerate(case.shapes)]
    answers(row, case, known)
    answers(row, case, [None] * len(known))
    for unknown in range(len(known)):
        answers(row, case, [None if i == unknown else signal for i, signal in enumerate(known)])


def attending(**attributes: Any) -> onnx.ModelProto:
    """x W [N, 2, 5, 4] attends to itself by the standard operator, and is summed up."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Attention", ["h", "h", "h"], ["a"], **attributes),
        helper.make_node("ReduceMean", ["a"], ["loss"], keepdims=0),
    ]
    w = onnx.numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 4])
    y = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "attending", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def test_attention_without_numbers_of_heads_is_predicted() -> None:
    """Queries of four axes say how many heads there are; no attribute does."""
    found = vgcompile.analyze(load(attending()), Options(tiers=("expected",), batch=4))
    assert all(edge.gain.expected.mean is not None for edge in found.edges)


def test_a_reason_is_that_of_what_lost_the_operand() -> None:
    """A dense layer behind a sum of squares, of which nothing is known, has the sum's reason and not its own."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceSumSquare", ["h", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
        helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0),
    ]
    rng = np.random.default_rng(0)
    held = [
        onnx.numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), "w"),
        onnx.numpy_helper.from_array(rng.normal(size=(1, 3)).astype(np.float32), "v"),
        onnx.numpy_helper.from_array(np.array([1]), "axes"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    model = helper.make_model(
        helper.make_graph(nodes, "squares", [x], [y], held), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    found = vgcompile.analyze(load(model), Options(tiers=("expected",), batch=4))
    reasons = {edge.gain.expected.reason for edge in found.edges if edge.gain.expected.mean is None}
    assert reasons == {"a sum of squares needs the fourth moment"}
