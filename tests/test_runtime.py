"""Sessions and batches: what runs, what is refused and in which words, and where every array comes from."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from vgcompile.errors import DataError, EngineError
from vgcompile.graph.network import DataFile, Input, Network
from vgcompile.runtime import data, providers, session
from vgcompile.runtime.session import Session

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def network(*inputs: Input, file: DataFile | None = None) -> Network:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="net")
    return Network("net", "net.yaml", ir.Model(graph, ir_version=10), {given.name: given for given in inputs}, (), data=file)


IMAGE = Input("image", ("N", 2, 3), FLOAT, mean=1.0, sd=2.0)
UNIT = Input("unit", ("N", 50), FLOAT, range=(-1.0, 3.0), distribution="uniform")
LABEL = Input("label", ("N",), INT64, distribution="classes", classes=4, role="target")


# drawn


@given(seed=st.integers(0, 2**32), size=st.integers(1, 20))
def test_drawn_batches_are_keyed_by_seed_and_name(seed: int, size: int) -> None:
    alone = data.batch(network(IMAGE), size=size, seed=seed)
    among = data.batch(network(LABEL, UNIT, IMAGE), size=size, seed=seed)
    np.testing.assert_array_equal(alone["image"], among["image"])
    assert alone["image"].shape == (size, 2, 3)
    assert alone["image"].dtype == np.float32
    assert not np.array_equal(alone["image"], data.batch(network(IMAGE), size=size, seed=seed + 1)["image"])


def test_drawn_distributions() -> None:
    feeds = data.batch(network(IMAGE, UNIT, LABEL), size=4000, seed=3)
    assert feeds["image"].mean() == pytest.approx(1.0, abs=0.05)
    assert feeds["image"].std() == pytest.approx(2.0, abs=0.05)
    assert feeds["unit"].min() >= -1.0
    assert feeds["unit"].max() <= 3.0
    assert feeds["unit"].mean() == pytest.approx(1.0, abs=0.02)
    assert feeds["label"].dtype == np.int64
    np.testing.assert_array_equal(np.unique(feeds["label"]), np.arange(4))


def test_a_fixed_batch_is_what_is_drawn() -> None:
    fixed = network(Input("x", (7, 2), FLOAT))
    assert data.batch(fixed)["x"].shape == (7, 2)
    with pytest.raises(DataError, match="fixed at 7 samples; --batch 8"):
        data.batch(fixed, size=8)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Input("ids", ("N",), INT64), "input 'ids' holds INT64 numbers of unknown range; give it with --data"),
        (Input("x", ("N", "T"), FLOAT), r"input 'x' has shape \[N, T\] of unknown T; give it with --data"),
        (Input("x", ("N",), FLOAT, distribution="uniform"), "uniform over a range that it does not state"),
    ],
)
def test_what_cannot_be_drawn_is_refused(declared: Input, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.batch(network(declared), size=2)


# read


@pytest.fixture
def npz(tmp_path: Path) -> Any:
    def save(**arrays: np.ndarray[Any, Any]) -> str:
        path = tmp_path / "batch.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return str(path)

    return save


PIXELS = np.arange(60.0).reshape(10, 2, 3)
LABELS = np.arange(10, dtype=np.int32) % 4


def test_named_file_by_input_name(npz: Any) -> None:
    feeds = data.batch(network(IMAGE, LABEL), file=npz(image=PIXELS, label=LABELS))
    np.testing.assert_array_equal(feeds["image"], PIXELS.astype(np.float32))
    np.testing.assert_array_equal(feeds["label"], LABELS.astype(np.int64))
    assert (feeds["image"].dtype, feeds["label"].dtype) == (np.float32, np.int64)


def test_own_file_by_its_names_in_its_scale_and_batch(npz: Any) -> None:
    own = DataFile(npz(x=PIXELS, y=LABELS), {"image": "x", "label": "y"}, batch=4, scale=0.5)
    feeds = data.batch(network(IMAGE, LABEL, file=own))
    np.testing.assert_array_equal(feeds["image"], (PIXELS[:4] / 2).astype(np.float32))
    np.testing.assert_array_equal(feeds["label"], LABELS[:4])
    assert data.batch(network(IMAGE, LABEL, file=own), size=9)["image"].shape[0] == 9


@pytest.mark.parametrize("shape", [(10, 6), (10, 2, 3, 1), (10, 1, 2, 3)])
def test_samples_may_come_flat_or_with_axes_of_one(npz: Any, shape: tuple[int, ...]) -> None:
    feeds = data.batch(network(IMAGE), file=npz(image=PIXELS.reshape(shape)))
    np.testing.assert_array_equal(feeds["image"], PIXELS.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": PIXELS}, "no array 'label' for input 'label'; it holds image"),
        ({"image": PIXELS.transpose(0, 2, 1), "label": LABELS}, r"needs float \[N, 2, 3\], found float64 \[10, 3, 2\]"),
        ({"image": PIXELS, "label": LABELS.astype(float)}, r"input 'label' needs int64 \[N\], found float64 \[10\]"),
        ({"image": PIXELS, "label": LABELS + 1}, "takes classes 0 to 3, found 1 to 4"),
        ({"image": PIXELS * 1e40, "label": LABELS}, "not finite in float"),
        ({"image": np.where(PIXELS == 3, np.nan, PIXELS), "label": LABELS}, "not finite in float"),
        ({"image": PIXELS, "label": LABELS[:9]}, "different numbers of samples: image 10, label 9"),
        ({"image": PIXELS, "label": np.array([{}] * 10)}, "not an .npz file of plain arrays"),
        ({"image": PIXELS[:0], "label": LABELS[:0]}, "the arrays hold no samples; at least 1 is needed"),
    ],
)
def test_data_that_do_not_fit(npz: Any, arrays: dict[str, np.ndarray[Any, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.batch(network(IMAGE, LABEL), file=npz(**arrays))


def test_files_that_are_none(tmp_path: Path, npz: Any) -> None:
    for content, message in (
        (b"", "not an .npz file"),
        (b"PK\x03\x04 cut off", "not an .npz file"),
        (b"text", "not an .npz file"),
    ):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=message):
            data.batch(network(IMAGE), file=str(tmp_path / "bad.npz"))
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("image", "text")
    with pytest.raises(DataError, match="'image' is no NumPy array"):
        data.batch(network(IMAGE), file=str(tmp_path / "bad.npz"))
    with pytest.raises(DataError, match=r"a folder, not an \.npz file"):
        data.batch(network(IMAGE), file=str(tmp_path))
    np.save(tmp_path / "one.npy", PIXELS)
    with pytest.raises(DataError, match="one bare array"):
        data.batch(network(IMAGE), file=str(tmp_path / "one.npy"))
    with pytest.raises(DataError, match="no such data file"):
        data.batch(network(IMAGE), file=str(tmp_path / "absent.npz"))
    with pytest.raises(DataError, match="a batch of 11 samples is asked for, the file holds 10"):
        data.batch(network(IMAGE), file=npz(image=PIXELS), size=11)
    with pytest.raises(DataError, match="at least 1"):
        data.batch(network(IMAGE), size=0)


# sessions

MODEL = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["": 21]>
line (float[N, 2] x, float[2, 3] w) => (float[N, 3] y)
<float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[3] b = {0.5, -0.5, 0}>
{ z = MatMul(x, w)  y = Add(z, b) }
""")
for tensor in MODEL.graph.initializer:  # only raw bytes can go to a file of their own
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


