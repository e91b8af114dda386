"""Feed-forward layers: what they compute and its gradient are PyTorch's, and what does not suit them is explained."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spatial_cases import CASES, NOISE, PICTURE, ROW, TOKENS
from tests.test_layers import checked, data, network
from vgcompile.errors import SpecError
from vgcompile.graph.network import Network
from vgcompile.layers import LAYERS
from vgcompile.ops import OPS, op
from vgcompile.passes.gradient import joint
from vgcompile.passes.inference import inference
from vgcompile.signal import Signal
from vgcompile.verification.pipeline import verify

Array = np.ndarray[Any, Any]


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def drawn(net: Network) -> dict[str, Array]:
    """Values for the parameters, none of them 0 or all alike."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(0.5, 0.7, np.shape(v)).astype(np.float32) for name, v in net.parameter_values().items()}


def differentiated(net: Network, x: Array, parameters: dict[str, Array], g: Array) -> tuple[Array, dict[str, Array]]:
    """Output, and the vector-Jacobian product with ``g`` by input and parameters."""
    (y,), wanted = net.outputs, ["x", *net.parameters]
    run = session(joint(net.model.clone(), [y], wanted, [y], outside=True))
    given = {value.name for value in (*run.get_inputs(), *run.get_overridable_initializers())}
    feeds = {"x": x, f"adj.{y}": g, **parameters}
    first, *rest = run.run([y, *(f"grad.{name}" for name in wanted)], {name: feeds[name] for name in given & set(feeds)})
    return first, dict(zip(wanted, rest, strict=True))


def distance(ours: Array, theirs: Array) -> float:
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-30))


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradient_are_pytorchs(name: str) -> None:
    layers, shape, function = CASES[name]
    net, x = network(layers, shape), data(shape)
    parameters = drawn(net)
    leaves = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (x, *parameters.values())]
    expected = function(*leaves)
    g = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(g, dtype=torch.float64))
    y, gradients = differentiated(net, x, parameters, g)
    assert y.shape == tuple(expected.shape)
    assert distance(y, expected.detach().numpy()) <= 1e-5
    for leaf, (of, gradient) in zip(leaves, gradients.items(), strict=True):
        assert leaf.grad is not None
        assert distance(gradient, leaf.grad.numpy()) <= 1e-5, of


@pytest.mark.parametrize(
    ("layers", "shape", "module"),
    [
        ("{kind: dense, name: w, units: 5, spectral_norm: {iterations: 2}}", ROW, torch.nn.Linear(6, 5)),
        ("{kind: conv2d, name: w, filters: 5, kernel: 3, spectral_norm: {iterations: 2}}", PICTURE, torch.nn.Conv2d(4, 5, 3)),
        (
            "{kind: conv_transpose2d, name: w, filters: 5, kernel: 3, spectral_norm: {iterations: 2}}",
            PICTURE,
            torch.nn.ConvTranspose2d(4, 5, 3),
        ),
    ],
)
def test_spectral_norm_is_pytorchs(layers: str, shape: tuple[int, ...], module: torch.nn.Module) -> None:
    """From one direction, as many steps in the paper's order; what the steps find carries no gradient."""
    net, x = network(layers, shape), data(shape)
    module = torch.nn.utils.spectral_norm(module.double(), n_power_iterations=2)
    module.weight_u.copy_(torch.tensor(net.model.graph.initializers["w/weight_direction"].const_value.numpy()).flatten())
    parameters = drawn(net)
    flipped = isinstance(module, torch.nn.Linear)
    weight = torch.tensor(parameters["w/weight"]).double()
    module.weight_orig.data.copy_(weight.T if flipped else weight)
    module.bias.data.copy_(torch.tensor(parameters["w/bias"]))
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = module(leaf)
    g = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(g, dtype=torch.float64))
    y, gradients = differentiated(net, x, parameters, g)
    theirs = module.weight_orig.grad.numpy()
    assert distance(y, expected.detach().numpy()) <= 1e-5
    assert distance(gradients["x"], leaf.grad.numpy()) <= 1e-5
    assert distance(gradients["w/weight"], theirs.T if flipped else theirs) <= 1e-5


