"""Normalizing a foreign file: whatever an exporter writes comes out as one opset, typed, and computes what it did.

The oracle of values is ONNX Runtime on the file as it was; of gradients, a closed form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from vgcompile.derivatives import grad, open_subject
from vgcompile.errors import ModelError, UserError
from vgcompile.graph.emit import dims
from vgcompile.graph.load import trainable
from vgcompile.graph.normalize import Normalized, normalized
from vgcompile.graph.skeleton import serialized
from vgcompile.graph.view import graphs_of
from vgcompile.passes.lower import lower


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)  # type: ignore[no-any-return]


def written_out(given: Normalized) -> onnx.ModelProto:
    return serialized(lower(given.model))


def assert_same(model: onnx.ModelProto, feeds: dict[str, Any], **tolerance: float) -> Normalized:
    given = normalized(model)
    assert_typed(given)
    for before, after in zip(run(model, feeds), run(written_out(given), feeds), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})
    return given


def assert_typed(given: Normalized) -> None:
    for graph in graphs_of(given.model.graph):
        for value in (*graph.inputs, *(value for node in graph for value in node.outputs if value.name)):
            assert value.type is not None
            assert value.shape is not None or not isinstance(value.type, ir.TensorType)
            assert value.shape is None or "None" not in dims(value)


def model_of(text: str, **initializers: np.ndarray[Any, Any]) -> onnx.ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in initializers.items())
    return model


HEAD = '<ir_version: 10, opset_import: ["": 21]>'
X = np.float32([[1, 2], [3, -4]])


# functions


def test_functions_in_functions_with_attributes_and_the_same_name_in_two_domains() -> None:
    model = parser.parse_model("""
    <ir_version: 10, opset_import: ["": 18, "a": 1, "b": 1]>
    main (float[N, 2] x) => (float[N, 2] y) { u = a.act<alpha = 0.25>(x)  y = b.act(u) }
    <domain: "a", opset_import: ["": 18, "b": 1]> act<alpha>(x) => (y) { l = LeakyRelu<alpha: float = @alpha>(x)  y = b.act(l) }
    <domain: "b", opset_import: ["": 18]> act (x) => (y) { two = Constant<value_float = 2.0>()  y = Mul(x, two) }
    """)
    given = assert_same(model, {"x": X})
    assert [node.op_type for node in given.model.graph] == ["LeakyRelu", "Mul", "Mul"]
    assert given.model.opset_imports == {"": 21}


def test_a_function_of_another_opset() -> None:
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 18, "a": 1]>
    main (float[N, 2] x) => (float[N, 1] y) { y = a.total(x) }
    <domain: "a", opset_import: ["": 13]> total (x) => (y) { y = ReduceMean<axes = [1]>(x) }
    """)
    (y,) = run(written_out(normalized(model)), {"x": X})
    np.testing.assert_allclose(y, X.mean(1, keepdims=True))


# initializers


def test_a_weight_that_is_used_twice_sums_its_gradient() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float loss) <float[2] w = {3, 5}>
    { same = Identity(w)  a = Mul(x, w)  b = Mul(a, same)  loss = ReduceSum<keepdims = 0>(b) }"""
    )
    joint = grad(parser.parse_model(text))
    assert [value.name for value in joint.graph.output] == ["loss", "grad.w"]
    _, found = run(joint, {"x": X})
    np.testing.assert_allclose(found, 2 * np.float32([3, 5]) * X.sum(0))


def test_statistics_behind_identity_are_no_parameters() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float[N, 2] y)
    <float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] mean = {0, 0}, float[2] var = {1, 1}>
    { m2 = Identity(mean)  y = BatchNormalization(x, s, b, m2, var) }"""
    )
    given = normalized(parser.parse_model(text))
    assert trainable(given.model, given.initializers) == ["s", "b"]


@pytest.mark.parametrize("version", [3, 8])
def test_initializers_among_the_inputs(version: int) -> None:
    model = parser.parse_model(
        "<ir_version: 8, opset_import: ['': 9]>".replace("'", '"')
        + """ m (float[N, 2] x) => (float[N, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}, int64[2] shape = {-1, 2}> { r = Reshape(x, shape)  y = MatMul(r, w) }"""
    )
    model.ir_version = version
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    given = normalized(model)
    assert [value.name for value in given.model.graph.inputs] == ["x"]
    assert open_subject(model).parameters == ("w",)
    np.testing.assert_allclose(run(written_out(given), {"x": X})[0], X @ np.float32([[1, 2], [3, 4]]))


