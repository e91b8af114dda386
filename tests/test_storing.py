"""Models are written as a whole or not at all, with their weights beside them where those are large."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from tests.test_normalize import HEAD, X, model_of
from vgcompile.derivatives import open_subject
from vgcompile.errors import UserError
from vgcompile.graph.normalize import normalized
from vgcompile.graph.storing import aside, save_model
from vgcompile.passes.check import check, verified
from vgcompile.passes.gradient import joint

WEIGHTS = np.linspace(-1, 1, 2000, dtype=np.float32).reshape(2, 1000)


def lazily(folder: Path) -> ir.Model:
    """A joint graph whose weights lie in the file of the model that it was made from."""
    text = HEAD + " m (float[N, 2] x) => (float loss) { z = MatMul(x, w)  h = Tanh(z)  loss = ReduceMean<keepdims = 0>(h) }"
    onnx.save(model_of(text, w=WEIGHTS), folder / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    given = normalized(folder / "m.onnx", in_memory=0)
    assert isinstance(given.model.graph.initializers["w"].const_value, ir.ExternalTensor)
    return joint(given.model, ["loss"], ["w"], ["loss"])


def test_weights_lie_beside_a_large_model(tmp_path: Path) -> None:
    model = lazily(tmp_path)
    verified(model)
    before = model.graph.initializers["w"].const_value
    files = save_model(model, tmp_path / "out" / "g.onnx", in_one_file=100)
    assert files == (tmp_path / "out" / "g.onnx", tmp_path / "out" / "g.onnx.data")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["g.onnx", "g.onnx.data"]
    assert files[0].stat().st_size < 4000
    assert model.graph.initializers["w"].const_value is before
    onnx.checker.check_model(str(files[0]), full_check=True)
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    slope = (1 - np.tanh(X @ WEIGHTS) ** 2) / (len(X) * WEIGHTS.shape[1])
    np.testing.assert_allclose(session.run(["grad.w"], {"x": X})[0], X.T @ slope, rtol=1e-4, atol=1e-7)


def test_a_small_model_is_one_file_wherever_its_weights_came_from(tmp_path: Path) -> None:
    model = lazily(tmp_path)
    (written,) = save_model(model, tmp_path / "g.onnx")
    (tmp_path / "m.bin").unlink()
    (tensor,) = [tensor for tensor in onnx.load(written).graph.initializer if tensor.name == "w"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), WEIGHTS)


def test_a_model_over_the_one_that_it_was_read_from(tmp_path: Path) -> None:
    model = lazily(tmp_path)
    save_model(model, tmp_path / "m.onnx", in_one_file=100)
    (tmp_path / "m.onnx.data").replace(tmp_path / "kept")
    assert np.frombuffer((tmp_path / "kept").read_bytes()[: WEIGHTS.nbytes], np.float32).tolist() == WEIGHTS.ravel().tolist()


def test_what_checking_gives_holds_its_weights(tmp_path: Path) -> None:
    proto = check(lazily(tmp_path))
    (tensor,) = [tensor for tensor in proto.graph.initializer if tensor.name == "w"]
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), WEIGHTS)
    assert [value.name for value in proto.graph.input] == ["x", "w"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lazily(tmp_path)
    (tmp_path / "g.onnx").write_bytes(b"before")
    (tmp_path / "m.bin").write_bytes(b"cut off")
    with pytest.raises((UserError, OSError, ValueError)):
        save_model(model, tmp_path / "g.onnx", in_one_file=100)
    assert (tmp_path / "g.onnx").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "m.bin", "m.onnx"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write .*name another place with -o"):
        save_model(lazily(tmp_path), tmp_path / "file" / "g.onnx")


def test_parameters_are_counted_in_a_note() -> None:
    text = HEAD + " m (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"
    assert open_subject(onnx.parser.parse_model(text)).notes == ("model.onnx: 1 parameter: w",)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    model = lazily(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"old")
    (tmp_path / "link.onnx").symlink_to("there.onnx")
    save_model(model, tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    onnx.checker.check_model(tmp_path / "there.onnx")


def test_what_is_no_ordinary_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """A pipe here: a device would be lost to the whole machine."""
    model, pipe = lazily(tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    save_model(model, pipe)
    reader.join(10)
    assert pipe.is_fifo()
    onnx.checker.check_model(onnx.load_from_string(read[0]))


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g.onnx").write_bytes(b"old")
    given = aside(tmp_path / "g.onnx")

    class Full(io.BytesIO):
        def close(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(handle: int, mode: str) -> io.BytesIO:
        os.close(handle)
        return Full()

    monkeypatch.setattr(os, "fdopen", opened)
    with pytest.raises(OSError, match="No space"), given as file:
        file.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]
    assert (tmp_path / "g.onnx").read_bytes() == b"old"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: it is a folder; name another place"):
        save_model(lazily(tmp_path), tmp_path)
