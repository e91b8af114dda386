"""One network, ours and PyTorch's, of the same weights: output, and the gradient of the loss by all parameters and the input.

Float32 cannot decide where batch statistics over few samples amplify rounding a hundred thousand times. So our joint graph is
evaluated in float64 as well, by ONNX's reference evaluator, which shares nothing with PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import vgcompile
from benchmarks.models.matching import Array, Counterpart, matched
from benchmarks.models.references import Reference
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import GRADIENT, gradient
from vgcompile.reference import OPERATORS, in_float64
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session

MODELS = Path(__file__).parents[2] / "models"
ALLOWED = 1e-5  # relative l2 error in float64
ZERO = 1e-8  # of the whole gradient: a parameter whose gradient is smaller is measured beside this (a bias of keys has none)

Outcome = dict[str, Array]  # the output, by its name, and the gradients, by the parameter's or the input's


@dataclass(frozen=True)
class Errors:
    """Relative l2 errors: of the output, of the gradient by all parameters, by the worst of them, and by the inputs (NaN where
    none is real)."""

    output: float
    parameters: float
    worst: float
    inputs: float

    @property
    def largest(self) -> float:
        stated = (self.output, self.parameters, self.worst, self.inputs)
        return max(error for error in stated if not math.isnan(error))


@dataclass(frozen=True)
class Comparison:
    """All against PyTorch in float64: ours in float64, ours as it is written in ONNX Runtime, and PyTorch in float32."""

    double: Errors
    single: Errors
    theirs: Errors

    @property
    def equal(self) -> bool:
        return self.double.largest <= ALLOWED


def compared(name: str, reference: Reference, sizes: Mapping[str, int]) -> Comparison:
    """Raises LookupError where a parameter, of ours or of PyTorch's, has no counterpart, and ImportError where PyTorch's module
    needs a library that is not there."""
    torch.manual_seed(0)
    module = reference.build(**sizes)
    settings = [*reference.settings, *(f"{key}={size}" for key, size in sizes.items())]
    network = vgcompile.open_network(MODELS / f"{name}.yaml", settings=settings)
    feeds = batch(network, size=reference.batch, seed=0)
    unsettle(module)
    counterparts = matched(network, module, torch.tensor(feeds[sides(network)[0]]))
    fed = {**feeds, **{ours: at.read(at.theirs.detach().numpy()) for ours, at in counterparts.items()}}
    joint = check(gradient(network, [*counterparts, *real(feeds)]))
    written = executed(joint, fed)
    evaluated = evaluated_in_float64(joint, fed)
    rough, exact = (torchs(module.to(dtype), network, feeds, counterparts) for dtype in (torch.float32, torch.float64))
    errors = partial(errors_of, network=network, truth=exact, inputs=real(feeds))
    return Comparison(errors(evaluated), errors(written), errors(rough))


def real(feeds: Mapping[str, Array]) -> list[str]:
    return [name for name, array in feeds.items() if np.issubdtype(array.dtype, np.floating)]


def unsettle(module: nn.Module) -> None:
    """Weights that start at one number would hide others: a branch whose last weights are 0 has no gradient."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() == 1 or parameter.std() == 0:
                spread = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.add_(spread * torch.randn(parameter.shape, generator=random))


# ---- ours


def executed(joint: onnx.ModelProto, fed: Mapping[str, Array]) -> Outcome:
    session = Session(joint, "cpu")
    known = {*session.required, *session.overridable}
    return session.run(None, {name: array for name, array in fed.items() if name in known})


def evaluated_in_float64(joint: onnx.ModelProto, fed: Mapping[str, Array]) -> Outcome:
    """Every parameter is fed, so that their defaults need not be carried along."""
    kept = [tensor for tensor in joint.graph.initializer if tensor.name not in fed]
    del joint.graph.initializer[:]
    joint.graph.initializer.extend(kept)
    names = {value.name for value in joint.graph.input}
    feeds = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in fed.items()}
    evaluator = ReferenceEvaluator(in_float64(joint), new_ops=OPERATORS)
    found = evaluator.run(None, {name: array for name, array in feeds.items() if name in names})
    return dict(zip([value.name for value in joint.graph.output], found, strict=True))


# ---- PyTorch's


def torchs(module: nn.Module, network: Network, feeds: Mapping[str, Array], counterparts: Mapping[str, Counterpart]) -> Outcome:
    module.train()
    module.zero_grad()
    source, target = sides(network)
    x, labels = torch.tensor(feeds[source]), torch.tensor(feeds[target])
    if x.is_floating_point():
        x = x.to(next(module.parameters()).dtype).requires_grad_()
    y = module(x)
    scores = y.movedim(-1, 1) if y.shape[:-1] == labels.shape else y
    nn.functional.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
    found = {f"{GRADIENT}{ours}": at.read(_slope(at.theirs)) for ours, at in counterparts.items()}
    if x.grad is not None:
        found[f"{GRADIENT}{source}"] = x.grad.numpy()
    return {**found, network.outputs[0]: y.detach().numpy().copy()}


def _slope(parameter: nn.Parameter) -> Array:
    assert parameter.grad is not None
    return parameter.grad.numpy().copy()


def sides(network: Network) -> tuple[str, str]:
    """The network's one input, and its one target."""
    (target,) = (name for name, declared in network.inputs.items() if declared.role == "target")
    (source,) = (name for name in network.inputs if name != target)
    return source, target


# ---- errors


def errors_of(found: Outcome, *, network: Network, truth: Outcome, inputs: list[str]) -> Errors:
    slopes = [f"{GRADIENT}{name}" for name in network.parameters]
    (output,) = network.outputs
    whole = _norm(truth, slopes)
    worst = max(_distance(found, truth, [name]) / max(_norm(truth, [name]), ZERO * whole) for name in slopes)
    at = [f"{GRADIENT}{name}" for name in inputs]
    return Errors(relative(found, truth, [output]), relative(found, truth, slopes), worst, relative(found, truth, at))


def relative(found: Outcome, truth: Outcome, names: list[str]) -> float:
    return _distance(found, truth, names) / _norm(truth, names) if names else math.nan


def _distance(found: Outcome, truth: Outcome, names: list[str]) -> float:
    return float(np.sqrt(sum(np.sum((found[name].astype(np.float64) - truth[name]) ** 2) for name in names)))


def _norm(truth: Outcome, names: list[str]) -> float:
    return float(np.sqrt(sum(np.sum(truth[name].astype(np.float64) ** 2) for name in names)))
