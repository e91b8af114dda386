"""A model is written as onnx_ir writes it, byte for byte, and read as onnx_ir reads it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks.exports.synthetic import KINDS, synthetic
from vgcompile import derivatives
from vgcompile.graph.protos import model_of, proto_of

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
TEXTS = (
    "m (float[N, 2] x, float y) => (float[N, 2] z) { z = Mul(x, y) }",
    "m (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { z = Identity(x)  y, mask = Dropout(x) }",
    "m (float[2] x) => (float[2] z) { s = SequenceConstruct(x, x)  i = Constant<value_int = 0>()  z = SequenceAt(s, i) }",
    "m (float[2] x) => (float[2] z) { z = Clip(x, , x_max) }",
    """m (bool b, float[2] x) => (float[2] z)
       { z = If(b) <then_branch = t () => (float[2] y) { y = Neg(x) }, else_branch = e () => (float[2] u) { u = Exp(x) }> }""",
)


def same(model: ir.Model) -> bool:
    ours, theirs = proto_of(model), ir.to_proto(model)
    return ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def read_alike(proto: onnx.ModelProto) -> bool:
    ours, theirs = onnx.ModelProto(), onnx.ModelProto()
    ours.CopyFrom(proto)
    theirs.CopyFrom(proto)
    written = [ir.to_proto(model) for model in (model_of(ours), ir.from_proto(theirs))]
    return written[0].SerializeToString(deterministic=True) == written[1].SerializeToString(deterministic=True)


@pytest.mark.parametrize("text", TEXTS)
def test_a_small_model(text: str) -> None:
    proto = onnx.parser.parse_model(f"{HEAD} {text}")
    maximum = onnx.numpy_helper.from_array(np.ones((), np.float32), "x_max")
    proto.graph.initializer.append(maximum)
    assert same(ir.from_proto(proto))
    typed = onnx.shape_inference.infer_shapes(proto)
    assert same(ir.from_proto(typed))
    assert read_alike(proto)
    assert read_alike(typed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_joint_graph(kind: str) -> None:
    made = derivatives.grad(synthetic(kind, 60))
    assert same(ir.from_proto(made))
    assert read_alike(made)


def test_values_of_one_type_share_it() -> None:
    model = model_of(derivatives.grad(synthetic("dense", 60)))
    shapes = [value.shape for node in model.graph for value in node.outputs if not value.is_graph_output()]
    assert len({id(shape) for shape in shapes}) < len(shapes) / 4


def test_a_value_of_unknown_shape_is_no_scalar() -> None:
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD} m (float x) => (float z) {{ y = Neg(x)  z = Abs(y) }}"))
    inner = model.graph.node(0).outputs[0]
    inner.type, inner.shape = ir.TensorType(ir.DataType.FLOAT), None
    assert same(model)
    assert not proto_of(model).graph.value_info[0].type.tensor_type.HasField("shape")


def test_what_few_models_say() -> None:
    """Text, facts, denotations, axes of unknown extent, annotations of a quantized model."""
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD} {TEXTS[1]}"))
    node = model.graph.node(0)
    node.doc_string, node.metadata_props["b"], node.metadata_props["a"] = "text", "1", "2"
    model.graph.metadata_props["fact"], model.metadata_props["fact"], model.graph.doc_string = "1", "2", "text"
    mask = model.graph.node(1).outputs[1]
    mask.type, mask.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([None, 2], denotations=["DATA_BATCH", None])
    assert same(model)
    mask.shape = ir.Shape([None, 2])
    assert same(model)
    mask.metadata_props["fact"] = "1"
    assert same(model)
    assert read_alike(ir.to_proto(model))
    mask.meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "s"}
    assert proto_of(model).graph.quantization_annotation
    assert same(model)
    assert read_alike(ir.to_proto(model))


def test_an_input_that_is_given_out_keeps_its_type() -> None:
    """An output's shape is what an exporter's example had, or nothing: it does not stand for the input's, with text or not."""
    model = onnx.parser.parse_model(f"{HEAD} m (float[N, 2] x) => (float[N, 2] z, float[A, B] x) {{ z = Neg(x) }}")
    for text in ("", "said of it"):
        model.graph.input[0].doc_string = text
        read = onnx.ModelProto()
        read.CopyFrom(model)
        x = model_of(read).graph.inputs[0]
        assert str(x.shape) == "[N,2]"
        given = {value.name: value.type for value in derivatives.grad(model, wrt="inputs", seed_input=True).graph.output}
        assert given["grad.x"] == given["x"] == model.graph.input[0].type
