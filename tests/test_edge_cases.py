"""Cases in which differentiators of ONNX graphs are known to refuse, to give NaN, or to be wrong without a word.

Each is a small file; its gradient, by every real input, is compared in float64 with central differences along a random
direction, or with the adjoint that is known in closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import vgcompile
from tests.reference import evaluator, in_float64

Array = np.ndarray[Any, Any]


def model(opset: int, text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')


def gradients(
    given: onnx.ModelProto, feeds: dict[str, Array], seeds: dict[str, Array] | None = None, **options: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The gradients in float64, and the adjoints of the outputs that they are for."""
    joint = vgcompile.grad(given, seed_input=True, **options)
    outputs = _run(given, feeds)
    rng = np.random.default_rng(5)
    real = {o.name for o in given.graph.output if o.type.tensor_type.elem_type in (1, 10, 11, 16)}
    seeds = seeds or {name: rng.normal(size=y.shape) for name, y in outputs.items() if name in real}
    found = _run(joint, {**feeds, **{f"adj.{name}": g for name, g in seeds.items()}})
    return {name[5:]: value for name, value in found.items() if name.startswith("grad.")}, seeds


def _run(given: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    double = in_float64(given)
    defaults = {t.name: onnx.numpy_helper.to_array(t) for t in double.graph.initializer}
    names = [o.name for o in double.graph.output]
    known = {i.name: feeds.get(i.name, defaults.get(i.name)) for i in double.graph.input}
    with np.errstate(all="ignore"):
        return dict(zip(names, evaluator(double.SerializeToString()).run(names, known), strict=True))


def agrees(given: onnx.ModelProto, feeds: dict[str, Array], **options: Any) -> None:
    found, seeds = gradients(given, feeds, **options)
    assert found
    rng = np.random.default_rng(6)
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in given.graph.initializer}
    for name, gradient in found.items():
        at = feeds[name] if name in feeds else weights[name]
        v = rng.normal(size=at.shape)

        def along(t: float, name: str = name, at: Array = at, v: Array = v) -> float:
            moved = onnx.ModelProto()
            moved.CopyFrom(given)
            for tensor in moved.graph.initializer:
                if tensor.name == name:
                    tensor.CopyFrom(onnx.numpy_helper.from_array(at + t * v, name))
            y = _run(moved, {**feeds, name: at + t * v} if name in feeds else feeds)
            return sum(float(np.vdot(g, y[k])) for k, g in seeds.items())

        difference = (along(1e-6) - along(-1e-6)) / 2e-6
        assert float(np.vdot(v, gradient)) == pytest.approx(difference, rel=1e-6, abs=1e-6), name


def draw(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape)


