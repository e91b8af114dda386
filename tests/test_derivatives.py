"""``grad`` and ``hvp``, from Python and on the command line: what is asked for, what comes out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, parser
from torch.nn import functional

import vgcompile
from vgcompile.cli import main
from vgcompile.errors import UserError

Array = np.ndarray[Any, Any]

NET = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 2] x) => (float[N, 3] y)
<float half = {0.5}, float[2, 3] w = {0.1, 0.2, -0.3, 0.4, 0.5, -0.6}, float[3] b = {0.5, -0.5, 0}>
{ h = Mul(x, half)  z = MatMul(h, w)  s = Add(z, b)  y = Tanh(s) }"""
X = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)


def net() -> onnx.ModelProto:
    return parser.parse_model(NET)


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.tanh(0.5 * x @ w + b)


def leaves() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    held = {t.name: onnx.numpy_helper.to_array(t) for t in net().graph.initializer}
    x, w, b = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (X, held["w"], held["b"]))
    return x, w, b


LOSSES = {
    "mse": (functional.mse_loss, lambda rng: rng.normal(size=(5, 3)).astype(np.float32)),
    "mae": (functional.l1_loss, lambda rng: rng.normal(size=(5, 3)).astype(np.float32)),
    "huber": (functional.huber_loss, lambda rng: 2.0 * rng.normal(size=(5, 3)).astype(np.float32)),
    "binary_cross_entropy": (
        functional.binary_cross_entropy_with_logits,
        lambda rng: rng.integers(0, 2, size=(5, 3)).astype(np.float32),
    ),
    "cross_entropy": (functional.cross_entropy, lambda rng: rng.integers(0, 3, size=5)),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_attached_loss_and_its_gradients_are_pytorch_s(kind: str) -> None:
    criterion, draw = LOSSES[kind]
    target = draw(np.random.default_rng(1))
    found = run(vgcompile.grad(net(), attach_loss=kind, wrt="all"), {"x": X, "target": target})
    x, w, b = leaves()
    loss = criterion(forward(x, w, b), torch.tensor(target if target.dtype == np.int64 else target.astype(np.float64)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert list(found) == ["y", "loss", "grad.x", "grad.w", "grad.b"]
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, leaf in zip(("x", "w", "b"), (x, w, b), strict=True):
        np.testing.assert_allclose(found[f"grad.{name}"], leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3, 4)), (-1, (2, 4, 3)), (0, (3, 4))])
def test_classes_on_any_axis(axis: int, shape: tuple[int, ...]) -> None:
    x = helper.make_tensor_value_info("x", 1, shape)
    y = helper.make_tensor_value_info("y", 1, shape)
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y]))
    joint = vgcompile.grad(model, attach_loss="cross_entropy", class_axis=axis, wrt="inputs", loss="y")
    logits = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    rest = [extent for place, extent in enumerate(shape) if place != axis % len(shape)]
    target = np.random.default_rng(3).integers(0, 3, size=rest)
    found = run(joint, {"x": logits, "target": target})
    leaf = torch.tensor(logits, requires_grad=True)
    functional.cross_entropy(leaf.movedim(axis, 1), torch.tensor(target)).backward()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found["grad.x"], leaf.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_adjoint_from_outside() -> None:
    g = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    found = run(vgcompile.grad(net(), seed_input=True, wrt=["w", "s", "half"]), {"x": X, "adj.y": g})
    x, w, b = leaves()
    y = forward(x, w, b)
    y.backward(torch.tensor(g, dtype=torch.float64))  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found["grad.w"], w.grad.numpy(), rtol=1e-4, atol=1e-6)
    s = g * (1 - y.detach().numpy() ** 2)
    np.testing.assert_allclose(found["grad.s"], s, rtol=1e-4, atol=1e-6)
    inner = (X @ onnx.numpy_helper.to_array(net().graph.initializer[1]) * s).sum()
    np.testing.assert_allclose(found["grad.half"], inner, rtol=1e-4)


