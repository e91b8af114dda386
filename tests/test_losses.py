"""Losses: value and gradient are PyTorch's, or a closed form's, with every option; sums of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from vgcompile.analysis import Options, analyze
from vgcompile.build import build
from vgcompile.errors import SpecError
from vgcompile.graph.network import Network
from vgcompile.layers.loss import LOSSES
from vgcompile.passes.check import check
from vgcompile.passes.gradient import gradient
from vgcompile.passes.inference import inference
from vgcompile.runtime.data import batch
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)

# What a loss is given: shape of x and target in YAML, and a target.
Target = tuple[str, str, Callable[[tuple[int, ...]], Array]]
ROWS, SEQUENCE, IMAGE = "[n, 5]", "[n, 4, 5]", "[n, 5, 3, 2]"
N = 6


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """The data of a test hang on no other."""
    RNG.bit_generator.state = np.random.default_rng(len(request.node.name)).bit_generator.state


def real(shape: tuple[int, ...]) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def share(shape: tuple[int, ...]) -> Array:
    return RNG.uniform(size=shape).astype(np.float32)


def signs(shape: tuple[int, ...]) -> Array:
    return np.sign(RNG.normal(size=shape)).astype(np.float32)


def distribution(shape: tuple[int, ...]) -> Array:
    x = RNG.uniform(size=shape) * (RNG.uniform(size=shape) > 0.3) + 1e-6 * (np.arange(shape[-1]) == 0)
    return (x / x.sum(-1, keepdims=True)).astype(np.float32)


def labels(shape: tuple[int, ...]) -> Array:
    return RNG.integers(0, 5, shape)


def some_ignored(shape: tuple[int, ...]) -> Array:
    return np.where(RNG.uniform(size=shape) < 0.4, -100, labels(shape))


def sequences(shape: tuple[int, ...]) -> Array:
    """Labels filled up with zeros: of every length, with repetitions."""
    found = RNG.integers(1, 5, shape)
    found[1:3, 1] = found[1:3, 0]
    return np.where(np.arange(shape[1]) < np.arange(shape[0])[:, None] % (shape[1] + 1), found, 0)


def other_blank(shape: tuple[int, ...]) -> Array:
    found = sequences(shape)
    return np.where(found == 0, 4, found % 4)


CLASSES = "type: int64, classes: 5"
W = (0.5, 2.0, 1.0, 0.25, 3.0)
TW = torch.tensor(W, dtype=torch.float64)


def last(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Of logits whose classes come last."""
    return lambda x, t, **given: f(x.movedim(-1, 1), t, **given)