X = "float[N, 4, H, W] x"
Y = "float[N, 4, A, B] y"
REFUSED_ELSEWHERE = {
    "conv, symbolic batch and image": (
        21,
        f"f ({X}, float[6, 4, 3, 3] w) => (float[N, 6, A, B] y) {{ y = Conv<pads = [1, 1, 1, 1], strides = [2, 1]>(x, w) }}",
        {"x": draw(2, 4, 7, 6), "w": draw(6, 4, 3, 3)},
    ),
    "grouped weights": (
        21,
        f"f ({X}, float[6, 2, 3, 3] w) => (float[N, 6, A, B] y) {{ y = Conv<group = 2>(x, w) }}",
        {"x": draw(2, 4, 6, 5), "w": draw(6, 2, 3, 3)},
    ),
    "depthwise weights": (
        21,
        f"f ({X}, float[4, 1, 3, 3] w) => ({Y}) {{ y = Conv<group = 4, dilations = [1, 2]>(x, w) }}",
        {"x": draw(2, 4, 6, 7), "w": draw(4, 1, 3, 3)},
    ),
    "transposed weights": (
        21,
        f"f ({X}, float[4, 3, 2, 3] w) => (float[N, 3, A, B] y) {{ y = ConvTranspose<strides = [2, 2]>(x, w) }}",
        {"x": draw(2, 4, 3, 4), "w": draw(4, 3, 2, 3)},
    ),
    "auto_pad": (
        21,
        f'f ({X}, float[3, 4, 3, 3] w) => (float[N, 3, A, B] y) {{ y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w) }}',
        {"x": draw(2, 4, 5, 6), "w": draw(3, 4, 3, 3)},
    ),
    "auto_pad of a pool": (
        21,
        f'f ({X}) => ({Y}) {{ y = MaxPool<auto_pad = "SAME_UPPER", kernel_shape = [3, 2], strides = [2, 2]>(x) }}',
        {"x": draw(2, 4, 5, 6)},
    ),
    "average pool, symbolic": (
        21,
        f"f ({X}) => ({Y}) {{ y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(x) }}",
        {"x": draw(2, 4, 5, 6)},
    ),
    "average pool, ceil_mode": (
        21,
        f"f ({X}) => ({Y}) {{ y = AveragePool<kernel_shape = [3, 3], ceil_mode = 1, strides = [2, 2]>(x) }}",
        {"x": draw(2, 4, 6, 6)},
    ),
    "Lp pool, ceil_mode": (
        21,
        f"f ({X}) => ({Y}) {{ y = LpPool<kernel_shape = [2, 2], ceil_mode = 1, strides = [2, 2]>(x) }}",
        {"x": draw(2, 4, 5, 5)},
    ),
    "batch normalization in training": (
        21,
        """f (float[N, 3, L] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[N, 3, L] y, float[3] rm, float[3] rv)
        { y, rm, rv = BatchNormalization<training_mode = 1>(x, s, b, m, v) }""",
        {"x": draw(4, 3, 5), "s": draw(3), "b": draw(3), "m": draw(3), "v": np.ones(3)},
    ),
    "resize, symbolic": (
        21,
        f"""f ({X}) => ({Y}) {{
        s = Constant<value = float[4] {{1, 1, 1.7, 2.3}}>()  y = Resize<mode = "linear">(x, "", s) }}""",
        {"x": draw(2, 4, 3, 4)},
    ),
    "concat along a symbolic axis": (
        21,
        "f (float[N, 2] a, float[M, 2] b) => (float[K, 2] y) { c = Concat<axis = 0>(a, b)  y = Mul(c, c) }",
        {"a": draw(2, 2), "b": draw(3, 2)},
    ),
    "slice backwards": (
        21,
        """f (float[N, 7] x) => (float[A, B] y) { s = Constant<value = int64[1] {-2}>()  e = Constant<value = int64[1] {-8}>()
        a = Constant<value = int64[1] {1}>()  t = Constant<value = int64[1] {-2}>()  z = Slice(x, s, e, a, t)  y = Mul(z, z) }""",
        {"x": draw(2, 7)},
    ),
    "slice at run time": (
        21,
        "f (float[N, 7] x, int64[1] s, int64[1] e, int64[1] a) => (float[N, B] y) { z = Slice(x, s, e, a)  y = Mul(z, z) }",
        {"x": draw(2, 7), "s": np.array([2]), "e": np.array([5]), "a": np.array([1])},
    ),
    "pad reflect": (
        21,
        """f (float[N, 5] x) => (float[N, B] y) {
        p = Constant<value = int64[4] {0, 2, 0, 1}>()  z = Pad<mode = "reflect">(x, p)  y = Mul(z, z) }""",
        {"x": draw(2, 5)},
    ),
    "pad edge at run time": (
        21,
        'f (float[N, 5] x, int64[4] p) => (float[A, B] y) { z = Pad<mode = "edge">(x, p)  y = Mul(z, z) }',
        {"x": draw(2, 5), "p": np.array([1, 2, 0, 3])},
    ),
    "tile at run time": (
        21,
        "f (float[N, 3] x, int64[2] r) => (float[A, B] y) { z = Tile(x, r)  y = Mul(z, z) }",
        {"x": draw(2, 3), "r": np.array([2, 3])},
    ),
    "lstm, symbolic": (
        21,
        """f (float[T, N, 3] x, float[1, 8, 3] w, float[1, 8, 2] r) => (float[T, 1, N, 2] y)
        { y = LSTM<hidden_size = 2>(x, w, r) }""",
        {"x": draw(4, 2, 3), "w": draw(1, 8, 3), "r": draw(1, 8, 2)},
    ),
    "cross entropy, symbolic": (
        21,
        "f (float[N, 5, T] x, int64[N, T] t) => (float loss) { loss = SoftmaxCrossEntropyLoss<ignore_index = 2>(x, t) }",
        {"x": draw(2, 5, 3), "t": np.array([[0, 2, 4], [1, 1, 3]])},
    ),
    "gather below opset 16": (
        11,
        "f (float[N, 4] x, int64[2] i) => (float[N, 2] y) { z = Gather<axis = 1>(x, i)  y = Mul(z, z) }",
        {"x": draw(2, 4), "i": np.array([3, 3])},
    ),
    "gather elements below opset 16": (
        13,
        "f (float[N, 4] x, int64[2, 3] i) => (float[2, 3] y) { z = GatherElements<axis = 1>(x, i)  y = Mul(z, z) }",
        {"x": draw(2, 4), "i": np.array([[3, 0, 0], [1, 1, 2]])},
    ),
    "max pool below opset 16": (
        9,
        f"f ({X}) => ({Y}) {{ y = MaxPool<kernel_shape = [2, 2]>(x) }}",
        {"x": draw(1, 4, 3, 4)},
    ),
    **{
        f"scatter {kind}, {reduction}": (
            18,
            f"f (float[4, 3] x, int64[{shape}] i, float[2, 3] u) => (float[4, 3] y)"
            f' {{ y = {kind}<reduction = "{reduction}">(x, i, u) }}',
            {"x": draw(4, 3), "i": indices, "u": draw(2, 3)},
        )
        for kind, shape, indices in (
            ("ScatterND", "2, 1", np.array([[1], [3]])),
            ("ScatterElements", "2, 3", np.array([[0, 1, 2], [3, 0, 1]])),
        )
        for reduction in ("mul", "min", "max")
    },
    **{
        f"{reduce}, no axes, all of them": (
            18,
            f"f (float[3, 4] x) => (float y) {{ a = Constant<value = int64[0] {{}}>()  y = {reduce}<keepdims = 0>(x, a) }}",
            {"x": draw(3, 4)},
        )
        for reduce in ("ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceSum", "ReduceLogSumExp")
    },
    "batch normalization by its statistics": (
        21,
        """f (float[N, 3, L] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[N, 3, L] y)
        { y = BatchNormalization(x, s, b, m, v) }""",
        {"x": draw(4, 3, 5), "s": draw(3), "b": draw(3), "m": draw(3), "v": np.ones(3)},
    ),
}