def test_a_shared_initializer_gets_the_sum_over_its_uses() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 2] x) => (float[N, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}> { h = MatMul(x, w)  y = MatMul(h, w) }"""
    g = np.ones((5, 2), np.float32)
    found = run(vgcompile.grad(parser.parse_model(text), seed_input=True), {"x": X, "adj.y": g})
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (torch.tensor(X) @ w @ w).sum().backward()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found["grad.w"], w.grad.numpy(), rtol=1e-5)


def test_a_value_that_reaches_no_loss_has_gradient_zero() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 2] x, float[N, 2] v) => (float loss)
    { loss = ReduceSum<keepdims = 0>(x) }"""
    found = run(vgcompile.grad(parser.parse_model(text), wrt="inputs"), {"x": X, "v": X})
    np.testing.assert_array_equal(found["grad.v"], np.zeros_like(X))
    np.testing.assert_array_equal(found["grad.x"], np.ones_like(X))


def test_only_what_is_asked_for_is_computed() -> None:
    """By the input alone, no weight gradient is left in the graph; by the bias alone, no input gradient."""
    sizes = {wrt: len(vgcompile.grad(net(), seed_input=True, wrt=wrt).graph.node) for wrt in ("x", "w", "b", "all")}
    assert max(sizes["b"], sizes["w"], sizes["x"]) < sizes["all"]
    assert "Gemm" not in {node.op_type for node in vgcompile.grad(net(), seed_input=True, wrt="b").graph.node}


def test_hessian_vector_product() -> None:
    rng = np.random.default_rng(5)
    target, vw, vb = (rng.normal(size=s).astype(np.float32) for s in ((5, 3), (2, 3), (3,)))
    model = vgcompile.hvp(net(), attach_loss="mse")
    found = run(model, {"x": X, "target": target, "v.w": vw, "v.b": vb})
    assert list(found) == ["y", "loss", "hvp.w", "hvp.b"]
    x, w, b = leaves()
    t = torch.tensor(target, dtype=torch.float64)
    _, exact = torch.autograd.functional.hvp(
        lambda w, b: functional.mse_loss(forward(x, w, b), t), (w, b), (torch.tensor(vw).double(), torch.tensor(vb).double())
    )
    np.testing.assert_allclose(found["hvp.w"], exact[0].numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["hvp.b"], exact[1].numpy(), rtol=1e-4, atol=1e-6)


def test_a_product_without_a_loss_is_refused_with_what_would_do() -> None:
    with pytest.raises(UserError, match="no output is a scalar loss; make a loss of it with --attach-loss"):
        vgcompile.hvp(net())


def test_grad_goes_through_grad() -> None:
    """The file that grad writes is a file like any other."""
    first = vgcompile.grad(net(), attach_loss="mse", wrt="inputs")
    second = vgcompile.grad(first, loss="grad.x", seed_input=True, wrt="x", prefix="second.")
    assert [o.name for o in second.graph.output][-1] == "second.x"
    with pytest.raises(UserError, match=r"holds a value called 'grad.x'.*--prefix"):
        vgcompile.grad(first, loss="loss", wrt="x")


def test_a_vector_whose_name_is_taken() -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> m (float[2] x) => (float y) { a = Sin(x)  y = ReduceSum<keepdims = 0>(a) }'
    model = onnx.parser.parse_model(text)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "v.x"
    with pytest.raises(UserError, match=r"holds a value called 'v.x'.*rename it"):
        vgcompile.hvp(model, wrt="inputs")


def test_same_model_same_bytes() -> None:
    made = [vgcompile.grad(net(), attach_loss="mse", wrt="all").SerializeToString(deterministic=True) for _ in range(2)]
    assert made[0] == made[1]


REFUSALS = [
    ({}, "no output is a scalar loss; .*--seed-input.*--attach-loss"),
    ({"loss": "y"}, r"--loss 'y' is float\[N, 3\], a loss is one real number; .*--seed-input"),
    ({"loss": "yy"}, r"--loss 'yy' is no value of the model; did you mean 'y'\?"),
    ({"seed_input": True, "wrt": ["ww", "y2"]}, r"'ww' is no value of the model, did you mean 'w'\?; 'y2' is no value"),
    ({"seed_input": True, "attach_loss": "mse"}, "exclude each other"),
    ({"attach_loss": "mean"}, "'mean': .*mse"),
    ({"attach_loss": "cross_entropy", "class_axis": 2}, r"a class axis 2, found \[N, 3\]"),
    ({"seed_input": True, "wrt": []}, "names at least one value"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS)
def test_what_does_not_suit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vgcompile.grad(net(), **options)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(net(), source)
    assert main(["grad", str(source), "--attach-loss", "mse", "--wrt", "x,w", "-o", str(target)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "gradient of loss by 2 values: x, w" in told.err
    made = onnx.load(target)
    assert [o.name for o in made.graph.output] == ["y", "loss", "grad.x", "grad.w"]
    assert {i.name for i in made.graph.input} == {"x", "target", "w"}
    assert main(["hvp", str(source), "--attach-loss", "mse", "-o", str(tmp_path / "hvp.onnx")]) == 0
    assert [o.name for o in onnx.load(tmp_path / "hvp.onnx").graph.output] == ["y", "loss", "hvp.w", "hvp.b"]


def test_a_refusal_writes_nothing_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(net(), source)
    target.write_bytes(b"precious")
    assert main(["grad", str(source), "-o", str(target)]) == 2
    assert target.read_bytes() == b"precious"
    assert main(["grad", str(source), "--attach-loss", "mse", "-o", str(source)]) == 2
    assert "is the model itself" in capsys.readouterr().err
    assert onnx.load(source) == net()


def test_a_yaml_model_is_a_model(tmp_path: Path) -> None:
    assert main(["grad", "models/lenet.yaml", "--wrt", "inputs", "-o", str(tmp_path / "lenet.onnx")]) == 0
    assert "grad.image" in [o.name for o in onnx.load(tmp_path / "lenet.onnx").graph.output]


def test_the_printed_operator_table_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/operators.md: written by `vgcompile ops --format markdown`."""
    assert main(["ops", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == Path("docs/operators.md").read_text()


def test_ops_says_what_happens_at_the_corner(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops", "Relu", "SequenceAt"]) == 0
    told = capsys.readouterr().out
    assert "rule" in told
    assert "a sequence of tensors has no adjoint" in " ".join(told.split())
    assert main(["ops", "Rellu"]) == 2
    assert "did you mean 'Relu'?" in capsys.readouterr().err


def test_nameless_axes_need_not_be_equal() -> None:
    """Of two inputs with nameless first axes one is spread along the other's, when it runs."""
    a, b, y = (helper.make_tensor_value_info(name, 1, [None, 3]) for name in "aby")
    model = helper.make_model(helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", [a, b], [y]))
    joint = vgcompile.grad(model, seed_input=True, wrt="inputs")
    found = run(joint, {"a": np.ones((5, 3), np.float32), "b": np.ones((1, 3), np.float32), "adj.y": np.ones((5, 3), np.float32)})
    np.testing.assert_array_equal(found["grad.b"], np.full((1, 3), 5.0))


def test_a_constant_of_the_model_that_may_be_overridden(tmp_path: Path) -> None:
    """The 1.0 of a formula, asked for by name, is an input: the seed, and what rules multiply by, are other ones."""
    (tmp_path / "net.yaml").write_text(
        "name: n\ninputs: {x: {shape: [batch, 3]}, t: {shape: [batch, 3]}}\nlayers:\n"
        '  - {kind: expression, formula: "1.0 - tanh(x)"}\nloss: {kind: mse, target: t}\n'
    )
    x, t, one = X[:, :1] * np.ones(3, np.float32), np.zeros((5, 3), np.float32), np.array(1.5, np.float32)
    found = run(vgcompile.grad(tmp_path / "net.yaml", wrt="const.f.1.0"), {"x": x, "t": t, "const.f.1.0": one})
    np.testing.assert_allclose(found["grad.const.f.1.0"], 2.0 * (1.5 - np.tanh(x)).mean(), rtol=1e-5)
