"""Foreign ONNX files: what is normalized, what is found in them, and what is refused, in which words.

Small models are written in ONNX's text form; real exports come from PyTorch, whose autograd is the oracle of the gradients.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator
from torch import nn

from vgcompile.analysis import Options, analyze
from vgcompile.analysis.uses import parameter_layers
from vgcompile.compiler import compile_network, open_network
from vgcompile.errors import ModelError
from vgcompile.graph.emit import dims
from vgcompile.graph.load import load
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.passes.check import check
from vgcompile.passes.gradient import gradient
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session


def loaded(folder: Path, text: str, **options: str) -> Network:
    return load(written(folder, parser.parse_model(text)), **options)


def written(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def layers(network: Network) -> dict[str, tuple[str | None, str | None]]:
    return {str(node.name): (fact(node, "layer"), fact(node, "kind")) for node in network.model.graph}


MLP = """
<ir_version: 8, opset_import: ["": {opset}]>
mlp (float[N, 2] x, int64[N] t) => (float[N, 3] y, float loss)
<float half = {{0.5}}, float[2, 3] w = {{1, 2, 3, 4, 5, 6}}, float[3] b = {{0.5, -0.5, 0}},
 float[3, 3] "fc.weight" = {{1, 0, 0, 0, 1, 0, 0, 0, 1}}>
{{
  half_x = Mul(x, half)
  z = MatMul(half_x, w)
  zb = Add(z, b)
  h = Sigmoid(zb)
  y = MatMul(h, "fc.weight")
  loss = SoftmaxCrossEntropyLoss(y, t)
}}
"""


# what is found


def test_a_model_with_its_loss(tmp_path: Path) -> None:
    network = loaded(tmp_path, MLP.format(opset=21))
    assert (network.name, network.outputs, network.loss, network.reduction) == ("model", ("y",), "loss", "mean")
    assert network.parameters == ("w", "b", "fc.weight")
    assert {name: (given.role, given.shape, given.classes) for name, given in network.inputs.items()} == {
        "x": ("input", ("N", 2), None),
        "t": ("target", ("N",), 3),
    }
    assert [str(value.name) for value in network.model.graph.inputs] == ["x", "t", "w", "b", "fc.weight"]
    assert network.notes == ()


def test_an_output_of_which_the_loss_reads_the_shape_alone(tmp_path: Path) -> None:
    """It is compared with a target, and no gradient reaches it."""
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]>
        net (float[N, 2] x, float[N, 3] t) => (float loss) <float[2, 3] w = {1, 2, 3, 4, 5, 6}>
        { z = MatMul(x, w)  zero = Sub(z, z)  a = Add(zero, z)  b = Add(a, t)  s = Shape(b)  y = Expand(z, s)
          e = Sub(y, t)  q = Mul(e, e)  loss = ReduceMean<keepdims = 0>(q) }""",
    )
    assert "a" in network.outputs
    assert analyze(network).verdict.kind == "healthy"


def test_layers_are_named_by_their_parameters_and_take_what_follows(tmp_path: Path) -> None:
    network = loaded(tmp_path, MLP.format(opset=21))
    assert layers(network) == {
        "/Mul/0": ("Mul/0", "Mul"),
        "/MatMul/1": ("MatMul/1", "MatMul"),
        "/Add/2": ("MatMul/1", "MatMul"),
        "/Sigmoid/3": ("MatMul/1", "MatMul"),
        "/MatMul/4": ("fc", "MatMul"),
        "/SoftmaxCrossEntropyLoss/5": ("loss", "SoftmaxCrossEntropyLoss"),
    }


