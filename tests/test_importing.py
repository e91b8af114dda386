"""ONNX files as YAML: what was imported computes what the file does, reads well, and anything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import load, load_file, save
from torch import nn

from tests.digits_models import DIGITS
from tests.random_models import models
from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.compiler import compile_network, open_network
from vgcompile.errors import ModelError
from vgcompile.graph.network import Network
from vgcompile.importing import imported
from vgcompile.importing.comparison import weighted
from vgcompile.passes.check import check
from vgcompile.passes.inference import inference
from vgcompile.spec import loads
from vgcompile.spec.layout import formatted

ROOT = Path(__file__).parent.parent


def run(model: bytes | str, arrays: list[Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model)
    return session.run(None, {given.name: array for given, array in zip(session.get_inputs(), arrays, strict=True)})


def require_same(path: Path) -> str:
    """The imported text, once its network has computed the same as the file, in ONNX Runtime."""
    made = imported(path)
    network = weighted(made.text, load(save(dict(made.weights))))
    assert set(network.parameters) <= set(made.weights) <= set(network.model.graph.initializers)
    given = onnxruntime.InferenceSession(path).get_inputs()
    draws = np.random.default_rng(0)
    arrays = [draws.normal(size=[dim if isinstance(dim, int) else 3 for dim in one.shape]).astype(np.float32) for one in given]
    ours = check(inference(network)).SerializeToString()
    for expected, found in zip(run(str(path), arrays), run(ours, arrays), strict=True):
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert formatted(made.text) == made.text
    return made.text


def saved(network: Network, folder: Path) -> Path:
    path = folder / f"{network.name}.onnx"
    path.write_bytes(compile_network(network).files[path.name])
    return path


@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_our_own_models_come_back(path: Path, tmp_path: Path) -> None:
    narrow = path.read_text().replace("units: 512", "units: 32")
    text = require_same(saved(build(loads(narrow, str(path))), tmp_path))
    assert len(text.splitlines()) <= len(path.read_text().splitlines()) + 16  # what repeats is written once


def test_layers_that_repeat_are_a_block(tmp_path: Path) -> None:
    text = require_same(saved(open_network(ROOT / "models/deep_batchnorm.yaml"), tmp_path))
    assert text == (
        "# Imported from deep_batchnorm.onnx.\n"
        "# It states no loss: add one under loss:, or import it with --loss cross_entropy, mse, ...\n"
        "name: deep_batchnorm\ninputs:\n  image: {shape: [batch, 64]}\nlayers:\n"
        "  - kind: block\n    name: hidden\n    repeat: 20\n    layers:\n      - {kind: dense, units: 100, bias: false}\n"
        "      - {kind: batch_norm, activation: sigmoid}\n  - {kind: dense, name: logits, units: 10}\n"
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models())
def test_random_models_come_back(tmp_path: Path, text: str) -> None:
    require_same(saved(build(loads(text)), tmp_path))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.down = nn.Conv2d(channels, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.down(x))


class Residuals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(*(Bottleneck(3, 3, 1) for _ in range(3)))
        self.layer2 = Bottleneck(3, 6, 2)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3), keepdim=True).flatten(1))


class Branches(nn.Module):
    """A layer used twice, two outputs, the later one first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(12, 4, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.tanh(self.a(x))
        z = nn.functional.hardsigmoid(self.a(y))
        return self.b(torch.cat([y, self.norm(z)], -1)), nn.functional.silu(z)


MLP = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.ELU(0.5), nn.Dropout(0.2), nn.Linear(8, 3), nn.LeakyReLU(0.2))
CNN = nn.Sequential(
    *(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, 2, 1, groups=2),
        nn.BatchNorm2d(8),
        nn.Mish(),
    ),
    *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
)
SEQUENCE = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
TORCH = {
    "mlp": (MLP, (6,)),
    "cnn": (CNN, (1, 8, 8)),
    "sequence": (SEQUENCE, (5, 6)),
    "residuals": (Residuals(), (3, 8, 8)),
    "branches": (Branches(), (6,)),
}


def exported(module: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    axes = {"image": {0: "batch"}}
    torch.onnx.export(module.eval(), (torch.randn(3, *shape),), path, dynamo=False, input_names=["image"], dynamic_axes=axes)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCH)