def test_a_constant_that_wrt_names() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float loss)
    { w = Constant<value = float[2] {2, 3}>()  y = Mul(x, w)  loss = ReduceSum<keepdims = 0>(y) }"""
    )
    model = parser.parse_model(text)
    assert open_subject(model).parameters == ()
    np.testing.assert_allclose(run(grad(model, wrt=["w"]), {"x": X})[1], X.sum(0))


def test_sparse_tensors_become_dense() -> None:
    model = parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] y) { a = MatMul(x, w)  y = Add(a, c) }")
    for name, indices in (("w", np.int64([[0, 1], [1, 0]])), ("c", np.int64([1, 2]))):
        values = numpy_helper.from_array(np.float32([7, 8]), name)
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices, f"{name}.i"), [2, 2])
        if name == "w":
            model.graph.sparse_initializer.append(sparse)
        else:
            model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    (y,) = run(written_out(normalized(model)), {"x": X})
    np.testing.assert_allclose(y, X @ [[0, 7], [8, 0]] + [[0, 7], [8, 0]])
    assert open_subject(model).parameters == ("w",)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_every_real_type(dtype: Any) -> None:
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    weights = np.arange(100).reshape(2, 50).astype(dtype)  # more than a skeleton keeps
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "m",
            [helper.make_tensor_value_info("x", kind, ["N", 2])],
            [helper.make_tensor_value_info("y", kind, None)],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    given = normalized(model)
    assert given.model.graph.initializers["w"].const_value is not None
    np.testing.assert_array_equal(given.model.graph.initializers["w"].const_value.numpy(), weights)
    assert open_subject(model).parameters == ("w",)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.UINT8])
def test_quantized_weights_are_kept_and_not_trained(kind: int) -> None:
    model = parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] y) { w = DequantizeLinear(q, s)  y = MatMul(x, w) }")
    model.graph.initializer.append(helper.make_tensor("q", kind, [2, 2], [1, 2, 3, 4]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "s"))
    given = normalized(model)
    assert given.model.graph.initializers["q"].dtype == ir.DataType(kind)
    assert onnx.numpy_helper.to_array(next(t for t in serialized(given.model).graph.initializer if t.name == "q")).shape == (2, 2)


def test_tensors_without_elements() -> None:
    none = np.zeros((0, 2), np.float32)
    assert_same(model_of(HEAD + " m (float[N, 2] x) => (float[a, 2] y) { y = Concat<axis = 0>(x, none) }", none=none), {"x": X})


def test_external_data_in_several_files_missing_or_cut_off(tmp_path: Path) -> None:
    model = model_of(
        HEAD + " m (float[N, 2] x) => (float[N, 2] y) { a = MatMul(x, u)  y = MatMul(a, v) }",
        u=np.ones((2, 300), np.float32),
        v=np.full((300, 2), 2, np.float32),
    )
    for tensor, name in zip(model.graph.initializer, ("one.bin", "two.bin"), strict=True):
        (tmp_path / name).write_bytes(b"1234" + tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, name, offset=4, length=len(tensor.raw_data))
        tensor.ClearField("raw_data")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    for limit in (2**20, 0):  # read at once, or when they are looked at
        given = normalized(path, in_memory=limit)
        assert isinstance(given.model.graph.initializers["v"].const_value, ir.ExternalTensor) == (limit == 0)
        np.testing.assert_allclose(run(written_out(given), {"x": X})[0], np.repeat(X.sum(1, keepdims=True) * 600, 2, 1))
    (tmp_path / "two.bin").write_bytes(b"1234")
    with pytest.raises(ModelError, match=r"two\.bin is cut off or of another model"):
        normalized(path)
    (tmp_path / "two.bin").unlink()
    with pytest.raises(ModelError, match=r"'v' should lie in two\.bin, which is missing"):
        normalized(path)


def test_data_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    model = model_of(HEAD + " m (float[N, 2] x) => (float[N, 2] y) { y = Mul(x, w) }", w=np.ones((100, 2), np.float32))
    (tmp_path / "secret").write_bytes(bytes(800))
    (tmp_path / "in").mkdir()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../secret", length=800)
    model.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "in" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="lies outside of the model's folder"):
        normalized(tmp_path / "in" / "m.onnx")


# graphs


def test_outputs_that_are_inputs_and_initializers_and_no_inputs_at_all() -> None:
    given = normalized(
        parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] x, float[2] w) <float[2] w = {1, 2}> { d = Relu(x) }")
    )
    assert [value.name for value in given.model.graph.outputs] == ["x", "w"]
    alone = parser.parse_model(
        HEAD + " m () => (float loss) <float[2] w = {1, 2}> { s = Mul(w, w)  loss = ReduceSum<keepdims = 0>(s) }"
    )
    np.testing.assert_allclose(run(grad(alone), {})[1], [2, 4])


def test_nodes_with_one_name_and_none() -> None:
    model = parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] y) { a = Relu(x)  b = Tanh(a)  y = Exp(b) }")
    for node in model.graph.node[:2]:
        node.name = "same"
    names = [node.name for node in normalized(model).model.graph]
    assert len(set(names)) == 3
    assert all(names)


def test_names_of_ours_in_the_file() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float[N, 2] y, float loss)
    { "adj.y" = Relu(x)  "grad.x" = Exp("adj.y")  y = Add("grad.x", x)  loss = ReduceSum<keepdims = 0>(y) }"""
    )
    with pytest.raises(UserError, match=r"--prefix"):
        grad(parser.parse_model(text), wrt="inputs")
    joint = grad(parser.parse_model(text), wrt="inputs", prefix="d.")
    np.testing.assert_allclose(run(joint, {"x": X})[2], 1 + np.exp(X) * (X > 0), rtol=1e-6)