def test_runs_as_the_reference_does() -> None:
    (expected,) = ReferenceEvaluator(MODEL).run(None, {"x": X})
    found = Session(MODEL, provider="cpu", threads=1).run(None, {"x": X})
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], expected, rtol=1e-6)


def test_a_parameter_is_overridden_for_one_run() -> None:
    running = Session(MODEL)
    assert (running.required, running.overridable, running.outputs, running.provider) == (("x",), ("w",), ("y",), "cpu")
    np.testing.assert_array_equal(running.run(["y"], {"x": X, "w": np.zeros((2, 3), np.float32)})["y"], [[0.5, -0.5, 0]] * 3)
    assert running.run(["y"], {"x": X})["y"][0, 0] == 9.5


def test_nothing_is_said_about_overridable_parameters(capfd: pytest.CaptureFixture[str]) -> None:
    Session(MODEL).run(None, {"x": X})
    assert capfd.readouterr() == ("", "")


def test_from_a_file_and_from_one_with_its_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> m (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32)[::-1].copy(), "w"))
    content, x = model.SerializeToString(), np.arange(64, dtype=np.float32)[None]
    onnx.save(model, tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.data")
    assert (tmp_path / "apart.data").stat().st_size == 4 * 64 * 64
    monkeypatch.setattr(session, "PROTOBUF_LIMIT", len(content))
    for source in (tmp_path / "whole.onnx", tmp_path / "apart.onnx", large := onnx.ModelProto.FromString(content)):
        np.testing.assert_array_equal(Session(source).run(None, {"x": x})["y"], x[:, ::-1])
    assert large.SerializeToString() == content


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "no data for the model's input 'x'; it needs x"),
        ({"x": X, "ww": X}, "the model has no input 'ww'; did you mean 'w'"),
        ({"x": X[:, :1]}, "the data do not fit the model: Got invalid dimensions for input: x .* Got: 1 Expected: 2"),
        ({"x": X.astype(np.float64)}, "the data do not fit the model: .*data type"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray[Any, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Session(MODEL).run(None, feeds)


def test_a_model_that_is_refused(tmp_path: Path) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(MODEL)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match=r"ONNX Runtime refuses the model: .*NoSuchOperator"):
        Session(broken)


def test_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        providers.onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", "CPUExecutionProvider"]
    )
    assert providers.providers() == ("cpu",)
    assert providers.choose("auto") == "cpu"
    with pytest.raises(
        EngineError, match=re.escape("has no provider 'cuda', only cpu; install CUDA support with `pip install vgcompile[gpu]`")
    ):
        Session(MODEL, provider="cuda")
    with pytest.raises(EngineError, match="unknown provider 'cdua'; did you mean 'cuda'"):
        providers.choose("cdua")
    monkeypatch.setattr(
        providers.onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert providers.choose("auto") == "cuda"
    assert [name for name, _ in providers.request("cuda")] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
