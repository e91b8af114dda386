"""Layers over sequences: values and gradients against PyTorch in float64, published sizes, what a dropout leaves alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from tests.sequence_cases import CASES, RECURRENT, Case
from vgcompile.build import build
from vgcompile.errors import SpecError
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.gradient import joint
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
BATCH = 3


def fed(net: Network, extents: dict[str, int]) -> dict[str, Array]:
    """Inputs and parameters, all drawn; no parameter has a value that would hide it."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, stated in net.inputs.items():
        shape = [extents[dim] if isinstance(dim, str) else dim for dim in stated.shape]
        feeds[name] = rng.integers(0, stated.classes, shape) if stated.classes else rng.normal(size=shape).astype(np.float32)
    for name, array in net.parameter_values().items():
        feeds[name] = rng.normal(0.1, 0.5, array.shape).astype(np.float32)
    return feeds


def differentiated(net: Network, feeds: dict[str, Array], adjoint: Array) -> dict[str, Array]:
    """The output, and the gradient of <adjoint, output> by everything real, of one run."""
    (output,) = net.outputs
    wanted = [name for name, array in feeds.items() if array.dtype == np.float32]
    proto = ir.to_proto(joint(net.model.clone(), [output], wanted, [output], outside=True))
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()} | {value.name for value in session.get_overridable_initializers()}
    asked = {name: array for name, array in {**feeds, f"adj.{output}": adjoint}.items() if name in given}
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(names, asked), strict=True))
    return {"": found[output], **{name: found[f"grad.{name}"] for name in wanted}}


def expected(case: Case, net: Network, feeds: dict[str, Array], adjoint: Array) -> dict[str, Array]:
    """The same by torch's autograd in float64."""
    leaves = {name: torch.tensor(array) for name, array in feeds.items()}
    leaves = {name: leaf.double().requires_grad_() if leaf.is_floating_point() else leaf for name, leaf in leaves.items()}
    y = case.oracle(*(leaves[name] for name in net.inputs), {name: leaves[name] for name in net.parameters})
    y.backward(torch.tensor(adjoint).double())
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    return {"": y.detach().numpy(), **gradients}


def compared(case: Case, text: str, extents: dict[str, int]) -> None:
    net = build(loads(text))
    feeds = fed(net, extents)
    leaves = [torch.tensor(feeds[name]) for name in net.inputs]
    with torch.no_grad():
        real = [leaf.double() if leaf.is_floating_point() else leaf for leaf in leaves]
        shape = case.oracle(*real, {name: torch.tensor(feeds[name]).double() for name in net.parameters}).shape
    adjoint = np.random.default_rng(1).normal(size=tuple(shape)).astype(np.float32)
    ours, theirs = differentiated(net, feeds, adjoint), expected(case, net, feeds, adjoint)
    assert set(ours) == set(theirs)
    for name, truth in theirs.items():
        assert ours[name].shape == truth.shape, name
        # A bias of keys moves all scores of a query alike, and its gradient is 0: it is measured beside that of the weight.
        beside = theirs[name.replace("key/bias", "key/weight")]
        assert np.linalg.norm(ours[name] - truth) <= 1e-5 * np.linalg.norm(beside), name


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    compared(CASES[name], CASES[name].text, {"batch": BATCH})


# Where the length is a symbol, tables need a length of their own.
SYMBOLIC = [name for name in CASES if name not in ("positions", "positions, odd width")]


@pytest.mark.parametrize("name", SYMBOLIC)
def test_the_length_may_be_a_symbol(name: str) -> None:
    text = re.sub(r"\[batch, 5\b", "[batch, time", CASES[name].text).replace("time, 5]", "time, time]")
    text = text.replace("[batch, 3, ", "[batch, source, ").replace("4, 5, 5]", "4, time, time]")
    compared(CASES[name], text, {"batch": BATCH, "time": 4, "source": 2})