def test_initializers_of_bodies_are_lifted_and_typed() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x, bool c) => (float[N, 2] y) { y = If (c) <
    then_branch = a () => (float[N, 2] p) <float[2] w = {1, 2}> { p = Mul(x, w) },
    else_branch = b () => (float[N, 2] q) <float[2] w = {3, 4}>
    { k = Constant<value_float = 2.0>()  u = Mul(x, w)  q = Mul(u, k) }> }"""
    )
    model = parser.parse_model(text)
    given = assert_same(model, {"x": X, "c": np.array(False)})
    assert len(trainable(given.model, given.initializers)) == 2
    assert all(not graph.initializers for graph in graphs_of(given.model.graph)[1:])


def test_sequences_and_optionals_pass() -> None:
    text = (
        HEAD
        + """ m (float[N, 2] x) => (float[a, 2] y)
    { s = SequenceConstruct(x, x)  o = Optional(s)  g = OptionalGetElement(o)  y = ConcatFromSequence<axis = 0>(g) }"""
    )
    given = normalized(parser.parse_model(text))
    assert next(node.op_type for node in given.model.graph) == "SequenceConstruct"


def test_outputs_need_not_state_their_shape() -> None:
    model = parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert dims(normalized(model).model.graph.outputs[0]) == ("N", 2)


def test_stale_notes_of_shapes_are_not_believed() -> None:
    model = parser.parse_model(HEAD + " m (float[N, 2] x) => (float[N, 2] y) <float[N, 7] a> { a = Relu(x)  y = Exp(a) }")
    assert_same(model, {"x": X})


# shapes


def test_symbols_are_proved_along_the_way() -> None:
    """Two branches, of a padded convolution each, meet; heads are split with computed shapes."""
    model = model_of(
        HEAD
        + """ m (float[N, 4, H, W] x) => (float[a, b, c, d] y, float[e, f, g, h] heads)
    { p = Conv<pads = [1, 1, 1, 1]>(x, k)  q = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(p, k)  s = Add(p, q)  y = Relu(s)
      shape = Shape(x)  zero = Constant<value_int = 0>()  three = Constant<value_int = 3>()
      n = Gather(shape, zero)  w = Gather(shape, three)  axis = Constant<value_ints = [0]>()
      n1 = Unsqueeze(n, axis)  w1 = Unsqueeze(w, axis)  two = Constant<value_ints = [2]>()  rest = Constant<value_ints = [-1]>()
      to = Concat<axis = 0>(n1, w1, two, rest)  t = Transpose<perm = [0, 3, 1, 2]>(y)  m = ReduceMean<keepdims = 0>(t, last)
      heads = Reshape(m, to) }""",
        k=np.ones((4, 4, 3, 3), np.float32),
        last=np.int64([3]),
    )
    shapes = {str(v.name): dims(v) for node in normalized(model).model.graph for v in node.outputs}
    assert shapes["y"] == shapes["q"] == ("N", 4, "H", "W")
    assert shapes["heads"] == ("N", "W", 2, 2)


def test_a_long_chain_is_read() -> None:
    nodes = [helper.make_node("Add" if i % 2 else "Mul", [f"v{i}", "v0"], [f"v{i + 1}"]) for i in range(5000)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("v0", "v5000"))
    graph = helper.make_graph(nodes, "chain", [x], [y])
    given = normalized(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert all(dims(node.outputs[0]) == ("N", 4) for node in given.model.graph)


def test_a_scan_of_sequences_of_different_lengths_is_refused() -> None:
    text = """<ir_version: 3, opset_import: ["": 8]>
    m (int64[1] lengths, float[1, 2] s0, float[1, 3, 2] x) => (float[1, 2] y) {
      y = Scan <num_scan_inputs = 1, body = step (float[2] s, float[2] e) => (float[2] t) { t = Add(s, e) }> (lengths, s0, x)
    }"""
    with pytest.raises(ModelError, match=r"Scan .*sequences of different lengths"):
        normalized(parser.parse_model(text))


@pytest.mark.parametrize("size", [4, 5])
def test_a_choice_by_a_known_condition_is_its_branch(size: int) -> None:
    """As in the definition of AffineGrid, whose branches know different numbers of axes; one gives out what it reads."""
    four = "then_branch = a () => (float[N, 6] h1, int64[K] c1) { h1 = Identity(x)  c1, e, f, i = Split<num_outputs = 4>(size) }"
    five = (
        "else_branch = b () => (float[N, 6] h2, int64[K] c2) { h2 = Sin(x)  e2, c2, f2, i2, j2 = Split<num_outputs = 5>(size) }"
    )
    body = f"n = Size(size)  flat = Equal(n, four)  h, c = If(flat) <{four}, {five}>"
    body += "  y = Mul(h, x)  s = Concat<axis = 0>(c, minus)  z = Reshape(x, s)"
    text = HEAD + f" m (int64[{size}] size, float[N, 6] x) => (float[N, 6] y, float[P, Q] z) {{ {body} }}"
    feeds = {"size": np.arange(2, 2 + size), "x": np.ones((3, 6), np.float32)}
    given = assert_same(model_of(text, four=np.int64(4), minus=np.int64([-1])), feeds)
    assert "If" not in {node.op_type for node in given.model.graph}


def test_a_choice_whose_branch_is_given_out() -> None:
    branches = "then_branch = a () => (float[N, 2] y1) { y1 = Mul(x, x) }, else_branch = b () => (float[N, 2] y2) { y2 = Neg(x) }"
    text = HEAD + f" m (float[N, 2] x) => (float[N, 2] y) {{ y = If(yes) <{branches}> }}"
    given = assert_same(model_of(text, yes=np.array([True])), {"x": X})
    assert [node.op_type for node in given.model.graph] == ["Mul"]


def test_a_bfloat16_in_an_attribute() -> None:
    """Where ONNX leaves a shape open, the node is inferred anew, with its tensor."""
    one = numpy_helper.from_array(np.ones(1, ml_dtypes.bfloat16))
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Shape", ["places"], ["extents"]),
        helper.make_node("ConstantOfShape", ["extents"], ["ones"], value=one),
        helper.make_node("ReduceSum", ["ones"], ["count"], keepdims=0),
        helper.make_node("Mul", ["x", "count"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["N", 2]) for name in "xy")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (ones,) = (node.outputs[0] for node in normalized(model).model.graph if node.op_type == "ConstantOfShape")
    assert ones.dtype == ir.DataType.BFLOAT16