def squared_hinge(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    return getattr(F.relu(2.0 - t * x) ** 2, reduction)()


def soft_last(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    return F.cross_entropy(x.movedim(-1, 1), t.movedim(-1, 1), TW, label_smoothing=0.1, reduction=reduction)


def divergence(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    whole = F.kl_div(F.log_softmax(x, -1), t, reduction="sum")
    return whole if reduction == "sum" else whole / (x.numel() / x.shape[-1])


def positions_kl(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    return F.kl_div(x, t, reduction="batchmean" if reduction == "mean" else "sum")


def margins(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    flat = x.movedim(1, -1).reshape(-1, 5)
    return F.multi_margin_loss(flat, t.reshape(-1), reduction=reduction)


def cosines(x: torch.Tensor, t: torch.Tensor, reduction: str) -> torch.Tensor:
    return F.cosine_embedding_loss(x, t, torch.ones(len(x)), reduction=reduction)


def alignments(x: torch.Tensor, t: torch.Tensor, reduction: str, blank: int = 0) -> torch.Tensor:
    """PyTorch's, of logits [N, T, C]."""
    lengths = (t != blank).sum(1)
    return F.ctc_loss(F.log_softmax(x, -1).movedim(1, 0), t, (x.shape[1],) * len(x), tuple(lengths.tolist()), blank, reduction)


# fields of the loss, shape of x, target's shape, target's fields, the target, PyTorch's
CASES: dict[str, tuple[str, str, str, str, Callable[[tuple[int, ...]], Array], Callable[..., torch.Tensor]]] = {
    "mse": ("kind: mse", SEQUENCE, SEQUENCE, "", real, F.mse_loss),
    "mae": ("kind: mae", ROWS, ROWS, "", real, F.l1_loss),
    "huber": ("kind: huber", ROWS, ROWS, "", real, F.huber_loss),
    "huber, delta": ("kind: huber, delta: 0.3", ROWS, ROWS, "", real, lambda x, t, reduction: F.huber_loss(x, t, reduction, 0.3)),
    "cross_entropy": ("kind: cross_entropy", ROWS, "[n]", CLASSES, labels, F.cross_entropy),
    "cross_entropy, images": ("kind: cross_entropy", IMAGE, "[n, 3, 2]", CLASSES, labels, F.cross_entropy),
    "cross_entropy, last axis": (
        "kind: cross_entropy, class_axis: -1", SEQUENCE, "[n, 4]", CLASSES, labels, last(F.cross_entropy),
    ),
    "cross_entropy, weights": (
        f"kind: cross_entropy, class_weights: {list(W)}", IMAGE, "[n, 3, 2]", CLASSES, labels,
        lambda x, t, **given: F.cross_entropy(x, t, TW, **given),
    ),
    "cross_entropy, ignored": (
        "kind: cross_entropy, ignore_index: -100", ROWS, "[n]", CLASSES, some_ignored, F.cross_entropy,
    ),
    "cross_entropy, a class ignored": (
        "kind: cross_entropy, ignore_index: 1, label_smoothing: 0.2", ROWS, "[n]", CLASSES, labels,
        lambda x, t, **given: F.cross_entropy(x, t, ignore_index=1, label_smoothing=0.2, **given),
    ),
    "cross_entropy, smoothed": (
        "kind: cross_entropy, label_smoothing: 0.1", ROWS, "[n]", CLASSES, labels,
        lambda x, t, **given: F.cross_entropy(x, t, label_smoothing=0.1, **given),
    ),
    "cross_entropy, everything": (
        f"kind: cross_entropy, class_weights: {list(W)}, ignore_index: -100, label_smoothing: 0.1, class_axis: 2",
        SEQUENCE, "[n, 4]", CLASSES, some_ignored,
        last(lambda x, t, **given: F.cross_entropy(x, t, TW, ignore_index=-100, label_smoothing=0.1, **given)),
    ),
    "cross_entropy, probabilities": (
        f"kind: cross_entropy, class_axis: -1, class_weights: {list(W)}, label_smoothing: 0.1",
        SEQUENCE, SEQUENCE, "", distribution, soft_last,
    ),
    "nll": (
        f"kind: nll, class_weights: {list(W)}, ignore_index: -100", IMAGE, "[n, 3, 2]", CLASSES, some_ignored,
        lambda x, t, **given: F.nll_loss(x, t, TW, ignore_index=-100, **given),
    ),
    "nll, last axis": ("kind: nll, class_axis: -1", SEQUENCE, "[n, 4]", CLASSES, labels, last(F.nll_loss)),
    "binary_cross_entropy": (
        "kind: binary_cross_entropy", ROWS, ROWS, "", share, F.binary_cross_entropy_with_logits,
    ),
    "binary_cross_entropy, one weight": (
        "kind: binary_cross_entropy, pos_weight: 3.0", SEQUENCE, SEQUENCE, "", share,
        lambda x, t, **given: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(3.0), **given),
    ),
    "binary_cross_entropy, weights": (
        f"kind: binary_cross_entropy, pos_weight: {list(W)}", SEQUENCE, SEQUENCE, "", share,
        lambda x, t, **given: F.binary_cross_entropy_with_logits(x, t, pos_weight=TW, **given),
    ),
    "kl": ("kind: kl", SEQUENCE, SEQUENCE, "", distribution, divergence),
    "kl, logarithms": ("kind: kl, logits: false", ROWS, ROWS, "", distribution, positions_kl),
    "cosine": ("kind: cosine", ROWS, ROWS, "", real, cosines),
    "hinge": (
        "kind: hinge", ROWS, ROWS, "", signs, lambda x, t, reduction: getattr(F.relu(1.0 - t * x), reduction)(),
    ),
    "hinge, squared": ("kind: hinge, margin: 2.0, power: 2", ROWS, ROWS, "", signs, squared_hinge),
    "hinge, classes": ("kind: hinge", ROWS, "[n]", CLASSES, labels, F.multi_margin_loss),
    "hinge, classes of images": (
        "kind: hinge", IMAGE, "[n, 3, 2]", CLASSES, labels, margins,
    ),
    "ctc": ("kind: ctc", "[n, 9, 5]", "[n, 4]", CLASSES, sequences, alignments),
    "ctc, another blank": (
        "kind: ctc, blank: 4", "[n, 9, 5]", "[n, 4]", CLASSES, other_blank,
        lambda x, t, reduction: alignments(x, t, reduction, 4),
    ),
    "hinge, all options": (
        f"kind: hinge, margin: 0.7, power: 2, class_weights: {list(W)}", ROWS, "[n]", CLASSES, labels,
        lambda x, t, **given: F.multi_margin_loss(x, t, p=2, margin=0.7, weight=TW, **given),
    ),
}  # fmt: skip


def net(loss: str, x: str, target: str, fields: str, more: str = "") -> Network:
    """The loss of an input that a layer hands on."""
    inputs = f"inputs: {{x: {{shape: {x}}}, t: {{shape: {target}{', ' if fields else ''}{fields}}}}}"
    return build(loads(f"{inputs}\n{more}layers: [{{kind: leaky_relu, alpha: 1.0, name: y}}]\nloss: {loss}\n"))


def run(network: Network, feeds: Mapping[str, Array], wanted: list[str]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    proto = check(gradient(network, wanted))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(names, dict(feeds))), strict=True))


def extents(shape: str) -> tuple[int, ...]:
    return tuple(N if part.strip() == "n" else int(part) for part in shape.strip("[]").split(","))


def near(found: Array, expected: torch.Tensor | None) -> None:
    assert expected is not None
    theirs = expected.detach().numpy()
    least = 1e-3 if theirs.ndim else 0.1  # a sum of losses of both signs may be anything
    assert np.linalg.norm(found - theirs) <= 1e-5 * max(np.linalg.norm(theirs), least)


def test_every_kind_has_a_case() -> None:
    stated = {case[0].split(",")[0].removeprefix("kind: ") for case in CASES.values()}
    assert stated == {kind for loss in LOSSES for kind in get_args(loss.model_fields["kind"].annotation)}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_pytorchs(name: str, reduction: str) -> None:
    loss, x_shape, t_shape, fields, target, oracle = CASES[name]
    network = net(f"{{{loss}, target: t, reduction: {reduction}}}", x_shape, t_shape, fields)
    x, t = 2 * real(extents(x_shape)), target(extents(t_shape))
    found = run(network, {"x": x, "t": t}, ["x"])
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    theirs = oracle(leaf, torch.tensor(t) if t.dtype == np.int64 else torch.tensor(t, dtype=torch.float64), reduction=reduction)
    theirs.backward()
    assert found["loss"].shape == ()
    near(found["loss"], theirs)
    near(found["grad.x"], leaf.grad)


@pytest.mark.parametrize("margin", [0.0, 0.4, -0.2])
def test_pairs_alike_and_unlike(margin: float) -> None:
    inputs = "inputs: {a: {shape: [n, 5]}, b: {shape: [n, 5]}, same: {shape: [n], type: int64, classes: 2}}"
    layers = "layers: [{kind: tanh, name: p, from: a}, {kind: tanh, name: q, from: b}]"
    network = build(loads(f"{inputs}\n{layers}\nloss: {{kind: cosine, input: [p, q], target: same, margin: {margin}}}\n"))
    assert network.outputs == ("p", "q")
    a, b, same = real((N, 5)), real((N, 5)), np.array([0, 1, 0, 0, 1, 0])
    found = run(network, {"a": a, "b": b, "same": same}, ["a", "b"])
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b)]
    theirs = F.cosine_embedding_loss(*map(torch.tanh, leaves), torch.tensor(2 * same - 1), margin)
    theirs.backward()
    near(found["loss"], theirs)
    for name, leaf in zip("ab", leaves, strict=True):
        near(found[f"grad.{name}"], leaf.grad)


