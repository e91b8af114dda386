"""One model with the weights of several files: each read right whatever its kind, and told apart in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

import vgcompile
from vgcompile.analysis import Analysis, Options
from vgcompile.analysis.checkpoints import follow
from vgcompile.cli import main
from vgcompile.errors import UserError
from vgcompile.graph.network import Network

MODEL = str(Path(__file__).parent.parent / "models" / "deep_tanh.yaml")
OPTIONS = Options(tiers=("measured",), batch=8)
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def network() -> Network:
    return vgcompile.open_network(MODEL)


def shrunk(network: Network, factor: float = 0.4) -> dict[str, Array]:
    return {name: array * np.float32(factor) for name, array in network.parameter_values().items()}


def gains(analysis: Analysis) -> list[float | None]:
    return [layer.gain.measured for layer in analysis.layers]


def write(path: Path, arrays: dict[str, Array]) -> str:
    dotted = {name.replace("/", "."): array for name, array in arrays.items()}
    if path.suffix == ".npz":
        np.savez(path, **arrays, step=np.array(7.0))
    elif path.suffix == ".safetensors":
        save_file(dotted, path)
    else:
        held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [], held)), path)
    return str(path)


def test_every_kind_of_file_holds_the_same(tmp_path: Path, network: Network) -> None:
    """The same weights from three kinds of files, and what the network measures with them fed to it."""
    files = [write(tmp_path / f"w{kind}", shrunk(network)) for kind in (".npz", ".safetensors", ".onnx")]
    found = follow(network, files, OPTIONS)
    first = gains(found.analyses[0])
    assert all(gains(analysis) == first for analysis in found.analyses)
    assert [analysis.provenance["weights"] for analysis in found.analyses] == files
    assert first != gains(vgcompile.analyze(network, OPTIONS))


def test_the_own_weights_change_nothing(tmp_path: Path, network: Network) -> None:
    file = write(tmp_path / "own.npz", network.parameter_values())
    (analysis,) = follow(network, [file], OPTIONS).analyses
    assert gains(analysis) == gains(vgcompile.analyze(network, OPTIONS))


def test_verdicts_change(tmp_path: Path, network: Network) -> None:
    files = [write(tmp_path / f"{i}.npz", arrays) for i, arrays in enumerate((network.parameter_values(), shrunk(network)))]
    rows = follow(network, [files[0], files[1], files[1], files[0]], OPTIONS).rows
    assert rows[0].kinds == ("healthy", "vanishing", "healthy")
    assert len(rows[0].layers) == 4


def test_running_statistics_come_along(tmp_path: Path) -> None:
    opened = vgcompile.open_network(Path(MODEL).parent / "deep_batchnorm.yaml", mode="inference")
    held = opened.model.graph.initializers
    state = {name: held[name].const_value.numpy() for name in held if name.endswith(("mean", "variance", "var"))}
    assert state
    calm = write(tmp_path / "calm.npz", opened.parameter_values() | state)
    wild = write(tmp_path / "wild.npz", opened.parameter_values() | {n: a + 100 for n, a in state.items()})
    found = follow(opened, [calm, wild], OPTIONS)
    assert gains(found.analyses[0]) != gains(found.analyses[1])


def test_what_does_not_fit_is_named(tmp_path: Path, network: Network) -> None:
    arrays = shrunk(network)
    name = next(iter(arrays))
    misspelt = write(tmp_path / "a.npz", {name + "s" if key == name else key: array for key, array in arrays.items()})
    with pytest.raises(UserError, match=rf"a\.npz: no tensor for '{name}'"):
        follow(network, [misspelt], OPTIONS)
    with pytest.raises(UserError, match="does not fit"):
        follow(network, [write(tmp_path / "b.npz", arrays | {name: np.zeros((3, 3), np.float32)})], OPTIONS)


def test_command(tmp_path: Path, network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / f"{i}.npz", arrays) for i, arrays in enumerate((network.parameter_values(), shrunk(network)))]
    options = [option for file in files for option in ("--weights", file)]
    asked = ["analyze", MODEL, "--tiers", "measured", "--batch", "8", *options]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "healthy -> vanishing" in told
    assert all(file in told.splitlines()[2] for file in files)
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["weights"] for one in document["checkpoints"]] == files
    assert main([*asked, "--fail-on", "vanishing"]) == 1
    assert main([*asked, "--graph", str(tmp_path / "g.graphml")]) == 2
    assert main([*asked[:-2], "--graph", str(tmp_path / "g.txt")]) == 2
    assert main([*asked[:-2], "--graph", str(tmp_path / "g.json")]) == 0
    assert json.loads((tmp_path / "g.json").read_text())["edges"]
