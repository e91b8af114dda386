"""GPT-2 small: described without a draw, and written with its weights once."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from vgcompile.cli import main
from vgcompile.compiler import compile_network, open_network
from vgcompile.graph.storing import save_models
from vgcompile.initial import Initial

ROOT = Path(__file__).parent.parent
GPT2 = ROOT / "models" / "gpt2_small.yaml"
PARAMETERS = 124_439_808  # huggingface.co/openai-community/gpt2: GPT2LMHeadModel, the tied output counted once


@pytest.fixture
def undrawable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that raise when they are drawn."""

    def refused(self: Initial, name: str, seed: int) -> None:
        raise AssertionError(f"{name} is drawn")

    monkeypatch.setattr(Initial, "draw", refused)


@pytest.mark.usefixtures("undrawable")
@pytest.mark.parametrize("command", ["check", "summary"])
def test_a_large_model_is_described_without_a_draw(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(GPT2), "--debug"]) == 0
    said = capsys.readouterr().out
    assert f"{PARAMETERS:,}" in said
    if command == "check":
        assert "bounds  need the weights, which check does not draw where they are large: see vgcompile analyze" in said


@pytest.mark.usefixtures("undrawable")
def test_a_large_model_is_compiled_without_a_draw() -> None:
    """Weights are drawn as they are written."""
    compiled = compile_network(open_network(GPT2))
    stored = [{name: tensor.nbytes for name, tensor in outline.held.items()} for outline in compiled.outlines.values()]
    assert list(compiled.outlines) == ["gpt2_small.onnx", "gpt2_small.grad.onnx"]
    for held in stored:
        assert 4 * PARAMETERS <= sum(held.values()) < 4.1 * PARAMETERS


@pytest.mark.parametrize("command", ["check", "summary"])
def test_what_is_not_used_is_not_imported(command: str) -> None:
    """SymPy, SciPy's special functions and ONNX Runtime take longer to import than the model takes to check; NetworkX finds the
    routes that a check judges layers by."""
    program = f"import sys; from vgcompile.cli import main; main({[command, str(GPT2)]}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    idle = {"sympy.core", "scipy.special", "onnxruntime", "matplotlib"} | ({"networkx"} if command == "summary" else set())
    assert not loaded & idle
    assert "onnx_ir" in loaded


def test_what_was_put_off_is_loaded_when_it_is_touched() -> None:
    program = (
        "from vgcompile.cli import deferring; deferring.install(); import sys, onnx_ir as ir; "
        "before = 'sympy.core' in sys.modules; print(before, (ir.SymbolicDim('n') + 1).value, 'sympy.core' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["False", "n + 1 True\n"]


def test_both_graphs_share_one_file_of_weights_and_run_from_it(tmp_path: Path) -> None:
    """The same model, two blocks of it: weights once in the file beside, graphs small; its loss at first is that of a guess."""
    network = open_network(GPT2, variant="tiny")
    outlines = compile_network(network).outlines
    files = save_models({tmp_path / name: outline for name, outline in outlines.items()}, tmp_path / "w.data", in_one_file=0)
    weights = 4 * sum(network.sizes().values())
    forward, joint, data = (path.stat().st_size for path in files)
    assert weights - 2**17 < data < weights + 2**18  # small tensors stay in the graphs, places in the file are aligned
    assert forward < weights / 2 and joint < weights / 2
    assert b"w.data" in files[0].read_bytes() and b"w.data" in files[1].read_bytes()
    rng = np.random.default_rng(0)
    tokens, after = rng.integers(0, 500, (2, 1, 32))
    session = onnxruntime.InferenceSession(files[1], providers=["CPUExecutionProvider"])
    gradients = [f"grad.{name}" for name in network.parameters]
    loss, *found = session.run(["loss", *gradients], {"tokens": tokens, "next": after})
    assert loss == pytest.approx(math.log(500), rel=0.02)
    assert sum(gradient.size for gradient in found) == sum(network.sizes().values())
    assert all(np.isfinite(gradient).all() for gradient in found)
    assert all(gradient.any() for gradient in found)
    predicting = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    assert predicting.run(["logits"], {"tokens": tokens})[0].shape == (1, 32, 500)