@pytest.mark.parametrize("case", REFUSED_ELSEWHERE)
def test_gradient_agrees_with_differences(case: str) -> None:
    opset, text, feeds = REFUSED_ELSEWHERE[case]
    agrees(model(opset, text), feeds, wrt="inputs")


def test_gradient_by_a_weight() -> None:
    """An initializer is a parameter, with no surgery on the file."""
    text = "f (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}> { z = MatMul(x, w)  y = Tanh(z) }"
    agrees(model(21, text), {"x": draw(2, 3)})


@pytest.mark.parametrize("noted", ["<float[1, 3] r>", ""])
@pytest.mark.parametrize("batch", [1, 2])
def test_extents_that_a_file_states_wrongly(noted: str, batch: int) -> None:
    """Of a value inside and of the output: four rows for each sample, which the exporter's example had one of."""
    bias = "N" if batch == 1 else "1"
    text = f"""f (float[N, 4, 3] x, float[{bias}, 3] b) => (float[N, 3] y) {noted} {{
        s = Constant<value = int64[2] {{-1, 3}}>()  r = Reshape(x, s)  y = Mul(r, b) }}"""
    agrees(model(21, text), {"x": draw(batch, 4, 3), "b": draw(1, 3)}, wrt="inputs")


def test_a_number_of_elements_that_data_decide_is_not_believed() -> None:
    text = """f (float[4] x, float[4] w) => (float y) <int64[1, 4] n> { n = NonZero(x)  c = Size(n)  z = CastLike(c, w)
        t = ReduceSum<keepdims = 0>(w)  y = Div(t, z) }"""
    found, _ = gradients(model(21, text), {"x": np.array([1.0, 0, 2, 3]), "w": draw(4)}, {"y": np.ones(())}, wrt=["w"])
    np.testing.assert_allclose(found["w"], np.full(4, 1 / 3))


def test_dropout_in_training() -> None:
    """The mask of the run is the mask of the gradient: what was kept is scaled, what was dropped gets nothing."""
    text = """f (float[64] x) => (float[64] y) {
        r = Constant<value = float {0.25}>()  t = Constant<value = bool {1}>()  y = Dropout<seed = 1>(x, r, t) }"""
    joint = vgcompile.grad(model(21, text), wrt="inputs", seed_input=True)
    found = _run(joint, {"x": np.ones(64), "adj.y": np.ones(64)})
    np.testing.assert_allclose(found["grad.x"], found["y"], rtol=1e-6)
    assert set(np.round(found["y"], 6)) == {0.0, round(4 / 3, 6)}


