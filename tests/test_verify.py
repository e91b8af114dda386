"""`vgcompile verify`: what is right passes, a tampered rule is named, kinks and blind losses are told apart from mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vgcompile.cli import main
from vgcompile.errors import UserError
from vgcompile.ops import OPS
from vgcompile.verification import nodes, verify
from vgcompile.verification.slopes import DOUBLE, slopes

MODELS = Path(__file__).parent.parent / "models"
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """Compiled nodes are remembered, and one test changes a rule."""
    yield
    nodes._compiled.cache_clear()


def model(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, Any], shape: Sequence[Any] = ("N", 3), loss: str = "loss"
) -> onnx.ModelProto:
    """A model of an input x and a loss."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(loss, TensorProto.FLOAT, [])],
        [
            numpy_helper.from_array(np.asarray(array, np.float32 if np.asarray(array).dtype.kind == "f" else None), name)
            for name, array in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def net(activation: str, weight: Array) -> onnx.ModelProto:
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"], "product"),
            helper.make_node(activation, ["z"], ["h"], "act"),
            helper.make_node("ReduceMean", ["h"], ["loss"], "mean", keepdims=0),
        ],
        {"w": weight},
    )


WEIGHT = np.linspace(-1.0, 1.0, 12).reshape(3, 4)


def test_a_good_model_is_verified() -> None:
    found = verify(net("Tanh", WEIGHT), wrt="all")
    assert not found.wrong
    assert [found.count(stage) for stage in ("node", "end to end", "float32")] == [(3, 3), (2, 2), (2, 2)]


def test_terms_that_cancel_are_judged_by_what_rounding_makes_of_them(tmp_path: Path) -> None:
    """A softmax takes no notice of a number added to all of its scores: the gradient of a key's bias is 0, and rounding."""
    text = "inputs: {x: {shape: [batch, 8, 16]}, y: {shape: [batch, 8, 16]}}\n"
    text += "layers: [{kind: attention, heads: 2}]\nloss: {kind: mse, target: y}\n"
    (tmp_path / "attention.yaml").write_text(text)
    found = verify(tmp_path / "attention.yaml", tolerance=1e-6)
    (key,) = [check for check in found.checks if (check.stage, check.name) == ("float32", "attention/key/bias")]
    assert key.verdict == "verified"
    assert key.error is not None and key.error > 1e-6


def test_a_yaml_model_is_verified() -> None:
    found = verify(MODELS / "logistic.yaml" if (MODELS / "logistic.yaml").exists() else MODELS / "lenet.yaml")
    assert not found.wrong
    assert not found.reasons("node")


def test_a_tampered_rule_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(net("Tanh", WEIGHT), path)
    assert main(["verify", str(path)]) == 0
    capsys.readouterr()
    nodes._compiled.cache_clear()
    tanh = OPS["Tanh"]

    def doubled(op: Any, g: Any, y: Any, x: Any, **attributes: Any) -> Any:
        return tuple(part * 2.0 for part in tanh.vjp(op, g, y, x, **attributes))  # type: ignore[misc]

    monkeypatch.setitem(OPS, "Tanh", replace(tanh, vjp=doubled))
    assert main(["verify", str(path), "--json"]) == 1
    said = capsys.readouterr()
    assert "Tanh (node 'act')" in said.err
    found = json.loads(said.out)
    assert not found["verified"]
    wrong = {check["name"] for check in found["checks"] if check["verdict"] == "wrong"}
    assert wrong == {"act", "w"}  # the node, and the weight end to end


def test_kinks_are_no_mistakes() -> None:
    found = verify(net("Relu", np.zeros((3, 4))))
    assert not found.wrong
    assert {check.verdict for check in found.checks if check.name == "act"} == {"at a kink"}


def test_a_loss_that_does_not_move_is_said() -> None:
    """The gradient is 1e-12 of the loss: differences of the loss are blind to it, those of the nodes are not."""
    blind = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"], "product"),
            helper.make_node("ReduceSum", ["z"], ["s"], "sum", keepdims=0),
            helper.make_node("Mul", ["s", "tiny"], ["t"], "scale"),
            helper.make_node("Add", ["t", "big"], ["loss"], "shift"),
        ],
        {"w": WEIGHT, "tiny": np.float32(1e-9), "big": np.float32(1e3)},
    )
    found = verify(blind)
    assert not found.wrong
    assert found.count("node") == (4, 4)
    assert found.count("end to end") == (0, 1)
    ((reason, names),) = found.reasons("end to end")
    assert reason.startswith("not verifiable end to end: the loss moves") and names == ["w"]


def test_branches_and_masks() -> None:
    """A node is a node whatever is inside; a mask stays what it is while the node is moved."""
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["z"], [f"{kind}_y"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_y", TensorProto.FLOAT, ["N", 4])],
        )
        for kind in ("Sigmoid", "Tanh")
    ]
    found = verify(
        model(
            [
                helper.make_node("MatMul", ["x", "w"], ["z"], "product"),
                helper.make_node("Size", ["x"], ["size"], "size"),
                helper.make_node("Greater", ["size", "none"], ["yes"], "some"),
                helper.make_node("If", ["yes"], ["h"], "branch", then_branch=branches[0], else_branch=branches[1]),
                helper.make_node("Dropout", ["h", "ratio", "training"], ["d"], "drop"),
                helper.make_node("ReduceMean", ["d"], ["loss"], "mean", keepdims=0),
            ],
            {"w": WEIGHT, "ratio": np.float32(0.5), "training": np.asarray(True), "none": np.int64(0)},
        )
    )
    assert not found.wrong
    assert found.count("node") == (4, 4)
    assert found.count("end to end") == (1, 1)
    assert found.reasons("float32") == [("Dropout draws anew in ONNX Runtime", ["w"])]


def test_an_adjoint_from_outside(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **{"x": np.ones((2, 3), np.float32), "adj.loss": np.asarray(3.0)})
    found = verify(net("Tanh", WEIGHT), seed_input=True, file=str(data))
    assert not found.wrong and found.count("float32") == (1, 1)


def test_what_the_user_can_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nowhere.yaml"]) == 2
    with pytest.raises(UserError):
        verify(net("Tanh", WEIGHT), wrt="v")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("function", "left", "right", "smooth"),
    [
        (lambda t: np.sin(t), 1.0, 1.0, True),
        (lambda t: abs(t), -1.0, 1.0, False),
        (lambda t: t * t, 0.0, 0.0, True),
        (lambda t: np.sign(t), np.inf, np.inf, False),
        (lambda t: np.cbrt(t), np.inf, np.inf, False),
        (lambda t: np.sqrt(t), np.nan, np.inf, False),
    ],
)
def test_slopes(function: Any, left: float, right: float, smooth: bool) -> None:
    with np.errstate(invalid="ignore"):
        found = slopes(lambda t: np.asarray([function(t)]), 1e-5, DOUBLE)
    assert found.smooth == smooth
    np.testing.assert_allclose([found.left[0], found.right[0]], [left, right], atol=1e-8)
