"""Gradients of every model in models/, from the compiled file, against PyTorch in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import torch_oracle
from vgcompile.compiler import compile_network, open_network
from vgcompile.graph.network import Network
from vgcompile.runtime import data
from vgcompile.runtime.session import Session

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.yaml"))
FLOOR = 1e-4  # of the largest parameter gradient: below it, float32 leaves nothing to compare (a bias before batch normalization)


@pytest.fixture(scope="module", params=MODELS, ids=lambda path: path.stem)
def compiled(request: pytest.FixtureRequest) -> tuple[Network, Session]:
    network = open_network(request.param)
    gradient = compile_network(network).gradient
    assert gradient is not None
    return network, Session(gradient, provider="cpu")


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_against_pytorch(compiled: tuple[Network, Session], batch: int) -> None:
    network, session = compiled
    statistics = any(node.op_type == "BatchNormalization" for node in network.model.graph)
    if batch == 1 and statistics:
        pytest.skip("one sample has no batch statistics")
    feeds = data.batch(network, file=None, size=batch, seed=3)
    parameters = network.parameter_values()
    ours = session.run(None, feeds)
    loss, exact = torch_oracle.gradients(network, feeds, parameters, torch.float64)
    loss32, single = torch_oracle.gradients(network, feeds, parameters, torch.float32)
    assert ours[network.loss] == pytest.approx(loss, rel=max(1e-5, 3.0 * abs(loss32 / loss - 1.0)))
    largest = max(float(np.linalg.norm(g)) for g in exact.values())
    for name, truth in exact.items():
        size = max(float(np.linalg.norm(truth)), FLOOR * largest)
        error = float(np.linalg.norm(ours[f"grad.{name}"] - truth)) / size
        theirs = float(np.linalg.norm(single[name] - truth)) / size
        assert error <= max(1e-5, 3.0 * theirs), f"{name}: {error:.2e}, PyTorch float32 {theirs:.2e}"