def test_bfloat16() -> None:
    text = "f (bfloat16[N, 3] x, bfloat16[3, 2] w) => (bfloat16[N, 2] y) { z = MatMul(x, w)  y = Sigmoid(z) }"
    joint = vgcompile.grad(model(21, text), wrt="all", seed_input=True)
    kinds = {o.name: o.type.tensor_type.elem_type for o in joint.graph.output}
    assert kinds == dict.fromkeys(("y", "grad.x", "grad.w"), onnx.TensorProto.BFLOAT16)


def test_determinant() -> None:
    given = model(21, "f (float[2, 2] x) => (float y) { y = Det(x) }")
    found, _ = gradients(given, {"x": np.array([[1.0, 2.0], [3.0, 4.0]])}, {"y": np.array(1.0)}, wrt="inputs")
    np.testing.assert_allclose(found["x"], [[4.0, -3.0], [-2.0, 1.0]], rtol=1e-12)


def test_values_of_a_one_hot() -> None:
    given = model(21, "f (int64[3] i, int64 d, float[2] v) => (float[3, 5] y) { y = OneHot(i, d, v) }")
    feeds = {"i": np.array([0, 1, 4]), "d": np.array(5), "v": np.array([0.5, 2.0])}
    found, _ = gradients(given, feeds, {"y": np.ones((3, 5))}, wrt="inputs")
    np.testing.assert_allclose(found["v"], [12.0, 3.0])


def test_space_to_depth_of_the_newest_opset() -> None:
    """With its mode for the order of channels, where the installed onnx knows it."""
    if "mode" not in onnx.defs.get_schema("SpaceToDepth").attributes:
        pytest.skip("the installed onnx has no SpaceToDepth with a mode")
    node = helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD")
    x = helper.make_tensor_value_info("x", 1, ["N", 3, 4, 6])
    y = helper.make_tensor_value_info("y", 1, ["N", 12, 2, 3])
    opset = [helper.make_opsetid("", onnx.defs.onnx_opset_version())]
    agrees(
        helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opset), {"x": draw(2, 3, 4, 6)}, wrt="inputs"
    )


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("ReduceProd<keepdims = 0>(x)", [2.0, 0.0, 3.0], [0.0, 6.0, 0.0]),
        ("ReduceProd<keepdims = 0>(x)", [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
        ("ReduceL2<keepdims = 0>(x)", [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_zeros(text: str, x: list[float], expected: list[float]) -> None:
    given = model(18, f"f (float[3] x) => (float y) {{ y = {text} }}")
    found, _ = gradients(given, {"x": np.array(x)}, {"y": np.array(1.0)}, wrt="inputs")
    np.testing.assert_array_equal(found["x"], expected)


def test_attention_row_that_sees_nothing() -> None:
    """Its output is 0, and so is all that it sends back; the other rows are as if it were not there."""
    text = """f (float[1, 1, 2, 4] q, float[1, 1, 3, 4] k, float[1, 1, 3, 4] v, bool[2, 3] m) => (float[1, 1, 2, 4] y)
        { y = Attention(q, k, v, m) }"""
    feeds = {"q": draw(1, 1, 2, 4), "k": draw(1, 1, 3, 4), "v": draw(1, 1, 3, 4)}
    mask = np.array([[False, False, False], [True, True, False]])
    joint = vgcompile.grad(model(23, text), wrt="inputs", seed_input=True)
    found = _run(joint, {**feeds, "m": mask, "adj.y": draw(1, 1, 2, 4)})
    assert all(np.isfinite(value).all() for value in found.values())
    np.testing.assert_array_equal(found["grad.q"][0, 0, 0], 0.0)
    np.testing.assert_array_equal(found["grad.k"][0, 0, 2], 0.0)
    assert (found["grad.q"][0, 0, 1] != 0.0).all()


def test_an_operator_of_another_domain_is_no_namesake() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "mine": 1]> f (float[2] x) => (float[2] y) { y = mine.Relu(x) }"""
    with pytest.raises(vgcompile.errors.UserError, match="mine"):
        vgcompile.grad(parser.parse_model(text), wrt="inputs", seed_input=True)
