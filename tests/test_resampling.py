"""Resampling, spectra and tensor algebra against PyTorch's autograd in float64, edges included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose
from onnx import helper, numpy_helper, parser

from tests.one_node import build
from vgcompile.derivatives import gradients
from vgcompile.errors import GradientRefused, ModelError
from vgcompile.graph.normalize import normalized
from vgcompile.ops import OPS
from vgcompile.ops.op import Array, sample

functional = torch.nn.functional


def agree(
    name: str,
    literals: tuple[Any, ...],
    attributes: dict[str, Any],
    oracle: Callable[..., torch.Tensor],
    *inputs: Array,
    outputs: int = 1,
) -> None:
    """Each input's adjoint, for random g, is PyTorch's."""
    rng = np.random.default_rng(0)
    tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    y = oracle(*tensors)
    g = rng.normal(size=y.shape)
    y.backward(torch.tensor(g))
    one = build(OPS[name], sample(*(x.shape for x in inputs), *literals, **attributes))
    drawn = dict(enumerate(inputs))
    assert_allclose(one.run_forward(drawn)[0], y.detach().numpy(), rtol=1e-4, atol=1e-5)
    for position, adjoint in one.run_gradient(drawn, {0: g}).items():
        grad = tensors[position].grad
        assert grad is not None
        assert_allclose(adjoint, grad.numpy(), rtol=1e-5, atol=1e-5)


IMAGE = np.random.default_rng(1).normal(size=(2, 3, 5, 6))

RESIZES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {"mode": "nearest"}),
    (
        {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
        {"mode": "nearest-exact"},
    ),
    ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, {"mode": "bilinear", "align_corners": True}),
    ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, {"mode": "bilinear", "align_corners": False}),
    ({"mode": "cubic", "coordinate_transformation_mode": "align_corners"}, {"mode": "bicubic", "align_corners": True}),
    ({"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}, {"mode": "bicubic", "align_corners": False}),
    ({"mode": "linear", "antialias": 1, "exclude_outside": 1}, {"mode": "bilinear", "antialias": True}),
    ({"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}, {"mode": "bicubic", "antialias": True}),
]


@pytest.mark.parametrize("size", [(10, 18), (7, 4), (3, 9), (2, 2)], ids=str)
@pytest.mark.parametrize(("attributes", "options"), RESIZES, ids=lambda item: "-".join(map(str, item.values())))
def test_resize_is_interpolate(attributes: dict[str, Any], options: dict[str, Any], size: tuple[int, int]) -> None:
    literals = (None, None, np.array(size))
    agree("Resize", literals, {"axes": [2, 3], **attributes}, lambda x: functional.interpolate(x, size, **options), IMAGE)


def test_resize_of_volumes_is_interpolate() -> None:
    x = np.random.default_rng(1).normal(size=(2, 1, 3, 4, 2))
    scales = np.array([1, 1, 2, 1.5, 2], np.float32)
    agree(
        "Resize",
        (None, scales),
        {"mode": "linear"},
        lambda t: functional.interpolate(t, scale_factor=(2, 1.5, 2), mode="trilinear"),
        x,
    )


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    """Far outside, and exactly at pixels, at borders and halfway between them."""
    rng = np.random.default_rng(2)
    ties = np.array([-1.0, -0.8, -0.5, 0.0, 0.5, 1.0])
    grid = np.concatenate(
        [rng.uniform(-2.5, 2.5, (2, 3, 4, 2)), np.stack(np.meshgrid(ties[:4], ties[2:5]), -1)[None].repeat(2, 0)], 1
    )
    names = {"linear": "bilinear", "cubic": "bicubic"}

    def oracle(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return functional.grid_sample(x, g, names.get(mode, mode), padding, bool(align))

    attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    agree("GridSample", (), attributes, oracle, np.random.default_rng(3).normal(size=(2, 3, 4, 5)), grid)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_of_volumes(padding: str, align: int) -> None:
    rng = np.random.default_rng(2)
    attributes = {"padding_mode": padding, "align_corners": align}
    agree(
        *("GridSample", (), attributes, lambda x, g: functional.grid_sample(x, g, "bilinear", padding, bool(align))),
        *(rng.normal(size=(2, 3, 3, 4, 5)), rng.uniform(-2.0, 2.0, (2, 2, 3, 2, 3))),
    )


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (2, 1, 2, 5), (2, 1, 3, 2, 4)], ids=str)
def test_affine_grid(size: tuple[int, ...], align: int) -> None:
    rank = len(size) - 2
    theta = np.random.default_rng(4).normal(size=(2, rank, rank + 1))
    agree(
        "AffineGrid",
        (np.array(size),),
        {"align_corners": align},
        lambda t: functional.affine_grid(t, list(size), bool(align)),
        theta,
    )


def _complex(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]


@pytest.mark.parametrize("length", [None, 4, 5, 9])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", ["fft", "ifft", "rfft", "irfft"])
def test_dft(kind: str, parts: int, length: int | None) -> None:
    if (kind, parts) in (("rfft", 2), ("irfft", 1)):
        pytest.skip("takes real numbers, or complex ones, alone")
    x = np.random.default_rng(5).normal(size=(2, 6, 3, parts))

    def oracle(t: torch.Tensor) -> torch.Tensor:
        y = getattr(torch.fft, kind)(_complex(t), n=length, dim=1)
        return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y[..., None]

    literals = (None if length is None else np.array(length), np.array(1))
    agree(
        "DFT", literals, {"inverse": int(kind[-4:] in ("ifft", "rfft") and "i" in kind), "onesided": int("r" in kind)}, oracle, x
    )


@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(onesided: int, step: int) -> None:
    rng = np.random.default_rng(6)
    x, window = rng.normal(size=(2, 11, 1)), rng.uniform(0.5, 1.0, 4)

    def oracle(t: torch.Tensor) -> torch.Tensor:
        w = torch.tensor(window)
        y = torch.stft(t[..., 0], 4, step, 4, w, center=False, onesided=bool(onesided), return_complex=True)
        return torch.view_as_real(y.transpose(1, 2))

    agree("STFT", (np.array(step), window, np.array(4)), {"onesided": onesided}, oracle, x)


EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 2)]),
    ("ij,jk,kl", [(2, 3), (3, 4), (4, 2)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)]),
    ("ii->i", [(3, 3)]),
    ("iij->j", [(3, 3, 2)]),
    ("ii", [(3, 3)]),
    ("ij,i->", [(3, 4), (3,)]),
    ("ba", [(2, 3)]),
    ("i,j,k->kij", [(2,), (3,), (4,)]),
    ("...->...", [(2, 3)]),
    ("a...b,b...->a...", [(2, 3, 4), (4, 3)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=lambda item: item if isinstance(item, str) else "")
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(7)
    agree(
        "Einsum", (), {"equation": equation}, lambda *x: torch.einsum(equation, *x), *(rng.normal(size=shape) for shape in shapes)
    )


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_det(n: int) -> None:
    agree("Det", (), {}, torch.linalg.det, np.random.default_rng(8).normal(size=(3, n, n)))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_det_of_singular_matrices_has_its_cofactors(rank: int) -> None:
    """d det / dX is the cofactor matrix whatever the rank; below n - 1 it is zero."""
    rng = np.random.default_rng(9)
    x = (rng.normal(size=(3, rank)) @ rng.normal(size=(rank, 3)))[None]
    one = build(OPS["Det"], sample(x.shape))
    minors = [[np.linalg.det(np.delete(np.delete(x[0], i, 0), j, 1)) * (-1) ** (i + j) for j in range(3)] for i in range(3)]
    assert_allclose(one.run_gradient({0: x}, {0: np.ones(1)})[0][0], minors, atol=1e-12)


@pytest.mark.parametrize("zeros", [(), (2,), (0, 3), (0, 1, 2, 3)], ids=str)
def test_cumprod_with_zeros(zeros: tuple[int, ...]) -> None:
    x = np.random.default_rng(10).normal(size=(2, 4, 3))
    x[:, list(zeros), 1] = 0.0
    agree("CumProd", (np.array(1),), {}, lambda t: torch.cumprod(t, 1), x)
    agree("CumProd", (np.array(-2),), {"reverse": 1}, lambda t: torch.cumprod(t.flip(1), 1).flip(1), x)


def _old(operator: str, opset: int, mode: str, scales: list[float]) -> onnx.ModelProto:
    held = [] if opset < 9 else [numpy_helper.from_array(np.array(scales, np.float32), "s")]
    node = helper.make_node(
        operator, ["x", *(t.name for t in held)], ["y"], mode=mode, **({"scales": scales} if opset < 9 else {})
    )
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 7, 8])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", "C", "H", "W"])
    graph = helper.make_graph([node], "old", [x], [y], initializer=held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("scales", [[1, 1, 2, 3], [1, 1, 2.5, 1.3], [1, 1, 0.7, 0.6]], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 7), ("Upsample", 8), ("Upsample", 9), ("Resize", 10)])
def test_an_old_resize_stays_what_it_was(operator: str, opset: int, mode: str, scales: list[float]) -> None:
    """ONNX Runtime gives the converted model the values of the old one."""

    if operator == "Upsample" and min(scales) < 1.0:
        pytest.skip("Upsample only enlarges")
    model = _old(operator, opset, mode, [float(scale) for scale in scales])
    x = np.random.default_rng(0).normal(size=(2, 1, 7, 8)).astype(np.float32)
    old, new = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (model, ir.to_proto(normalized(model).model))
    )
    assert_allclose(new, old, atol=1e-6)
    assert gradients(model, wrt=["x"], seed_input=True).model.graph.node


def test_an_old_resize_both_ways_is_refused() -> None:
    with pytest.raises(ModelError, match="enlarge and reduce at once"):
        normalized(_old("Resize", 10, "nearest", [1.0, 1.0, 2.0, 0.5]))


def test_a_resize_keeps_the_batch() -> None:
    """Its gradient is a sum of repeated pixels, or a product for each axis, with no shape computed at run time."""
    for mode, expected in (("nearest", ["Reshape", "ReduceSum"]), ("linear", ["MatMul", "MatMul"])):
        model = parser.parse_model(f"""
            <ir_version: 8, opset_import: ["": 18]>
            upsampled (float[N, 3, 8, 8] x) => (float[N, 3, 16, 16] y) <float[4] s = {{1, 1, 2, 2}}> {{
              a = Relu(x)
              b = Resize<mode="{mode}">(a, , s)
              y = Neg(b)
            }}""")
        made = gradients(model, wrt=["a"], seed_input=True)
        behind = [node.op_type for node in made.model.graph.node if "Resize/" in node.name and node.name.startswith("/grad/")]
        assert behind == expected
        assert {str(v.shape[0]) for node in normalized(model).model.graph for v in node.outputs} == {"N"}


def test_an_aspect_ratio_that_leaves_a_fraction_is_refused_where_positions_depend_on_it() -> None:
    """3 x 4 pixels by the ratio 5 / 4 are 3.75 x 5: of the first, runtimes differ on where the last pixel's centre is."""
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners", "keep_aspect_ratio_policy": "not_larger"}
    with pytest.raises(GradientRefused, match="give scales instead of sizes"):
        build(OPS["Resize"], sample((3, 4), None, None, np.array([9, 5]), **attributes))