def test_enough_iterations_divide_by_the_largest_singular_value() -> None:
    net = network("{kind: dense, units: 5, bias: false, spectral_norm: {iterations: 60}}")
    weight = net.parameter_values()["dense/weight"]
    y = session(inference(net)).run(None, {"x": np.eye(6, dtype=np.float32)})[0]
    assert np.linalg.norm(y, 2) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(y, weight / np.linalg.norm(weight, 2), rtol=1e-4, atol=1e-6)


def test_a_weight_of_learned_length_starts_about_as_it_is_drawn() -> None:
    net = network("{kind: dense, units: 50, weight_norm: true, init: {weight: he_normal}}", (2000,))
    values = net.parameter_values()
    lengths = np.linalg.norm(values["dense/weight"], axis=0)
    assert values["dense/weight_length"].shape == (1, 50)
    np.testing.assert_allclose(values["dense/weight_length"][0], lengths, rtol=5 / np.sqrt(2 * 2000))


@pytest.mark.parametrize("kind", [*NOISE, "channels", "samples"])
def test_noise_is_of_training_alone(kind: str) -> None:
    layers = NOISE[kind][0] if kind in NOISE else f"{{kind: dropout, rate: 0.3, drops: {kind}}}"
    x = data(PICTURE)
    net = network(layers, PICTURE)
    for model in (inference(net), network(layers, PICTURE, mode="inference").model):
        np.testing.assert_array_equal(session(model).run(None, {"x": x})[0], x)


def noisy(layers: str, x: Array) -> Array:
    net = network(layers, x.shape[1:])
    options = onnxruntime.SessionOptions()
    run = onnxruntime.InferenceSession(checked(net).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(run.run(None, {"x": x})[0])


def test_noise_keeps_the_moments_that_it_is_made_to_keep() -> None:
    x = np.random.default_rng(0).normal(size=(40, 5000)).astype(np.float32)
    tolerance = 5 * np.sqrt(4 / x.size)
    y = noisy("{kind: alpha_dropout, rate: 0.2}", x)
    assert y.mean() == pytest.approx(0.0, abs=tolerance)
    assert y.var() == pytest.approx(1.0, abs=2 * tolerance)
    ratio = noisy("{kind: gaussian_dropout, rate: 0.2}", x) / x
    assert ratio.mean() == pytest.approx(1.0, abs=tolerance)
    assert ratio.var() == pytest.approx(0.25, abs=tolerance)
    assert (noisy("{kind: gaussian_noise, sd: 0.1}", x) - x).std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(("drops", "kept"), [("channels", 2), ("samples", 1)])
def test_dropout_drops_channels_and_samples_whole(drops: str, kept: int) -> None:
    x = np.ones((50, 20, 3, 2), np.float32)
    y = noisy(f"{{kind: dropout, rate: 0.6, drops: {drops}}}", x)
    groups = y.reshape(*y.shape[:kept], -1)
    assert (groups == groups[..., :1]).all()
    np.testing.assert_allclose(np.unique(y), [0.0, 2.5], rtol=1e-6)
    assert abs((groups[..., 0] == 0).mean() - 0.6) < 5 * np.sqrt(0.24 / groups[..., 0].size)


def test_noise_has_a_gradient() -> None:
    x = data(TOKENS)
    for layers, shape in NOISE.values():
        y, gradients = differentiated(network(layers, shape), x, {}, np.ones_like(x))
        assert np.isfinite(y).all() and np.isfinite(gradients["x"]).all()


def test_a_stopped_gradient_is_verified_with_what_it_stands_before_held_still(tmp_path: Path) -> None:
    model = tmp_path / "stopped.yaml"
    model.write_text(
        "inputs: {x: {shape: [batch, 6]}, t: {shape: [batch, 4]}}\nlayers:\n"
        "  - {kind: dense, name: inner, units: 4, spectral_norm: {iterations: 2}}\n  - {kind: stop_gradient, name: still}\n"
        "  - {kind: multiply, from: [inner, still]}\nloss: {kind: mse, target: t}\n"
    )
    found = verify(model)
    assert not found.wrong
    assert {stage: found.count(stage)[0] for stage in ("end to end", "float32")} == {"end to end": 2, "float32": 2}


def test_what_a_selection_hands_back_is_spread_over_its_input() -> None:
    """Also where nothing is known of the input, which a table's statistics never are."""
    case = op.Case(shapes=(("N", 8, 4), ()), outputs=(("N", 4),), attributes={"axis": 1}, batch=5)
    adjoint = Signal(1.0, 0.5, 0.25, 0.0)
    assert OPS["Gather"].moments.backward(case, 0, adjoint, (None, None)) == adjoint.scaled(1 / 8)


NASTY: list[Any] = [
    *(0, -1, 1, 2, 3, 10**6, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30), 0.0, 0.5, -1.5, 1e-30, 1e30, True, None, ""),
    *("same", "valid", "x", "x * 2", "relu", "sigmoid", [], [0], [1], [2, 2], [[1, 2], 3], [3, 3, 3], [0, 2, 1], [-1, 2], {}),
    *({"learned": 0.5}, {"learned": 1, "axis": 1}, {"learned": 1, "axis": 10**30}, {"kind": "glu", "axis": 2}),
]
KINDS = sorted({name.split(",")[0].split(" ")[0] for name in CASES} - {"residual"} | set(NOISE))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_field_value_makes_a_layer_or_a_complaint(drawn: st.DataObject) -> None:
    kind = drawn.draw(st.sampled_from(KINDS))
    wanted = {name: field.is_required() for name, field in LAYERS[kind].model_fields.items()}
    names = [name for name in wanted if name not in ("kind", "name", "sources", "share")]
    fields = {name: drawn.draw(st.sampled_from(NASTY)) for name in names if wanted[name] or drawn.draw(st.booleans())}
    shape = drawn.draw(st.sampled_from([ROW, TOKENS, PICTURE]))
    with suppress(SpecError):
        network(json.dumps({"kind": kind, **fields}), shape)


