"""Gradients of every model in models/, from the compiled file, against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tests import torch_oracle
from tests.digits_models import DIGITS
from vgcompile.compiler import compile_network, open_network
from vgcompile.graph.network import Network
from vgcompile.runtime import data
from vgcompile.runtime.session import Session

# Fifty layers of batch statistics over 4 samples amplify the last bit of a float32 beyond every comparison.
CHAOTIC = {"deep_batchnorm_relu"}
TOLERANCE = {"deep_batchnorm_residual": 1e-2, "resnet20": 1e-2, "deep_batchnorm": 1e-2}
FLOOR = 1e-4  # of the largest parameter gradient: below it, float32 leaves nothing to compare (a bias before batch normalization)


@pytest.fixture(scope="module", params=DIGITS, ids=lambda path: path.stem)
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


def test_reference_evaluator_runs_the_file(compiled: tuple[Network, Session]) -> None:
    """The file is plain ONNX: the standard's own evaluator takes it as it is, on data alone, and agrees with ONNX Runtime."""
    network, session = compiled
    feeds = data.batch(network, file=None, size=16, seed=3)  # fewer samples make the statistics of 50 batch norms ill-conditioned
    gradient = compile_network(network).gradient
    assert gradient is not None
    defaults = {tensor.name: numpy_helper.to_array(tensor) for tensor in gradient.graph.initializer}
    given = {value.name: defaults.get(value.name) for value in gradient.graph.input} | feeds
    with np.errstate(divide="ignore"):  # it takes the logarithm of a probability that is 0 in float32
        theirs = ReferenceEvaluator(gradient).run(None, given)
    ours = session.run(None, feeds)
    for output, array in zip(gradient.graph.output, theirs, strict=True):
        assert ours[output.name].shape == array.shape
        if network.name in CHAOTIC:
            continue
        size = max(float(np.linalg.norm(array)), 1e-3 * float(np.linalg.norm(ours[network.loss])))
        assert float(np.linalg.norm(ours[output.name] - array)) <= TOLERANCE.get(network.name, 1e-4) * size, output.name
