"""What a network weighs: operations against PyTorch's counter and published numbers, parameters, memory; and that it is fast."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vgcompile.analysis.summary import Summary, summary
from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.compiler import open_network
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import Emitter
from vgcompile.ops import OPS
from vgcompile.spec import loads

ROOT = Path(__file__).parent.parent


def case(operator: str, *shapes: tuple[int | str, ...] | None, outputs: int = 1, **attributes: object) -> float:
    """The FLOPs of one node on inputs of these shapes."""
    values = [
        None if shape is None else ir.Value(name=f"x{i}", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for i, shape in enumerate(shapes)
    ]
    graph = ir.Graph([value for value in values if value is not None], [], nodes=[], opset_imports={"": 24})
    made = Emitter(graph, 24).emit(operator, *values, outputs=outputs, **attributes)
    node = (made[0] if outputs > 1 else made).producer()
    return OPS[operator].flops(case_of(node))


def counted(module: torch.nn.Module, *shapes: tuple[int, ...]) -> int:
    """PyTorch's count: products alone, two a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        module(*(torch.zeros(shape) for shape in shapes))
    return counter.get_total_flops()


def test_products_count_as_pytorch_counts_them() -> None:
    bias = 5 * 7
    assert case("Gemm", (5, 3), (3, 7), (7,)) - bias == counted(torch.nn.Linear(3, 7), (5, 3))
    assert case("Gemm", (3, 5), (7, 3), transA=1, transB=1) == 2 * 5 * 3 * 7
    assert case("MatMul", ("N", 5, 3), (3, 7)) == counted(torch.nn.Linear(3, 7, bias=False), (1, 5, 3))
    convolution = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
    assert case("Conv", ("N", 4, 9, 8), (6, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], group=2) == counted(
        convolution, (1, 4, 9, 8)
    )
    transposed = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False)
    assert case("ConvTranspose", ("N", 4, 5, 5), (4, 6, 3, 3), strides=[2, 2]) == counted(transposed, (1, 4, 5, 5))


def test_attention_is_two_products_and_a_softmax() -> None:
    q, k, v = (1, 2, 4, 6), (1, 2, 5, 6), (1, 2, 5, 3)
    scores = 2 * 4 * 5
    assert case("Attention", q, k, v) == scores * (2 * 6 + 2 * 3 + 5)
    packed = case("Attention", ("N", 4, 12), ("N", 5, 12), ("N", 5, 6), q_num_heads=2, kv_num_heads=2)
    assert packed == scores * (2 * 6 + 2 * 3 + 5)


@pytest.mark.parametrize(("operator", "gates", "pointwise"), [("RNN", 1, 1), ("GRU", 3, 8), ("LSTM", 4, 9)])
def test_recurrent_layers_count_every_step(operator: str, gates: int, pointwise: int) -> None:
    steps, width, hidden = 7, 3, 5
    found = case(operator, (steps, "N", width), (1, gates * hidden, width), (1, gates * hidden, hidden), hidden_size=hidden)
    assert found == steps * hidden * (gates * (2 * (width + hidden) + 2) + pointwise)


def test_elementwise_counts_elements_and_movement_nothing() -> None:
    assert case("Tanh", ("N", 4, 5)) == 20
    assert case("Add", ("N", 4), (4,)) == 4
    assert case("Transpose", (4, 5)) == case("Identity", (4, 5)) == case("Flatten", (4, 5)) == case("Shape", (4, 5)) == 0
    assert case("MaxPool", ("N", 2, 4, 4), kernel_shape=[2, 2], strides=[2, 2]) == 2 * 2 * 2 * 4
    assert case("ReduceSum", (4, 5)) == case("GlobalAveragePool", ("N", 2, 5, 2)) == 20
    assert case("Softmax", ("N", 4)) == 20


VGG = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