# layers, input shape, what is said of them
BAD: list[tuple[str, tuple[int, ...], str]] = [
    ("{kind: conv2d, filters: 4, kernel: 3}", (4, 9), "conv2d needs an input [batch, channels, height, width]"),
    ("{kind: conv3d, filters: 4, kernel: 3}", PICTURE, "conv3d needs an input [batch, channels, depth, height, width]"),
    ("{kind: conv1d, filters: 4, kernel: [3, 3]}", (4, 9), "'kernel' should be one number or [length], found a list of 2"),
    ("{kind: conv2d, filters: 4, kernel: 3, padding: [[1, 2, 3], 1]}", PICTURE, "'padding' should be"),
    ("{kind: conv2d, filters: 4, kernel: 3, padding: [1]}", PICTURE, "'padding' should be one number or [height, width]"),
    ("{kind: conv2d, filters: 4, kernel: 3, weight_norm: true, spectral_norm: {}}", PICTURE, "keep one of them"),
    (
        "{kind: dense, units: 4, weight_norm: true, init: {weight: zeros}}",
        ROW,
        "weight_norm needs weights that do not start at 0",
    ),
    (
        "{kind: conv_transpose2d, filters: 4, kernel: 3, output_padding: 1}",
        PICTURE,
        "output_padding 1 must be less than the stride 1",
    ),
    ("{kind: conv_transpose2d, filters: 4, kernel: 1, padding: 4}", PICTURE, "the padding leaves nothing of the output"),
    ("{kind: conv_transpose2d, filters: 4, kernel: 3, groups: 3}", PICTURE, "groups: 3 must divide"),
    ("{kind: max_pool, kernel: 2}", ROW, "max_pool needs an input [batch, channels, length] or [batch, channels, height, width]"),
    ("{kind: max_pool, kernel: [2, 2, 2]}", PICTURE, "kernel should be one number or [height, width], found a list of 3"),
    ("{kind: max_pool, kernel: 2, padding: 2}", PICTURE, "padding of 2 makes windows that hold nothing else"),
    ("{kind: adaptive_max_pool, size: 9}", PICTURE, "adaptive_max_pool makes axes smaller, not [8, 7] into [9, 9]: 'x'"),
    ("{kind: upsample, scale: 2, size: 3}", PICTURE, "upsample needs either scale: or size:"),
    ("{kind: upsample, scale: 2, mode: cubic}", (4, 9), "upsample needs an input [batch, channels, height, width]"),
    ("{kind: pad, padding: 7, mode: reflect}", PICTURE, "mode reflect has at most 6 cells to add to axis 3"),
    ("{kind: pad, padding: 1, mode: edge, value: 1.0}", PICTURE, "leave out value"),
    ("{kind: group_norm, groups: 3}", PICTURE, "groups: 3 must divide the input's 4 channels"),
    ("{kind: instance_norm}", ROW, "instance_norm needs an input [batch, channels, positions, ...]"),
    ("{kind: rms_norm, axis: 0}", ROW, "axis 0 is not an axis of [batch, 6] behind the batch"),
    ("{kind: softmax, axis: 2}", ROW, "axis 2 is not an axis of [batch, 6] behind the batch"),
    ("{kind: dense, units: 5, activation: glu}", ROW, "glu halves axis -1, which has 5 entries"),
    ("{kind: clip, min: 2, max: 1}", ROW, "min must be below max"),
    ("{kind: prelu, slope: {learned: 0.1, axis: 4}}", ROW, "axis 4 is not an axis of [batch, 6] behind the batch"),
    (
        "{kind: reshape, shape: [4, 4]}",
        ROW,
        "6 elements a sample do not fill [4, 4]: 'x' (line 1) gives [batch, 6]; let the extents multiply to 6",
    ),
    ("{kind: reshape, shape: [-1, -1]}", ROW, "of which one may be -1"),
    ("{kind: flatten, start: 2, end: 1}", PICTURE, "holds no axis"),
    ("{kind: transpose, perm: [1, 0]}", ROW, "the batch first"),
    ("{kind: transpose, perm: [0, 2, 1]}", ROW, "perm [0, 2, 1] orders 3 axes, the input has 2"),
    ("{kind: split, parts: 2, take: 2}", ROW, "there is no part 2: the first is 0, the last 1"),
    ("{kind: split, parts: 4, take: 2}", ROW, "6 entries of axis 1 do not fall into 4 parts"),
    ("{kind: split, sizes: [4, 4], take: 1}", ROW, "sizes [4, 4] do not add up to the 6 entries of axis 1"),
    ("{kind: slice, start: 6}", ROW, "the slice from 6 to the end is empty"),
    ("{kind: select, index: 6}", ROW, "axis 1 has 6 entries, none at 6: 'x' (line 1) gives [batch, 6]; choose one of 0 ... 5"),
    (
        "{kind: global_max_pool, name: top}\n{kind: multiply, from: [x, top]}",
        PICTURE,
        "a product needs equal shapes: 'x' (line 1) gives [batch, 4, 8, 7], 'top' (line 3) gives [batch, 4, 1, 1]; "
        "set broadcast: true",
    ),
    (
        "{kind: slice, name: part, end: 3}\n{kind: add, from: [x, part], broadcast: true}",
        ROW,
        "a sum with broadcast needs axes that are equal or 1",
    ),
    ("{kind: squeeze_excite}", PICTURE, "squeeze_excite needs either units: or reduction:"),
    ("{kind: squeeze_excite, reduction: 8}", PICTURE, "reduction: 8 leaves none of the 4 channels"),
    ("{kind: dropout, rate: 0.1, drops: channels}", ROW, "dropout of channels needs an input [batch, channels, positions, ...]"),
    ("{kind: tanh, name: a}\n{kind: expression, from: [x, a], formula: x}", ROW, "the formula never reads 'a'"),
    ("{kind: expression, parameters: {pi: 3}, formula: x * pi}", ROW, "the name 'pi' of a parameter is taken"),
    ("{kind: tanh, name: a-b}\n{kind: expression, from: [x, a-b], formula: x}", ROW, "no formula can name the input 'a-b'"),
    (
        "{kind: slice, name: part, end: 3}\n{kind: expression, from: [x, part], formula: x + part}",
        ROW,
        "an expression needs inputs of one shape",
    ),
]


