"""Sums of parts that fill an axis become one concatenation, and nothing else does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vgcompile import grad


def _model(slices: list[tuple[int, int]], width: int = 6, axis: int = 2) -> onnx.ModelProto:
    """The sum over slices of tanh(k * slice), each with another k."""
    nodes, held, sums = [], [], []
    for i, (start, end) in enumerate(slices):
        for name, number in (("start", start), ("end", end), ("axis", axis)):
            held.append(numpy_helper.from_array(np.array([number]), f"{name}{i}"))
        held.append(numpy_helper.from_array(np.array(1.0 + i, np.float32), f"factor{i}"))
        nodes.append(helper.make_node("Slice", ["x", f"start{i}", f"end{i}", f"axis{i}"], [f"part{i}"]))
        nodes.append(helper.make_node("Mul", [f"part{i}", f"factor{i}"], [f"scaled{i}"]))
        nodes.append(helper.make_node("Tanh", [f"scaled{i}"], [f"tanh{i}"]))
        nodes.append(helper.make_node("ReduceSum", [f"tanh{i}"], [f"sum{i}"], keepdims=0))
        sums.append(f"sum{i}")
    nodes.append(helper.make_node("Sum", sums, ["loss"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", width])]
    graph = helper.make_graph(nodes, "parts", inputs, [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("slices", "joined"),
    [
        ([(0, 3), (3, 6)], True),  # halves
        ([(4, 6), (0, 2), (2, 4)], True),  # thirds, in another order
        ([(0, 3), (4, 6)], False),  # a hole
        ([(0, 4), (2, 6)], False),  # an overlap
        ([(0, 6), (0, 2), (2, 4), (4, 6)], True),  # what is read as a whole is added to the joined parts
    ],
)
def test_parts(slices: list[tuple[int, int]], joined: bool) -> None:
    model = _model(slices)
    made = grad(model, wrt="inputs")
    assert any(node.op_type == "Concat" for node in made.graph.node) == joined
    x = np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)
    truth = np.zeros(x.shape)
    for i, (start, end) in enumerate(slices):
        truth[..., start:end] += (1.0 + i) / np.cosh((1.0 + i) * x[..., start:end].astype(np.float64)) ** 2
    _, found = ReferenceEvaluator(made).run(None, {"x": x})
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_a_joined_output_keeps_its_name() -> None:
    made = grad(_model([(0, 3), (3, 6)]), wrt="inputs")
    assert [value.name for value in made.graph.output] == ["loss", "grad.x"]
    assert next(node for node in made.graph.node if "grad.x" in node.output).op_type == "Concat"


TURNS = (("1, 0, 2", "1, 0, 2", True), ("1, 2, 0", "2, 0, 1", True), ("1, 2, 0", "1, 2, 0", False), (None, None, True))


@pytest.mark.parametrize(("first", "second", "undone"), TURNS)
def test_a_transpose_that_is_undone(first: str | None, second: str | None, undone: bool) -> None:
    """What reads it reads what both were taken of."""
    one, two = ("Transpose" + (f"<perm = [{order}]>" if order else "") for order in (first, second))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        m (float[A, A, A] x) => (float loss) {{
          n = Neg(x)
          y = {one}(n)
          z = {two}(y)
          s = Sin(z)
          loss = ReduceSum<keepdims = 0>(s)
        }}"""
    made = grad(onnx.parser.parse_model(text), wrt="inputs", loss="loss")
    assert [value.name for value in made.graph.output] == ["loss", "grad.x"]
    assert sum(node.op_type == "Transpose" for node in made.graph.node) == (0 if undone else 4)
    x = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
    _, found = ReferenceEvaluator(made).run(None, {"x": x})
    np.testing.assert_allclose(found, -np.cos(x), rtol=1e-5, atol=1e-6)
