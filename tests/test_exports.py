"""What exporters of PyTorch write: every gradient of one dynamic file, at several batch sizes, against autograd in float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exports.architectures import ARCHITECTURES
from benchmarks.exports.checking import check
from benchmarks.exports.matching import match

TRACED = [
    "lenet",
    "vgg",
    "resnet",
    "resnet_training",
    "mobilenet",
    "convnext_torchscript",
    "unet",
    "mixer_torchscript",
    "lstm",
    "gru",
    "state_space",
    "keywords",
    "wavenet",
    "unpooling",
    "messages",
    "recommender",
]
DYNAMO = ["encoder", "decoder_dynamo", "variational"]


@pytest.mark.parametrize("name", TRACED)
def test_traced(name: str) -> None:
    _holds(name)


@pytest.mark.parametrize("name", DYNAMO)
def test_dynamo(name: str) -> None:
    pytest.importorskip("onnxscript")
    _holds(name)


def _holds(name: str) -> None:
    verdict = check(ARCHITECTURES[name], cache=None)
    assert not verdict.refused and not verdict.failed, verdict
    assert not verdict.folded and not verdict.wrong, verdict
    assert verdict.differences


def test_at_least_eight_families() -> None:
    assert len({ARCHITECTURES[name].family for name in TRACED + DYNAMO}) >= 8


def test_gradients_come_back_through_what_an_exporter_did_to_the_weights() -> None:
    """Transposed, stacked, used twice, folded; a constant that is no parameter."""
    a, b, c = (np.arange(lo, lo + 6, dtype=np.float32).reshape(2, 3) for lo in (1, 11, 21))
    held = {"a.T": a.T, "stack": np.stack([a, b]), "constant": np.full((2,), 0.5, np.float32)}
    found = match({"a": a, "b": b, "c": c}, held)
    assert found.folded() == ["c"] and found.constants == ("constant",)
    gathered = found.gathered({"a.T": 10.0 * a.T, "stack": np.stack([a, b])})
    np.testing.assert_array_equal(gathered["a"], 11.0 * a)
    np.testing.assert_array_equal(gathered["b"], b)