def test_exports_of_pytorch(name: str, tmp_path: Path) -> None:
    module, shape = TORCH[name]
    text = require_same(exported(module, shape, tmp_path / f"{name}.onnx"))
    if name == "residuals":
        assert "- kind: residual\n    name: layer1\n    repeat: 3\n    activation: relu\n" in text
    if name == "branches":
        assert "share: a}" in text


def parsed(text: str, folder: Path) -> Path:
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}'), path)
    return path


def test_scales_of_a_gemm_go_into_its_weights(tmp_path: Path) -> None:
    path = parsed(
        """m (float[N, 2] x) => (float[N, 3] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[1, 3] b = {1, 2, 3}>
        { y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, b) }""",
        tmp_path,
    )
    require_same(path)
    assert imported(path).weights["dense/weight"].tolist() == [[0.5, 1.5, 2.5], [1.0, 2.0, 3.0]]


def test_hard_sigmoid_keeps_the_standards_slope(tmp_path: Path) -> None:
    text = require_same(parsed("m (float[N, 2] x) => (float[N, 2] y) { y = HardSigmoid(x) }", tmp_path))
    assert "{kind: hard_sigmoid, alpha: 0.2}" in text


def test_asymmetric_padding_is_same_where_it_is_that(tmp_path: Path) -> None:
    text = require_same(
        parsed(
            """m (float[N, 1, 8, 8] x) => (float[N, 1, 4, 4] y) <float[1, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
            { y = Conv<strides = [2, 2], auto_pad = "SAME_UPPER">(x, w) }""",
            tmp_path,
        )
    )
    assert "padding: same" in text


def test_a_loss_that_the_language_has_is_kept(tmp_path: Path) -> None:
    made = imported(
        parsed(
            """m (float[N, 2] x, int64[N] t) => (float loss) <float[2, 3] "fc.weight" = {1, 2, 3, 4, 5, 6}>
            { z = MatMul(x, "fc.weight")  loss = SoftmaxCrossEntropyLoss<reduction = "sum">(z, t) }""",
            tmp_path,
        )
    )
    assert "t: {shape: [N], type: int64, classes: 3}" in made.text
    assert made.text.endswith("loss: {kind: cross_entropy, input: fc, target: t, reduction: sum}\n")


def test_another_loss_is_left_out_with_a_note(tmp_path: Path) -> None:
    made = imported(
        parsed(
            """m (float[N, 2] x, float[N, 3] t) => (float loss) <float[2, 3] "fc.weight" = {1, 2, 3, 4, 5, 6}>
            { z = MatMul(x, "fc.weight")  d = Sub(z, t)  a = Cos(d)  loss = ReduceMean<keepdims = 0>(a) }""",
            tmp_path,
        )
    )
    assert "\nloss:" not in made.text and "t:" not in made.text.replace("Imported", "")
    assert any("the loss 'loss' (ReduceMean) is left out" in note for note in made.notes)


def test_all_that_is_like_no_layer_is_named_at_once(tmp_path: Path) -> None:
    path = parsed(
        """m (float[N, 4] x, float[4, 4] w) => (float[N, 4] y)
        { a = IsNaN(x)  f = Cast<to = 1>(a)  b = MatMul(f, w)  c = Relu(b)  y = ReduceMax<keepdims = 1>(c) }""",
        tmp_path,
    )
    with pytest.raises(ModelError) as refused:
        imported(path)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"{path}: what has no layer cannot be imported:"
    assert [line.split()[0] for line in lines[1:]] == ["IsNaN", "MatMul", "ReduceMax"]
    assert "its second factor depends on data" in lines[2]


def test_the_command_writes_model_and_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(open_network(ROOT / "models/lenet.yaml"), tmp_path)
    target = tmp_path / "out" / "mine.yaml"
    assert main(["import", str(file), "-o", str(target)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"wrote {target.with_suffix('.safetensors')}", f"wrote {target}"]
    text = target.read_text()
    assert (
        text.startswith("# Imported from lenet.onnx, its weights in mine.safetensors.\n# It states no loss")
        and "\nname: mine\n" in text
    )
    weights = load_file(target.with_suffix(".safetensors"))
    original = open_network(ROOT / "models/lenet.yaml").parameter_values()
    assert weights.keys() == original.keys()
    assert all(np.array_equal(weights[name], original[name]) for name in weights)
    assert main(["check", str(target)]) == 0
    assert main(["import", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx: no such file; give an .onnx file" in capsys.readouterr().err