@pytest.mark.parametrize(("layers", "shape", "message"), BAD, ids=range(len(BAD)))
def test_bad_uses_are_explained(layers: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        network(layers, shape)
    complaint, *_ = caught.value.complaints
    assert message in str(complaint)
    assert complaint.mark.line == 2 + len(layers.splitlines())


# formula of x, column, what is said of it
FORMULAS: list[tuple[str, int, str]] = [
    ("x * tahn(x)", 5, "unknown function 'tahn'; did you mean 'tan'?"),
    ("x * tanhh(x)", 5, "did you mean 'tanh'?"),
    ("x + y", 5, "unknown name 'y'; names here: x, pi, e"),
    ("  x + gama", 7, "unknown name 'gama'"),
    ("x +", 4, "invalid syntax"),
    ("(x", 1, "'(' was never closed"),
    ("x.real", 1, "'x.real' is not part of a formula"),
    ("x[0]", 1, "'x[0]' is not part of a formula"),
    ("__import__('os')", 1, "unknown function '__import__'"),
    ("(lambda: x)()", 1, "is not part of a formula"),
    ("x if x else x", 1, "is not part of a formula"),
    ("x + 'a'", 5, "is not part of a formula"),
    ("x + True", 5, "is not part of a formula"),
    ("x + 1j", 5, "is not part of a formula"),
    ("f'{x}'", 1, "is not part of a formula"),
    ("[x for x in x]", 1, "is not part of a formula"),
    ("(x := 1)", 2, "is not part of a formula"),
    ("tanh(*x)", 6, "is not part of a formula"),
    ("tanh(x, k=x)", 1, "is not part of a formula"),
    ("x // 2", 1, "is not part of a formula"),
    ("tanh(x, x)", 1, "tanh takes one argument, found 2"),
    ("max(x)", 1, "max takes 2 or more arguments, found 1"),
    ("clip(x, 1)", 1, "clip takes 3 arguments, found 2"),
    ("tanh * x", 1, "the function 'tanh' without arguments; write tanh(...)"),
    ("where(x, 1, 2)", 7, "a number where a condition is needed"),
    ("x * (x > 0)", 6, "a comparison where a number is needed"),
    ("x + (1 < 2)", 6, "both sides of the comparison are numbers"),
    ("where(x in x, x, x)", 7, "'in' and 'is' are not part of a formula"),
    ("x / (1 - 1) ** -1", 5, "is no finite number of float32"),
    ("x + 9 ** 9 ** 9", 5, "is no finite number of float32"),
    ("x + 1e39", 5, "the number is beyond float32"),
    ("x + " + "9" * 400, 5, "the number is beyond float32"),
    ("x + tanh(1)", 5, "tanh of numbers alone"),
    ("-" * 60 + "x", 42, "nested more than 40 deep"),
    ("(" * 400 + "x" + ")" * 400, 1, ""),
    ("x + " * 300 + "x", 1001, "it has 1201 characters"),
    ("x\0", 1, ""),
]


@pytest.mark.parametrize(("formula", "column", "message"), FORMULAS, ids=range(len(FORMULAS)))
def test_a_formula_is_explained_at_its_column(formula: str, column: int, message: str) -> None:
    from vgcompile.layers.formula import FormulaError, parse

    with pytest.raises(FormulaError) as caught:
        parse(formula, ["x"])
    assert message in str(caught.value)
    if message:
        assert str(caught.value).startswith(f"column {column} of the formula: ")


def test_a_wrong_formula_is_a_complaint_at_its_place() -> None:
    with pytest.raises(SpecError, match=r"<text>:3:33: column 5 of the formula: unknown function 'tanhh'; did you mean 'tanh'\?"):
        network('{kind: expression, formula: "x * tanhh(x)"}')