def vgg16() -> str:
    pool, convolution = (
        "  - {{kind: max_pool, kernel: 2}}",
        "  - {{kind: conv2d, filters: {}, kernel: 3, padding: 1, activation: relu}}",
    )
    layers = [(pool if width == "M" else convolution).format(width) for width in VGG]
    dense = [f"  - {{kind: dense, units: {units}}}" for units in (4096, 4096, 1000)]
    return "\n".join(["inputs: {image: {shape: [batch, 3, 224, 224]}}", "layers:", *layers, "  - {kind: flatten}", *dense])


def test_vgg16_has_its_published_operations_and_parameters() -> None:
    """Simonyan and Zisserman 2015, table 2: 138 million parameters; torchvision states 15.47 GFLOPS, of multiply-adds."""
    whole = summary(build(loads(vgg16())))
    products = sum(layer.weight.flops for layer in whole.layers if layer.kind in ("conv2d", "dense"))
    assert whole.weight.parameters == 138_357_544
    assert products / 2e9 == pytest.approx(15.47, abs=0.02)


def flat(group: Summary) -> list[Summary]:
    return [*(leaf for layer in group.layers for leaf in (flat(layer) if layer.layers else [layer]))]


def test_sums_and_shapes_of_a_residual_net() -> None:
    network = open_network(ROOT / "models/resnet20.yaml")
    whole = summary(network)
    leaves = flat(whole)
    assert sum((leaf.weight for leaf in leaves), type(whole.weight)()) == whole.weight
    assert whole.weight.parameters == sum(array.size for array in network.parameter_values().values())
    assert whole.weight.state == 2 * sum(leaf.weight.parameters // 2 for leaf in leaves if leaf.kind == "batch_norm")
    stage = next(layer for layer in whole.layers if layer.name == "stage_1")
    assert [copy.name for copy in stage.layers] == ["1", "2", "3"]
    assert stage.output == ("batch", 16, 8, 8)
    assert stage.layers[0].layers[-1].name == "sum"


def test_no_parameter_is_looked_at() -> None:
    network = build(loads((ROOT / "models/deep_batchnorm.yaml").read_text()))

    def looked_at() -> ir.Tensor:
        raise AssertionError

    for name in network.parameters:
        value = network.model.graph.initializers[name]
        value.const_value = ir.LazyTensor(looked_at, ir.DataType.FLOAT, ir.Shape(list(value.shape or ())), name=name)
    assert summary(network).weight.parameters > 0


def test_a_shared_parameter_counts_once() -> None:
    text = (
        "inputs: {x: {shape: [batch, 4]}}\nlayers:\n  - {kind: dense, name: a, units: 4}\n  - {kind: dense, units: 4, share: a}\n"
    )
    first, second = summary(build(loads(text))).layers
    assert (first.weight.parameters, second.weight.parameters, second.weight.shared) == (20, 0, 20)
    assert first.weight.flops == second.weight.flops


def test_a_foreign_file_is_a_tree_by_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    m (float[N, T, 2] x) => (float[N, T, 2] y)
    <float[2, 3] "net.a.weight" = {1, 0, 0, 1, 1, 1}, float[3, 2] "net.b.weight" = {1, 0, 0, 1, 1, 1}>
    { h = MatMul(x, "net.a.weight")  z = Tanh(h)  y = MatMul(z, "net.b.weight") }""")
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["summary", str(tmp_path / "m.onnx"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counted_as_one"] == ["T"]
    assert (found["parameters"], found["flops"], found["activation_bytes"]) == (12, 12 + 3 + 12, 4 * (3 + 3 + 2))
    (net,) = found["layers"]
    assert [(layer["name"], layer["output"]) for layer in net["layers"]] == [("a", ["N", "T", 3]), ("b", ["N", "T", 2])]


def test_the_command_says_its_conventions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(ROOT / "models/deep_sigmoid.yaml"), "--depth", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "FLOPs", "activations"]
    assert lines[1].split() == ["hidden", "[batch,", "100]", "198,400", "396,800", "16.0", "kB"]
    assert lines[-3].startswith("parameters   199,410 (797.6 kB as float32)")
    assert "a multiply-add as 2" in lines[-2]
