"""An architecture, and the ONNX file that an exporter of PyTorch writes of it.

A file ends at its loss (form ``loss``) or at its output (form ``seed``: the adjoint comes from outside). Which axes are dynamic
is found by looking: those whose extents differ between two batches. Axes that vary alike share a symbol.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOSS, SEED = "loss", "seed"
DYNAMO, TORCHSCRIPT = "dynamo", "torchscript"
OUTPUT, TARGET = "output", "target"
PROBES = (3, 6)  # two batch sizes; the file is traced at the first


@dataclass(frozen=True)
class Architecture:
    """``inputs(batch, generator)`` draws named tensors; let other dynamic extents grow with the batch, each in its own way."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], dict[str, Tensor]]
    loss: str  # a key of LOSSES
    exporter: str = TORCHSCRIPT
    opset: int = 17
    form: str = LOSS
    training: bool = False  # exported and run in training mode: batch statistics, dropout
    folding: bool = True  # whether the exporter may fold constants and fuse
    batches: tuple[int, ...] = (1, 2, 5)

    @property
    def written_by(self) -> str:
        return f"{self.exporter} {self.opset}" + ("" if self.folding else " unfolded") + (" training" if self.training else "")


def module(architecture: Architecture) -> nn.Module:
    """The module with its weights, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = architecture.build()
        _settle(made)
    return made.train(architecture.training)


def batch(architecture: Architecture, size: int, form: str) -> dict[str, Tensor]:
    """Named inputs, with the target where the form has one."""
    generator = torch.Generator().manual_seed(size)
    feeds = architecture.inputs(size, generator)
    if form == LOSS:
        with torch.no_grad(), torch.random.fork_rng():
            output = module(architecture)(*feeds.values())
        feeds[TARGET] = LOSSES[architecture.loss].target(output, generator)
    return feeds


def exported(architecture: Architecture, form: str | None = None) -> onnx.ModelProto:
    """The file as the exporter writes it."""
    form = form or architecture.form
    feeds, other = (batch(architecture, size, form) for size in PROBES)
    symbols = _symbols(feeds, other)
    subject = WithLoss(module(architecture), architecture.loss) if form == LOSS else Plain(module(architecture))
    subject.train(architecture.training)
    buffer = io.BytesIO()
    with _quiet():
        if architecture.exporter == DYNAMO:
            program = torch.onnx.export(
                subject,
                tuple(feeds.values()),
                dynamo=True,
                input_names=list(feeds),
                output_names=[LOSS if form == LOSS else OUTPUT],
                dynamic_shapes=(tuple(symbols[name] for name in feeds),),
                opset_version=architecture.opset,
                optimize=architecture.folding,
            )
            return program.model_proto
        mode = torch.onnx.TrainingMode.TRAINING if architecture.training else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            subject,
            tuple(feeds.values()),
            buffer,
            dynamo=False,
            input_names=list(feeds),
            output_names=[LOSS if form == LOSS else OUTPUT],
            dynamic_axes={name: axes for name, axes in symbols.items() if axes},
            opset_version=architecture.opset,
            do_constant_folding=architecture.folding and not architecture.training,
            training=mode if architecture.folding else torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_from_string(buffer.getvalue())


class Plain(nn.Module):
    """The module alone, so that parameters have the same names in both forms."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs)


class WithLoss(nn.Module):
    """The module and the loss that its output is judged by; the last input is the target."""

    def __init__(self, model: nn.Module, loss: str) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *inputs: Tensor) -> Tensor:
        return LOSSES[self.loss].loss(self.model(*inputs[:-1]), inputs[-1])


@dataclass(frozen=True)
class Criterion:
    loss: Callable[[Tensor, Tensor], Tensor]
    target: Callable[[Tensor, torch.Generator], Tensor]


def _classes(axis: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    def draw(output: Tensor, generator: torch.Generator) -> Tensor:
        shape = [extent for i, extent in enumerate(output.shape) if i != axis % output.ndim]
        return torch.randint(0, output.shape[axis], shape, generator=generator)

    return draw


def _numbers(output: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(output.shape, generator=generator)


LOSSES: Mapping[str, Criterion] = {
    "cross_entropy": Criterion(F.cross_entropy, _classes(1)),
    "tokens": Criterion(lambda x, t: F.cross_entropy(x.flatten(0, 1), t.flatten()), _classes(-1)),
    "mse": Criterion(lambda x, t: F.mse_loss(x, t.to(x.dtype)), _numbers),
}


def _symbols(feeds: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """For each input its dynamic axes; an axis is known by its extents in the two batches."""
    named: dict[tuple[int, int], str] = {PROBES: "batch"}

    def axes(a: Sequence[int], b: Sequence[int]) -> dict[int, str]:
        return {i: named.setdefault((m, n), f"dim{len(named)}") for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n}

    return {name: axes(tensor.shape, other[name].shape) for name, tensor in feeds.items()}


def _settle(made: nn.Module) -> None:
    """Noise on every parameter and running statistic, so that no two elements are equal: a value then says where it is from."""
    noisy = [*made.parameters(), *(b for name, b in made.named_buffers() if name.rsplit(".", 1)[-1] in STATISTICS)]
    with torch.no_grad():
        for tensor in dict.fromkeys(noisy):
            tensor.add_(0.05 * torch.randn(tensor.shape))
        for name, tensor in made.named_buffers():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
        taken: set[float] = {0.0}
        for tensor in dict.fromkeys(made.parameters()):
            flat = tensor.detach().numpy().reshape(-1)
            for i, number in enumerate(flat):
                while float(number) in taken:
                    number = np.nextafter(number, np.float32(2.0))
                taken.add(float(number))
                flat[i] = number


STATISTICS = ("running_mean", "running_var")


@contextlib.contextmanager
def _quiet() -> Any:
    """Exporters talk a lot."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(previous)