TWO_HEADS = """
inputs: {x: {shape: [n, 5]}, label: {shape: [n], type: int64, classes: 3}, target: {shape: [n, 4]}}
layers:
  - {kind: dense, name: stem, units: 4, activation: tanh}
  - {kind: dense, name: side, units: 3}
  - {kind: dense, name: top, units: 3, from: stem}
loss:
  - {kind: cross_entropy, target: label}
  - {kind: cross_entropy, input: side, target: label, weight: 0.3, name: side}
  - {kind: mse, input: stem, target: target, weight: 2.0, reduction: sum}
penalty:
  - {l1: 0.01, l2: 0.1, on: "*.weight"}
  - {l2: 0.5, on: [stem/bias]}
"""


def test_losses_are_added_up_and_given_out() -> None:
    network = build(loads(TWO_HEADS))
    parts = ("loss/cross_entropy", "loss/side", "loss/mse", "loss/penalty", "loss/penalty_2")
    assert (network.outputs, network.parts) == (("top", "side", "stem"), parts)
    assert network.reduction == "mean and sum"
    assert {name: value.role for name, value in network.inputs.items()} == {"x": "input", "label": "target", "target": "target"}
    feeds = {"x": real((N, 5)), "label": RNG.integers(0, 3, N), "target": real((N, 4))}
    found = run(network, feeds, list(network.parameters))
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in network.parameter_values().items()}
    stem = torch.tanh(torch.tensor(feeds["x"], dtype=torch.float64) @ p["stem/weight"] + p["stem/bias"])
    side, top = (stem @ p[f"{name}/weight"] + p[f"{name}/bias"] for name in ("side", "top"))
    label = torch.tensor(feeds["label"])
    weights = [value for name, value in p.items() if name.endswith("weight")]
    theirs = [
        F.cross_entropy(top, label),
        F.cross_entropy(side, label),
        F.mse_loss(stem, torch.tensor(feeds["target"], dtype=torch.float64), reduction="sum"),
        sum((0.01 * w.abs().sum() + 0.1 * (w * w).sum() for w in weights), torch.zeros(())),
        0.5 * (p["stem/bias"] ** 2).sum(),
    ]
    total = sum(w * part for w, part in zip((1.0, 0.3, 2.0, 1.0, 1.0), theirs, strict=True))
    assert isinstance(total, torch.Tensor)
    total.backward()
    for name, part in zip(parts, theirs, strict=True):
        near(found[name], part)
    near(found["loss"], total)
    for name, leaf in p.items():
        near(found[f"grad.{name}"], leaf.grad)