def test_a_scale_behind_no_layer_starts_one_and_its_shift_joins_it(tmp_path: Path) -> None:
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]>
        norm (float[N, 4] x) => (float[N, 4] y)
        <float[4] "norm.scale" = {1, 1, 1, 1}, float[4] "norm.bias" = {0, 0, 0, 0}, float[4] later = {1, 1, 1, 1}>
        { d = Tanh(x)  s = Mul(d, "norm.scale")  a = Add(s, "norm.bias")  r = Relu(a)  y = Mul(r, later) }""",
    )
    assert [layer for layer, _ in layers(network).values()] == ["Tanh/0", "norm", "norm", "norm", "Mul/4"]


def test_what_prepares_a_weight_goes_with_its_layer_and_a_join_with_the_later_branch(tmp_path: Path) -> None:
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]>
        skip (float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] "a.weight" = {1, 0, 0, 1}, float[2, 2] "b.weight" = {1, 0, 0, 1}>
        { at = Transpose("a.weight")  u = MatMul(x, at)  v = MatMul(u, "b.weight")  s = Add(v, u)  y = Relu(s) }""",
    )
    assert [layer for layer, _ in layers(network).values()] == ["a", "a", "b", "b", "b"]
    assert [(layer.name, layer.value.name) for layer in parameter_layers(network)] == [("a", "u"), ("b", "v")]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("e = Sub(y, t)  q = Mul(e, e)  loss = ReduceMean<keepdims=0>(q)", ("y",)),  # not an output: what meets the target
        ("q = Mul(y, y)  loss = ReduceMean<keepdims=0>(q)", ("q",)),  # no target: what the loss's own node reads
    ],
)
def test_outputs_of_a_loss_alone(tmp_path: Path, body: str, outputs: tuple[str, ...]) -> None:
    network = loaded(
        tmp_path,
        f"""<ir_version: 10, opset_import: ["": 21]>
        m (float[N, 2] x, float[N, 2] t) => (float loss) <float[2, 2] w = {{1, 0, 0, 1}}> {{ y = MatMul(x, w)  {body} }}""",
    )
    assert (network.outputs, network.loss) == (outputs, "loss")


def test_loss_and_output_may_be_named(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    m (float[N, 2] x) => (float[N, 2] y, float[1] cost) <float[2, 2] w = {1, 0, 0, 1}, int64[1] one = {1}>
    { y = MatMul(x, w)  h = Tanh(y)  all = ReduceSum(h)  cost = Reshape(all, one) }"""
    unnamed = loaded(tmp_path, text)
    assert (unnamed.loss, unnamed.outputs) == (None, ("y", "cost"))
    named = loaded(tmp_path, text, loss="cost", output="h")
    assert (named.loss, named.outputs) == ("cost", ("h",))
    for option, name, message in (
        ("loss", "y", r"--loss 'y' is float \[N, 2\]; a loss is one real number"),
        ("loss", "cast", "--loss 'cast' is no value of the model; did you mean 'cost'"),
        ("output", "zzz", "--output 'zzz' is no value of the model; its outputs are y, cost"),
    ):
        with pytest.raises(ModelError, match=message):
            loaded(tmp_path, text, **{option: name})


def test_classes_come_from_who_counts_them(tmp_path: Path) -> None:
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]>
        words (int32[N, 5] ids, bool[N, 5] mask, int64[N] free) => (float[N, 5, 2] y, float[N] f)
        <float[7, 2] table = {0,0,0,0,0,0,0,0,0,0,0,0,0,0}, float zero = {0}, int64[1] last = {-1}>
        {
          wide = Cast<to = 7>(ids)  rows = Gather(table, wide)
          column = Unsqueeze(mask, last)  y = Where(column, rows, zero)
          f = Cast<to = 1>(free)
        }""",
    )
    assert {name: given.classes for name, given in network.inputs.items()} == {"ids": 7, "mask": 2, "free": None}


