"""First values: what is drawn has the stated moments, patterns and layers rank as they should, gains are exact, nothing is drawn
before it is read, and files give what they hold."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save_file
from scipy import integrate
from torch.nn import functional as F

from vgcompile.build import build
from vgcompile.compiler import compile_network, open_network
from vgcompile.errors import SpecError, UserError
from vgcompile.graph import storing
from vgcompile.graph.gains import gain_of
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.graph.weights import Stored, numbers
from vgcompile.initial import FARTHEST, Initial, left_by_cut, stream
from vgcompile.layers.initialization import Gain
from vgcompile.runtime.session import Session
from vgcompile.spec import load, loads

Array = np.ndarray[Any, Any]


def net(layers: str, more: str = "", shape: str = "[n, 6]") -> Network:
    return build(loads(f"inputs: {{x: {{shape: {shape}}}}}\n{more}\nlayers: [{layers}]\n"))


def first(network: Network) -> dict[str, float]:
    """The one number that each parameter holds."""
    return {name: float(array.ravel()[0]) for name, array in network.parameter_values().items()}


# Distributions


@pytest.mark.parametrize("cut", [0.1, 0.5, 1.0, 2.0, 3.0, 30.0])
def test_what_a_cut_leaves(cut: float) -> None:
    """Against the integral of the density, and for the usual cut the constant of JAX and Keras."""
    mass, square = (integrate.quad(lambda z, k=k: z**k * math.exp(-z * z / 2), -cut, cut, points=[0.0])[0] for k in (0, 2))
    assert left_by_cut(cut) == pytest.approx(math.sqrt(square / mass), rel=1e-9)
    assert left_by_cut(2.0) == pytest.approx(0.87962566103423978, rel=1e-12)


@pytest.mark.parametrize(
    ("stated", "variance", "beyond"),
    [
        ("{kind: truncated_normal, sd: 0.5}", (0.5 * 0.87962566103423978) ** 2, 1.0),
        ("{kind: truncated_normal, sd: 0.5, mean: 1.0, cut: 1.0}", 0.25 * 0.2911250947, 1.5),
        ("{kind: variance_scaling, distribution: truncated_normal}", 1 / 6, 2 / math.sqrt(6) / 0.87962566103423978),
    ],
)
def test_a_truncated_normal_has_its_variance_and_no_tails(stated: str, variance: float, beyond: float) -> None:
    values = (
        net(f"{{kind: dense, units: 40000, init: {{weight: {stated}}}}}").parameter_values()["dense/weight"].astype(np.float64)
    )
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / values.size))
    assert 0.99 * beyond < np.abs(values).max() <= beyond * (1 + 1e-6)


def test_pytorchs_truncated_normal() -> None:
    """Of the same sd and cut, in moments."""
    theirs = torch.nn.init.trunc_normal_(torch.empty(100000), 0.0, 0.02, -0.04, 0.04).numpy()
    ours = Initial("truncated_normal", (100000,), 0.0, 0.02 * left_by_cut(2.0)).draw("w", 0)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


DIRACS = [((6, 4, 3, 3), 1), ((6, 3, 5), 2), ((8, 1, 3, 3), 8), ((4, 8, 2, 2, 3), 1)]


@pytest.mark.parametrize(("shape", "groups"), DIRACS)
def test_dirac_is_pytorchs(shape: tuple[int, ...], groups: int) -> None:
    theirs = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    share = np.count_nonzero(theirs) / theirs.size
    initial = Initial("identity", shape, share, math.sqrt(share * (1 - share)), parts=groups)
    np.testing.assert_allclose(initial.draw("w", 0), theirs, rtol=1e-6)
    assert initial.square == pytest.approx(float((theirs**2).mean()))


def test_an_identity_hands_on_what_enters() -> None:
    network = net(
        "{kind: dense, units: 6, init: {weight: {kind: identity, gain: 2.0}}}, {kind: dense, units: 3, init: {weight: identity}}"
    )
    wide, narrow = (network.parameter_values()[name] for name in ("dense/weight", "dense_2/weight"))
    np.testing.assert_allclose(wide, 2 * np.eye(6), rtol=1e-6)
    np.testing.assert_allclose(narrow, np.eye(6, 3), rtol=1e-6)
    kernel = net("{kind: conv2d, filters: 4, kernel: 3, groups: 2, init: {weight: dirac}}", "", "[n, 4, 5, 5]")
    np.testing.assert_allclose(
        kernel.parameter_values()["conv2d/weight"], torch.nn.init.dirac_(torch.empty(4, 2, 3, 3), 2).numpy(), rtol=1e-6
    )


@pytest.mark.parametrize(("shape", "parts"), [((12, 3), 4), ((6, 5), 3), ((8, 2, 3), 2), ((7,), 1), ((3, 4, 5), 1)])
def test_each_matrix_of_a_stack_is_orthogonal(shape: tuple[int, ...], parts: int) -> None:
    rows, columns = shape[0] // parts, math.prod(shape[1:])
    initial = Initial("orthogonal", shape, sd=1.5 / math.sqrt(max(rows, columns)), parts=parts)
    for matrix in initial.draw("w", 3).reshape(parts, rows, columns).astype(np.float64):
        short = matrix if rows <= columns else matrix.T
        np.testing.assert_allclose(short @ short.T, 2.25 * np.eye(len(short)), atol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "truncated_normal", "uniform", "constant", "orthogonal", "identity"])
def test_nothing_is_drawn_beyond_the_reach(kind: Any) -> None:
    initial = Initial(kind, (60, 50), 0.1, 0.3)
    assert np.abs(initial.draw("w", 0)).max() <= initial.reach * (1 + 1e-6)
    assert FARTHEST > 9  # of 10^20 normal numbers none is expected there


def test_large_draws_are_those_of_one_go() -> None:
    """The numbers of a seed do not hang on how many are drawn at once."""
    whole = stream(0, "w").normal(0.5, 2.0, (3, 500_000)).astype(np.float32)
    np.testing.assert_array_equal(Initial("normal", (3, 500_000), 0.5, 2.0).draw("w", 0), whole)


# Gains

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "{kind: leaky_relu, alpha: 0.2}": lambda z: F.leaky_relu(z, 0.2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "selu": F.selu,
    "{kind: elu, alpha: 0.5}": lambda z: F.elu(z, 0.5),
    "gelu": F.gelu,
    "{kind: gelu, approximate: tanh}": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hard_sigmoid": F.hardsigmoid,
    "mish": F.mish,
}


def expectation(f: Callable[[torch.Tensor], torch.Tensor], keep: str) -> float:
    """E[f(z)^2] or E[f'(z)^2] with PyTorch's values and derivatives, by Simpson's rule between the corners at -3, 0 and 3."""
    total = 0.0
    for a, b in [(-12, -3), (-3, 0), (0, 3), (3, 12)]:
        points = torch.linspace(a + 1e-9, b - 1e-9, 4001, dtype=torch.float64, requires_grad=True)
        value = f(points)
        if keep == "slopes":
            (value,) = torch.autograd.grad(value.sum(), points)
        density = torch.exp(-points * points / 2) / math.sqrt(2 * math.pi)
        total += float(integrate.simpson((value**2 * density).detach().numpy(), x=points.detach().numpy()))
    return total


@pytest.mark.parametrize("keep", ["values", "slopes"])
@pytest.mark.parametrize("stated", ACTIVATIONS)
def test_a_gain_keeps_what_it_says(stated: str, keep: str) -> None:
    initial = "{kind: lecun_normal, gain: {activation: " + stated + f", keep: {keep}" + "}}"
    network = net(f"{{kind: dense, units: 5, init: {{weight: {initial}}}}}")
    drawn = Initial.from_json(fact(network.model.graph.initializers["dense/weight"], "initial") or "")
    assert 6 * drawn.sd**2 * expectation(ACTIVATIONS[stated], keep) == pytest.approx(1.0, rel=1e-7)


def test_gains_of_closed_form() -> None:
    """relu: E = 1/2; leaky: (1 + a^2) / 2; sigmoid at large gain is bounded by 1; selu keeps a variance of 1 at mean 0."""

    def gain(given: Any, keep: Any = "values") -> float:
        return gain_of(Gain.model_validate({"activation": given, "keep": keep}))

    assert gain("relu") == pytest.approx(math.sqrt(2), rel=1e-12)
    assert gain("relu", "slopes") == pytest.approx(math.sqrt(2), rel=1e-12)
    stored = float(np.float32(0.3))  # what a file holds, and a run computes with
    assert gain({"kind": "leaky_relu", "alpha": 0.3}) == pytest.approx(math.sqrt(2 / (1 + stored**2)), rel=1e-12)
    assert gain("selu") == pytest.approx(1.0, rel=1e-6)  # its published constants have seven digits
    assert gain("tanh") == pytest.approx(1.5925374197228312, rel=1e-9)
    short = net("{kind: dense, units: 5, init: {weight: {kind: orthogonal, gain: relu}}}").parameter_values()["dense/weight"]
    np.testing.assert_allclose(short.T @ short, 2 * np.eye(5), atol=1e-5)


# Whose init counts

LAYERS = (
    "{kind: dense, name: a, units: 6}, {kind: block, name: h, repeat: 2, layers: [{kind: dense, units: 6}, {kind: batch_norm}]}"
)


def of(value: float) -> str:
    return f"{{kind: constant, value: {value}}}"


def test_the_last_pattern_counts_and_a_layer_before_all() -> None:
    last = f"'h/2/*': {{weight: {of(5)}, bias: {of(6)}}}"
    rules = f"init: {{weight: {of(1)}, bias: {of(2)}, '*.weight': {of(3)}, 'h/*': {of(4)}, {last}}}"
    layers = LAYERS + f", {{kind: dense, name: z, units: 2, init: {{bias: {of(7)}}}}}"
    assert first(net(layers, rules)) == {
        "a/weight": 3, "a/bias": 2,
        "h/1/dense/weight": 4, "h/1/dense/bias": 4, "h/1/batch_norm/scale": 4, "h/1/batch_norm/bias": 4,
        "h/2/dense/weight": 5, "h/2/dense/bias": 6, "h/2/batch_norm/scale": 4, "h/2/batch_norm/bias": 6,
        "z/weight": 3, "z/bias": 7,
    }  # fmt: skip


def test_a_name_alone_is_that_of_the_parameter() -> None:
    found = first(net(LAYERS, f"init: {{scale: {of(0.5)}, weight: zeros, bias: zeros}}"))
    assert {name for name, value in found.items() if value == 0.5} == {"h/1/batch_norm/scale", "h/2/batch_norm/scale"}


def test_normalization_follows_patterns_and_not_the_models_default() -> None:
    assert first(net(LAYERS, f"init: {{bias: {of(3)}}}"))["h/1/batch_norm/bias"] == 0.0
    assert first(net(LAYERS, f"init: {{'*/batch_norm/bias': {of(3)}}}"))["h/1/batch_norm/bias"] == 3.0
    own = f"{{kind: batch_norm, name: bn, init: {{bias: {of(1)}}}}}"
    assert first(net(own, f"init: {{'bn.*': {of(3)}}}", "[n, 4]")) == {"bn/scale": 3.0, "bn/bias": 1.0}


# fields of init -> what is said
WRONG_INIT = {
    "{'*.wieght': zeros}": "3:8: the pattern '*.wieght' takes no parameter",
    "{a: {scale: ones}}": "the pattern 'a' takes no parameter called 'scale'",
    "{'a/*': he_normall}": "unknown kind 'he_normall'; did you mean 'he_normal'?",
    "{'a/*': {weight: he_normall}}": "unknown kind 'he_normall'; did you mean 'he_normal'?",
    "{'a/*': {weight: {kind: he_normal, gian: 2.0}}}": "unknown field 'gian'; did you mean 'gain'?",
    "{weight: {kind: he_normal, gain: relu}}": "he_normal holds the gain of relu already: write {kind: lecun_normal, gain: ...}",
    "{weight: {kind: lecun_normal, gain: reluu}}": "unknown kind 'reluu'; did you mean 'relu'?",
    "{weight: {kind: lecun_normal, gain: 0}}": "'gain' should be greater than 0, found 0",
    "{bias: identity}": "identity needs a matrix or a kernel",
    "{weight: {kind: normal, sd: 1e38}}": "initial values of weight are beyond the largest float32",
}


@pytest.mark.parametrize("init", WRONG_INIT)
def test_what_is_wrong_with_init(init: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(loads(f"inputs: {{x: {{shape: [n, 6]}}}}\nlayers: [{{kind: dense, name: a, units: 6}}]\ninit: {init}\n"))
    assert WRONG_INIT[init] in str(caught.value)


# Nothing is drawn before it is read


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is drawn from here on."""
    names: list[str] = []
    draw = Initial.draw

    def noted(self: Initial, name: str, seed: int) -> Array:
        names.append(name)
        return draw(self, name, seed)

    monkeypatch.setattr(Initial, "draw", noted)
    return names


def test_a_network_of_any_size_is_built_without_a_draw(drawn: list[str]) -> None:
    network = net("{kind: dense, name: a, units: 2000000000}, {kind: dense, name: b, units: 10}")
    assert network.sizes() == {"a/weight": 12e9, "a/bias": 2e9, "b/weight": 20e9, "b/bias": 10}
    assert drawn == []
    with pytest.raises(UserError, match=r"the 4,194,304.0 GB of a/weight do not fit into memory"):
        Initial("normal", (2**40, 2**10)).draw("a/weight", 0)


def test_check_draws_no_large_weight(tmp_path: Path, drawn: list[str]) -> None:
    from typer.testing import CliRunner

    from vgcompile.cli.app import app

    (tmp_path / "wide.yaml").write_text(
        "inputs: {x: {shape: [n, 8000]}, t: {shape: [n, 9000]}}\n"
        "layers: [{kind: dense, units: 9000}]\nloss: {kind: mse, target: t}\n"
    )
    done = CliRunner().invoke(app, ["check", str(tmp_path / "wide.yaml")])
    assert done.exit_code == 0, done.output
    assert "2 parameters of 72,009,000 numbers" in done.output
    assert drawn == []


def test_forward_and_gradient_share_one_file_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[str]
) -> None:
    monkeypatch.setattr(storing.save_models, "__kwdefaults__", {"in_one_file": 1000})
    layers = "layers: [{kind: dense, units: 70, name: a}]\nloss: {kind: mse, target: t}\n"
    text = f"inputs: {{x: {{shape: [n, 60]}}, t: {{shape: [n, 70]}}}}\n{layers}"
    compiled = compile_network(build(loads(text, "net.yaml")))
    assert [path.name for path in compiled.write(tmp_path)] == ["net.onnx", "net.grad.onnx", "net.data"]
    assert sorted(drawn) == ["a/bias", "a/weight"]
    assert (tmp_path / "net.data").stat().st_size < 4 * 60 * 70 + 4096
    x, t = np.ones((2, 60), np.float32), np.ones((2, 70), np.float32)
    beside = Session(tmp_path / "net.grad.onnx").run(None, {"x": x, "t": t})
    whole = Session(compiled.gradient).run(None, {"x": x, "t": t})  # type: ignore[arg-type]
    for name, value in whole.items():
        np.testing.assert_array_equal(beside[name], value)
    np.testing.assert_array_equal(Session(tmp_path / "net.onnx").run(["a"], {"x": x})["a"], whole["a"])


# Weights from files

STORED = {"conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "bn.weight": (4,), "bn.bias": (4,), "bn.running_mean": (4,),
          "bn.running_var": (4,), "layers.0.fc.weight": (4, 4), "layers.0.fc.bias": (4,), "layers.1.fc.weight": (2, 4),
          "layers.1.fc.bias": (2,)}  # fmt: skip
READING = """
inputs: {{x: {{shape: [n, 3, 5, 5]}}}}
layers:
  - {{kind: conv2d, name: stem, filters: 4, kernel: 3}}
  - {{kind: batch_norm, name: bn}}
  - {{kind: global_average_pool}}
  - {{kind: flatten}}
  - {{kind: block, name: "h", layers: [{{kind: dense, name: d1, units: 4}}, {{kind: dense, name: d2, units: 2}}]}}
weights:
  file: {file}
  map: {map}
  transpose: {transpose}
  strict: {strict}
"""
MAP = '{"conv1.*": "stem/*", bn.weight: bn/scale, "layers.*.fc.*": "h/d*+1/*", "*.num_batches_tracked": null}'


def arrays() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in STORED.items()}
    return {**found, "bn.num_batches_tracked": np.array([7])}


def write(path: Path, tensors: dict[str, Array]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **tensors)  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(a, n) for n, a in tensors.items()])
        onnx.save(onnx.helper.make_model(graph), path)


def model(folder: Path, file: str, map: str = MAP, transpose: str = '["h/*/weight"]', strict: str = "true") -> Path:
    path = folder / "net.yaml"
    path.write_text(READING.format(file=file, map=map, transpose=transpose, strict=strict))
    return path


@pytest.mark.parametrize("kind", ["npz", "safetensors", "onnx"])
def test_weights_are_those_of_the_file(kind: str, tmp_path: Path, drawn: list[str]) -> None:
    tensors = arrays()
    write(tmp_path / f"w.{kind}", tensors)
    network = open_network(model(tmp_path, f"w.{kind}"))
    values = network.parameter_values()
    expected = {
        "stem/weight": tensors["conv1.weight"], "stem/bias": tensors["conv1.bias"],
        "bn/scale": tensors["bn.weight"], "bn/bias": tensors["bn.bias"],
        "h/d1/weight": tensors["layers.0.fc.weight"].T, "h/d1/bias": tensors["layers.0.fc.bias"],
        "h/d2/weight": tensors["layers.1.fc.weight"].T, "h/d2/bias": tensors["layers.1.fc.bias"],
    }  # fmt: skip
    assert set(values) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(values[name], array)
    mean = network.model.graph.initializers["bn/running_mean"].const_value
    assert mean is not None
    np.testing.assert_array_equal(mean.numpy(), tensors["bn.running_mean"])
    assert drawn == []
    assert network.parameter_values(seed=5)["stem/bias"].tolist() == tensors["conv1.bias"].tolist()
    compiled = compile_network(network)
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in compiled.forward.graph.initializer}
    np.testing.assert_array_equal(held["h/d1/weight"], expected["h/d1/weight"])


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_precisions_become_float32(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    save_torch({"a.weight": torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))}, tmp_path / "w.safetensors")
    (tmp_path / "n.yaml").write_text(
        "inputs: {x: {shape: [n, 3]}}\nlayers: [{kind: dense, name: a, units: 4, bias: false}]\nweights: {file: w.safetensors}\n"
    )
    weight = open_network(tmp_path / "n.yaml").parameter_values()["a/weight"]
    assert (weight.dtype, weight.tolist()) == (np.float32, np.arange(12).reshape(3, 4).tolist())


def test_without_strict_what_is_not_in_the_file_is_drawn(tmp_path: Path) -> None:
    write(tmp_path / "w.npz", {"stem.weight": arrays()["conv1.weight"], "other": np.ones(3)})
    network = open_network(model(tmp_path, "w.npz", "{}", "[]", "false"))
    values = network.parameter_values()
    np.testing.assert_array_equal(values["stem/weight"], arrays()["conv1.weight"])
    other = network.parameter_values(seed=1)
    assert not np.array_equal(values["h/d1/weight"], other["h/d1/weight"])
    np.testing.assert_array_equal(values["stem/weight"], other["stem/weight"])


# what is changed -> what is said, all of it
WRONG_FILES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "not turned": (
        {"transpose": "[h/d1/weight]"},
        ["10:9: w.npz: 'layers.1.fc.weight' [2, 4] does not fit 'h/d2/weight' [4, 2]; list 'h/d2/weight' under transpose:"],
    ),
    "turned": (
        {"map": MAP.replace('"h/d*+1/*"', "null"), "strict": "false", "transpose": "[nothing]"},
        ["10:9: w.npz: transpose: 'nothing' takes no parameter"],
    ),
    "unmapped": (
        {"map": '{"layers.*.fc.*": "h/d*+1/*", "*.num_batches_tracked": null}'},
        [
            "10:9: w.npz: no tensor for 'stem/weight' (did you mean 'bn.weight'?), 'stem/bias' (did you mean 'conv1.bias'?),"
            " 'bn/scale'; name it under map:, or state strict: false",
            "10:9: w.npz: no parameter for 'conv1.weight', 'conv1.bias', 'bn.weight';"
            " map it to one, or to null to leave it out, or state strict: false",
        ],
    ),
    "misspelt": (
        {"map": MAP.replace("bn.weight: bn/scale", "bn.weight: bn/scle, bn.wait: bn/scale"), "strict": "false"},
        [
            "11:30: w.npz: 'bn.weight' is to be 'bn/scle', which the model lacks; did you mean 'bn/scale'?",
            "11:50: w.npz: 'bn.wait' takes no tensor; did you mean 'bn.weight'?",
        ],
    ),
    "twice": (
        {"map": MAP.replace("bn.weight: bn/scale", "bn.weight: bn/scale, bn.bias: bn/scale"), "strict": "false"},
        ["10:9: w.npz: 'bn.bias' is the second tensor for 'bn/scale'; let the map tell them apart"],
    ),
    "whole numbers": (
        {"map": MAP.replace("null", "bn/bias"), "strict": "false"},
        [
            "10:9: w.npz: 'bn.num_batches_tracked' is the second tensor for 'bn/bias'; let the map tell them apart",
            "10:9: w.npz: 'bn.num_batches_tracked' holds no real numbers, 'bn/bias' takes them",
        ],
    ),
    "absent": ({"file": "v.npz"}, ["10:9: v.npz: no such file; the path starts from the model file's folder"]),
    "no weights": ({"file": "net.yaml"}, ["10:9: net.yaml is no file of weights; give one of .npz, .safetensors, .onnx"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_FILES)
def test_what_does_not_fit_a_file(case: str, tmp_path: Path) -> None:
    changes, stated = WRONG_FILES[case]
    write(tmp_path / "w.npz", arrays())
    path = model(tmp_path, **{"file": "w.npz", **changes})
    with pytest.raises(SpecError) as caught:
        build(load(path))
    found = [str(complaint).removeprefix(f"{path}:").replace(str(tmp_path), "DIR") for complaint in caught.value.complaints]
    assert found == stated


@pytest.mark.parametrize("kind", ["npz", "safetensors", "onnx"])
@pytest.mark.parametrize("content", [b"", b"no such thing", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"PK\x03\x04 and then"])
def test_a_malformed_file_is_a_complaint(kind: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"w.{kind}").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        build(load(model(tmp_path, f"w.{kind}")))
    assert len(caught.value.complaints) == 1
    assert caught.value.complaints[0].mark.line == 10


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_file_that_is_cut_off(kind: str, tmp_path: Path) -> None:
    write(tmp_path / f"w.{kind}", arrays())
    whole = (tmp_path / f"w.{kind}").read_bytes()
    (tmp_path / f"w.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpecError, match=f"not a .{kind} file that can be read"):
        build(load(model(tmp_path, f"w.{kind}")))


@pytest.mark.parametrize("number", [np.nan, 1e200])
def test_numbers_that_are_not_finite_are_said_when_they_are_read(number: float, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", **{**arrays(), "bn.bias": np.array([1, number, 1, 1])})  # type: ignore[arg-type]
    network = build(load(model(tmp_path, "w.npz")))
    said = "the tensor for 'bn/bias' holds numbers that are not finite in float32"
    with pytest.raises(UserError, match=said):
        _ = compile_network(network).forward
    with pytest.raises(UserError, match=said):
        network.parameter_values()


def test_a_tensor_that_is_spoilt_behind_its_header() -> None:
    def read() -> Array:
        raise zipfile.BadZipFile("Bad CRC-32")

    with pytest.raises(UserError, match=r"w\.npz: the tensor for 'a' cannot be read: Bad CRC-32"):
        numbers(Stored((3,), True, read), "w.npz: the tensor for 'a'")


def test_a_learned_number_keeps_its_rank() -> None:
    """NumPy's contiguous arrays have an axis at least; the file's shapes would contradict each other."""
    layers = (
        "layers: [{kind: dense, units: 2, name: a}, {kind: scale, by: {learned: 0.5}, name: b}]\nloss: {kind: mse, target: t}\n"
    )
    network = build(loads(f"inputs: {{x: {{shape: [n, 3]}}, t: {{shape: [n, 2]}}}}\n{layers}"))
    assert network.parameter_values()["b/scale"].shape == ()
    gradient = compile_network(network).gradient
    assert gradient is not None
    (stored,) = (tensor for tensor in gradient.graph.initializer if tensor.name == "b/scale")
    assert list(stored.dims) == []