def test_the_forward_graph_has_no_loss() -> None:
    model = inference(build(loads(TWO_HEADS)))
    assert [value.name for value in model.graph.outputs] == ["top", "side", "stem"]
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_a_network_of_several_losses_is_analysed() -> None:
    analysis = analyze(build(loads(TWO_HEADS)), Options(batch=8))
    assert analysis.self_check.violations == ()


def test_what_each_of_several_losses_sends_is_not_predicted() -> None:
    edges = analyze(build(loads(TWO_HEADS)), Options(batch=8, tiers=("expected",))).edges
    assert {edge.gain.expected.confidence for edge in edges} == {"low"}
    head = "inputs: {x: {shape: [n, 5]}, t: {shape: [n], type: int64, classes: 5}}\nlayers: [{kind: dense, units: 5}]\n"
    alone = build(loads(head + "loss: {kind: cross_entropy, target: t, weight: 0.5}\n"))
    edges = analyze(alone, Options(batch=8, tiers=("expected",))).edges
    assert "high" in {edge.gain.expected.confidence for edge in edges}


def test_a_single_loss_with_a_weight() -> None:
    x, t = real((N, 5)), real((N, 5))
    whole, third = (
        run(net(f"{{kind: mse, target: t, weight: {w}}}", ROWS, ROWS, ""), {"x": x, "t": t}, ["x"]) for w in (3.0, 1.0)
    )
    np.testing.assert_allclose(whole["loss"], 3 * third["loss"], rtol=1e-6)
    np.testing.assert_allclose(whole["grad.x"], 3 * third["grad.x"], rtol=1e-6)


def test_a_target_may_be_a_layer() -> None:
    text = "inputs: {x: {shape: [n, 5]}}\nlayers: [{kind: dense, name: a, units: 5}, {kind: tanh, name: b, from: x}]\n"
    network = build(loads(text + "loss: {kind: mse, input: a, target: b}\n"))
    assert network.outputs == ("a", "b")


def test_ignored_labels_may_stand_in_the_data(tmp_path: Any) -> None:
    network = net("{kind: cross_entropy, target: t, ignore_index: -100}", ROWS, "[n]", CLASSES)
    np.savez(tmp_path / "d.npz", x=real((4, 5)), t=np.array([0, -100, 3, 4]))
    assert batch(network, file=str(tmp_path / "d.npz"), size=4, seed=0)["t"].tolist() == [0, -100, 3, 4]