def test_statistics_and_settings_are_no_parameters(tmp_path: Path) -> None:
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]>
        bn (float[N, 2] x) => (float[N, 2] y)
        <float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] mean = {0, 0}, float[2] var = {1, 1}, float[2] unused = {1, 1}>
        { y = BatchNormalization(x, s, b, mean, var) }""",
    )
    assert network.parameters == ("s", "b")


# what is normalized


@pytest.mark.parametrize("opset", [13, 17, 20, 21, 22])
def test_opsets_are_brought_to_21_and_newer_ones_kept(tmp_path: Path, opset: int) -> None:
    network = loaded(tmp_path, MLP.format(opset=opset))
    assert network.model.opset_imports[""] == max(opset, 21)
    assert (f"converted from opset {opset} to 21" in " ".join(network.notes)) == (opset < 21)
    assert "loss" in batch_and_run(network)


def test_functions_are_inlined_constants_lifted_and_names_made(tmp_path: Path) -> None:
    model = parser.parse_model("""
    <ir_version: 10, opset_import: ["": 21, "local": 1]>
    main (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 0, 0, 1}>
    { z = MatMul(x, w)  a = local.twice(z)  y = local.twice(a) }
    <domain: "local", opset_import: ["": 21]>
    twice (u) => (v) { two = Constant<value_float = 2.0>()  v = Mul(u, two) }
    """)
    for node, name in zip(model.graph.node, ("n", "w", "n"), strict=True):
        node.name = name  # a node of another's name and one of an initializer's
    network = load(written(tmp_path, model))
    assert [node.op_type for node in network.model.graph] == ["MatMul", "Mul", "Mul"]
    names = [node.name for node in network.model.graph]
    assert len({*names, *network.model.graph.initializers, "x"}) == len(names) + len(network.model.graph.initializers) + 1
    assert network.parameters == ("w",)
    assert network.model.opset_imports == {"": 21}
    assert "inlined 1 model-local functions" in network.notes[0]
    (y,) = ReferenceEvaluator(compile_network(network).forward).run(None, {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(y, [[4, 4]])


def test_inputs_that_are_initializers_are_no_inputs(tmp_path: Path) -> None:
    model = parser.parse_model(MLP.format(opset=21))
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    network = load(written(tmp_path, model))
    assert list(network.inputs) == ["x", "t"]
    assert [str(value.name) for value in network.model.graph.inputs] == ["x", "t", "w", "b", "fc.weight"]


def test_no_dimension_is_nameless_and_a_lost_symbol_is_proved(tmp_path: Path) -> None:
    model = parser.parse_model("""
    <ir_version: 10, opset_import: ["": 21]>
    cnn (float[batch, 1, H, W] x) => (float[a, 2] y) <int64[2] flat = {-1, 3}>
    { c = Conv<pads = [1, 1, 1, 1]>(x, k)  s = Add(c, x)  p = GlobalAveragePool(s)  f = Reshape(p, flat)  y = MatMul(f, w) }
    """)
    for name, shape in (("k", (3, 1, 3, 3)), ("w", (3, 2))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    network = load(written(tmp_path, model))
    shapes = {str(value.name): dims(value) for node in network.model.graph for value in node.outputs}
    assert network.inputs["x"].shape == ("batch", 1, "H", "W")
    assert shapes["s"] == ("batch", 3, "H", "W")
    assert shapes["y"] == ("batch", 2)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = parser.parse_model(MLP.format(opset=21))
    for tensor in model.graph.initializer:  # only raw bytes go to a file of their own
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    np.testing.assert_array_equal(load(path).parameter_values()["b"], np.float32([0.5, -0.5, 0]))
    (tmp_path / "weights.data").unlink()
    with pytest.raises(ModelError, match=r"external data cannot be read .* put the data file beside the model"):
        load(path)


# what is refused


@pytest.mark.parametrize(
    ("imports", "graph", "message"),
    [
        ('"": 21', "(float[N] x) => (float[N] y) { y = Nonsense(x) }", "not valid ONNX: No Op registered"),
        (
            '"": 21, "com.example": 1',
            "(float[N] x) => (float[N] y) { y = com.example.Fused(x) }",
            "operators outside the ONNX standard: com.example::Fused; export to standard operators, unfused",
        ),
        ('"": 99', "(float[N] x) => (float[N] y) { y = Relu(x) }", "opset 99"),
        ('"": 21', "(float[N, 2] x, float[3, 2] z) => (float[N, 2] y) { y = MatMul(x, z) }", r"its shapes do not fit: .*MatMul"),
        (
            '"": 21',
            "(float[N, 2] x, int64[K] s) => (float[a, b] y) { r = Reshape(x, s)  y = Relu(r) }",
            r"the shape of 'r' \(operator Reshape\) cannot be inferred; export the model with fixed shapes",
        ),
        ('"": 21', "(int64[N] x) => (int64[N] y) { y = Abs(x) }", "no real output"),
        (
            '"": 21',
            "(float[N, 2] x, bool c) => (float[N, 2] y) <float[2, 2] w = {1, 0, 0, 1}> { z = MatMul(x, w)  y = If (c) <"
            "then_branch = a () => (float[N, 2] p) { p = Mul(z, z) }, else_branch = b () => (float[N, 2] q) { q = Tanh(z) }> }",
            "not analysed yet, found If",
        ),
    ],
)
def test_models_that_are_refused(tmp_path: Path, imports: str, graph: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        loaded(tmp_path, f"<ir_version: 10, opset_import: [{imports}]> model {graph}")
    assert str(caught.value).startswith(str(tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    model = parser.parse_model(MLP.format(opset=21))
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weights.float_data[0] = number
    with pytest.raises(ModelError, match="the weights 'w' hold numbers that are not finite"):
        load(written(tmp_path, model))


def test_a_scalar_input_is_analysed(tmp_path: Path) -> None:
    network = loaded(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 21]> m (float s, float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] w = {1, 0, 0, 1}> { f = Mul(x, s)  y = MatMul(f, w) }""",
    )
    assert analyze(network, Options(batch=3)).layers[0].gain.measured == pytest.approx(0.0, abs=1e-6)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    whole = parser.parse_model(MLP.format(opset=21)).SerializeToString()
    for content in (b"", b"name: deep_sigmoid\nlayers: []\n", whole[: len(whole) // 2], bytes(range(256))):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(ModelError, match="export it anew"):
            load(tmp_path / "model.onnx")


WHOLE = parser.parse_model(MLP.format(opset=21)).SerializeToString()


@settings(max_examples=150, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_loads_or_is_refused_on_one_line(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for place, byte in edits:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        load(path)
        said = f"{path}: "
    except ModelError as refused:
        said = str(refused)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said


# real exports


class Convolutional(nn.Module):
    """One of everything that a small vision net has: a residual sum, batch norms, pooling, a flat head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Linear(36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.nn.functional.max_pool2d(x + torch.sigmoid(self.second(x)), 2)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Sequential(nn.Module):
    """Normalized, gated and with a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.mix = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(x))
        x = torch.nn.functional.gelu(self.mix(x)) * torch.tanh(self.mix(x))
        return self.head(x)  # type: ignore[no-any-return]


class WithLoss(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(x), t)


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize(("net", "shape"), [(Convolutional, (1, 6, 6)), (Sequential, (6,))])
def test_gradients_of_an_export_are_those_of_autograd(
    tmp_path: Path, net: type[nn.Module], shape: tuple[int, ...], opset: int
) -> None:
    torch.manual_seed(0)
    module = WithLoss(net()).eval()
    x, t = torch.randn(7, *shape), torch.randint(5, (7,))
    network = load(exported(tmp_path / "net.onnx", module, x, t, opset))
    found = Session(check(gradient(network)), "cpu").run(None, {"x": x.numpy(), "t": t.numpy()})
    loss = module(x, t)
    loss.backward()
    assert float(found[str(network.loss)]) == pytest.approx(float(loss.detach()), rel=1e-5)
    truth = {name: parameter.grad.numpy() for name, parameter in module.named_parameters() if parameter.grad is not None}
    compared = [name for name in network.parameters if name in truth]
    assert len(compared) >= 3
    for name in compared:
        np.testing.assert_allclose(found[f"grad.{name}"], truth[name], rtol=1e-4, atol=1e-6, err_msg=name)


def exported(path: Path, module: nn.Module, x: torch.Tensor, t: torch.Tensor, opset: int) -> Path:
    axes = {"x": {0: "N"}, "t": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (x, t),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["x", "t"],
            output_names=["loss"],
            dynamic_axes=axes,
        )
    return path


def test_our_own_forward_file_is_a_foreign_one(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("""
    inputs: {x: {shape: [N, 3]}}
    layers:
      - {kind: dense, name: one, units: 4, activation: tanh}
      - {kind: dense, name: two, units: 2}
    """)
    compiled = compile_network(open_network(tmp_path / "net.yaml"))
    (tmp_path / "net.onnx").write_bytes(compiled.files["net.onnx"])
    network = open_network(tmp_path / "net.onnx")
    assert network.parameters == ("one/weight", "one/bias", "two/weight", "two/bias")
    assert {layer for layer, _ in layers(network).values()} == {"one", "two"}


def batch_and_run(network: Network) -> dict[str, Any]:
    return Session(check(gradient(network)), "cpu").run(None, batch(network, size=3))