# loss, x, target, fields of the target: what is said
REFUSED = {
    "cross_entropy needs a target of class numbers": ("kind: cross_entropy", ROWS, "[n]", ""),
    "state class_axis: -1 where the classes come last": ("kind: cross_entropy", SEQUENCE, "[n, 4]", CLASSES),
    "the target has 5 classes, the logits have 6": ("kind: nll", "[n, 6]", "[n]", CLASSES),
    "class_weights holds 2 numbers for 5 classes": ("kind: cross_entropy, class_weights: [1.0, 2.0]", ROWS, "[n]", CLASSES),
    "ignore_index names a class number": ("kind: cross_entropy, ignore_index: 0", ROWS, ROWS, ""),
    "class_axis 0 is not an axis": ("kind: hinge, class_axis: 0", ROWS, "[n]", CLASSES),
    "huber needs an output and a target of one shape": ("kind: huber", ROWS, SEQUENCE, ""),
    "mae needs a target of real numbers": ("kind: mae", ROWS, "[n]", CLASSES),
    "pos_weight holds 2 numbers, the last axis is 5": ("kind: binary_cross_entropy, pos_weight: [1.0, 2.0]", ROWS, ROWS, ""),
    "margin: is for pairs": ("kind: cosine, margin: 0.1", ROWS, ROWS, ""),
    "hinge needs a target of class numbers, or one of -1 and 1": ("kind: hinge", ROWS, "[n]", ""),
    "axis 0 is not an axis": ("kind: kl, class_axis: 0", ROWS, ROWS, ""),
    "mse takes one input, found 2": ("kind: mse, input: [y, y]", ROWS, ROWS, ""),
    "unknown kind 'mse_loss'; did you mean 'mse'": ("kind: mse_loss", ROWS, ROWS, ""),
    "unknown field 'delt'; did you mean 'delta'": ("kind: huber, delt: 1.0", ROWS, ROWS, ""),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_said(message: str) -> None:
    loss, x, target, fields = REFUSED[message]
    for text in (f"{{{loss}, target: t}}", f"[{{{loss}, target: t}}]"):
        with pytest.raises(SpecError) as caught:
            net(text, x, target, fields)
        assert [message in str(complaint) for complaint in caught.value.complaints] == [True]
        assert caught.value.complaints[0].mark.line == 3


def test_penalties_that_do_not_fit_are_said() -> None:
    base = "inputs: {x: {shape: [n, 5]}}\nlayers: [{kind: dense, units: 5, name: a}]\n"
    loss = "loss: {kind: mse, target: x}\n"
    for text, message in {
        f"{base}penalty: {{l2: 1.0}}\n": "a penalty is added to a loss",
        f"{base}{loss}penalty: {{on: '*'}}\n": "a penalty states l1:, l2: or both",
        f"{base}{loss}penalty: {{l2: 1.0, on: a/wieght}}\n": "takes no parameter; did you mean 'a/weight'?",
    }.items():
        with pytest.raises(SpecError, match=message.replace("?", r"\?")):
            build(loads(text))


def test_names_of_losses_are_their_own() -> None:
    two = "[{kind: mse, target: t, name: a}, {kind: mae, target: t, name: a}]"
    with pytest.raises(SpecError, match="the name 'a' is taken"):
        net(two, ROWS, ROWS, "")
    network = net("[{kind: mse, target: t}, {kind: mse, target: t}]", ROWS, ROWS, "")
    assert network.parts == ("loss/mse", "loss/mse_2")


def test_labels_that_no_path_spells_cost_infinity() -> None:
    network = net("{kind: ctc, target: t}", "[n, 3, 5]", "[n, 3]", CLASSES)
    feeds = {"x": real((1, 3, 5)), "t": np.array([[1, 1, 1]])}
    assert run(network, feeds, ["x"])["loss"] == np.inf


def test_the_documentation_names_every_loss() -> None:
    text = (Path(__file__).parents[1] / "docs" / "yaml.md").read_text()
    kinds = [kind for loss in LOSSES for kind in get_args(loss.model_fields["kind"].annotation)]
    assert [kind for kind in kinds if f"`{kind}`" not in text] == []
