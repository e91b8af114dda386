"""Gradients of a joint graph in stock ONNX Runtime, against PyTorch's autograd in float64 of the module that was exported.

An element's difference counts relative to the largest element of that tensor's gradient, or to a ten-thousandth of the largest
parameter gradient where that is more (a bias before batch normalization has the gradient 0). It may be 1e-5, or three times what
PyTorch's own float32 is off by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import Tensor

from benchmarks.exports.exporting import LOSS, LOSSES, PROBES, TARGET, Architecture, batch, exported, module
from benchmarks.exports.matching import Matching, match
from vgcompile.derivatives import ALL, Gradients, gradients
from vgcompile.errors import VgcompileError
from vgcompile.passes.gradient import ADJOINT
from vgcompile.passes.lower import Profile

Array = np.ndarray[Any, Any]
RELATIVE, ALLOWANCE, FLOOR = 1e-5, 3.0, 1e-4
CACHE = Path(__file__).parent.parent.parent / "out" / "exports"


@dataclass(frozen=True)
class Difference:
    """Of one gradient at one batch size: relative to PyTorch in float64, ours and that of PyTorch in float32."""

    value: str
    batch: int
    ours: float
    theirs: float

    @property
    def held(self) -> bool:
        return self.ours <= max(RELATIVE, ALLOWANCE * self.theirs)


@dataclass(frozen=True)
class Verdict:
    """What became of one architecture: ``refused`` says why there is no joint graph, ``failed`` why it did not run."""

    name: str
    written_by: str
    form: str
    differences: tuple[Difference, ...] = ()
    parameters: int = 0
    matching: Matching | None = field(default=None, repr=False)
    exporter: float = 0.0  # the exported file's own output in ONNX Runtime, relative to PyTorch in float64: the exporter's error
    folded: tuple[str, ...] = ()  # parameters that learn and that the exporter left nowhere in the file
    refused: str = ""
    failed: str = ""

    @property
    def wrong(self) -> list[Difference]:
        return [difference for difference in self.differences if not difference.held]

    @property
    def worst(self) -> Difference | None:
        return max(self.differences, key=lambda d: d.ours / max(RELATIVE, ALLOWANCE * d.theirs), default=None)

    @property
    def passed(self) -> bool:
        return not (self.refused or self.failed or self.wrong or self.folded)


def file_of(architecture: Architecture, form: str | None = None, cache: Path | None = CACHE) -> onnx.ModelProto:
    """The exporter's file, kept between calls where there is a folder for it."""
    form = form or architecture.form
    path = None if cache is None else cache / f"{architecture.name}.{form}.onnx"
    if path is not None and path.exists():
        return onnx.load(path)
    proto = exported(architecture, form)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(proto, path)
    return proto


def differentiated(proto: onnx.ModelProto, form: str, profile: Profile = "fast") -> Gradients:
    """The joint graph of a file: all parameters, all real inputs."""
    return gradients(proto, wrt=ALL, loss=LOSS if form == LOSS else None, seed_input=form != LOSS, profile=profile)


def check(architecture: Architecture, form: str | None = None, cache: Path | None = CACHE) -> Verdict:
    """Compare every gradient at every batch size that the exported file runs at, from one file."""
    form = form or architecture.form
    verdict = Verdict(architecture.name, architecture.written_by, form)
    proto = file_of(architecture, form, cache)
    try:
        joint = differentiated(proto, form)
    except VgcompileError as refused:
        return _with(verdict, refused=str(refused))
    try:
        session = _session(joint.model)
    except Exception as error:  # whatever ONNX Runtime says about a file of ours is a finding
        return _with(verdict, failed=f"ONNX Runtime does not load it: {_line(error)}")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    held |= _constants(proto)
    parameters = dict(module(architecture).named_parameters())
    matching = match(_arrays(parameters), {name: held[name] for name in joint.by if name in held})
    differences: list[Difference] = []
    forward = _session(proto)
    exporter = 0.0
    folded: set[str] = set()
    absent = set(matching.folded())
    for size in _sizes(forward, architecture, form):
        feeds = batch(architecture, size, form)
        seed = _seed(architecture, feeds, form)
        try:
            ours = _ours(session, joint, matching, feeds, seed)
        except Exception as error:
            return _with(verdict, failed=f"batch {size}: {_line(error)}", matching=matching)
        exporter = max(exporter, _exporter(forward, architecture, feeds, form))
        exact, single = (_autograd(architecture, feeds, seed, dtype) for dtype in (torch.float64, torch.float32))
        largest = max(float(np.abs(g).max()) for name, g in exact.items() if name in parameters)
        for name, truth in exact.items():
            if name in absent:
                folded |= {name} if np.any(truth) else set()
                continue
            scale = max(float(np.abs(truth).max(initial=0.0)), FLOOR * largest)
            ours_off, theirs_off = (float(np.abs(g[name] - truth).max(initial=0.0)) / scale for g in (ours, single))
            differences.append(Difference(name, size, ours_off if np.isfinite(ours_off) else np.inf, theirs_off))
    return _with(
        verdict,
        differences=tuple(differences),
        parameters=len(parameters),
        matching=matching,
        exporter=exporter,
        folded=tuple(sorted(folded)),
    )


def _sizes(forward: ort.InferenceSession, architecture: Architecture, form: str) -> list[int]:
    """The batch sizes at which the exported file itself runs; an exporter may have fixed that which it traced."""
    return [size for size in architecture.batches if _runs(forward, batch(architecture, size, form))] or [PROBES[0]]


def _runs(session: ort.InferenceSession, feeds: Mapping[str, Tensor]) -> bool:
    try:
        session.run(None, _fed(session, feeds))
    except Exception:  # ONNX Runtime's own, of many kinds
        return False
    return True


def _fed(session: ort.InferenceSession, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
    """Of the inputs those that the file has."""
    names = {value.name for value in session.get_inputs()}
    return {name: array for name, array in _arrays(feeds).items() if name in names}


def _with(verdict: Verdict, **changes: Any) -> Verdict:
    return Verdict(**{**vars(verdict), **changes})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _constants(proto: onnx.ModelProto) -> dict[str, Array]:
    """Constants of nodes, which old exporters use for weights."""
    found = {}
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _seed(architecture: Architecture, feeds: Mapping[str, Tensor], form: str) -> Tensor | None:
    """The adjoint from outside: random numbers like the output."""
    if form == LOSS:
        return None
    with torch.no_grad():
        output = module(architecture)(*feeds.values())
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(7))


def _ours(
    session: ort.InferenceSession, joint: Gradients, matching: Matching, feeds: Mapping[str, Tensor], seed: Tensor | None
) -> dict[str, Array]:
    given = _fed(session, feeds)
    if seed is not None:
        given[f"{ADJOINT}{joint.root[0]}"] = seed.numpy()
    made = dict(zip(joint.by, session.run(list(joint.by.values()), given), strict=True))
    return matching.gathered(made) | {name: made[name] for name in feeds if name in made}


def _exporter(session: ort.InferenceSession, architecture: Architecture, feeds: Mapping[str, Tensor], form: str) -> float:
    (found,) = session.run(None, _fed(session, feeds))
    model = module(architecture).double()
    given = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in feeds.items()}
    with torch.no_grad(), torch.random.fork_rng():
        output = model(*(tensor for name, tensor in given.items() if name != TARGET))
        truth = (LOSSES[architecture.loss].loss(output, given[TARGET]) if form == LOSS else output).numpy()
    return float(np.abs(found - truth).max() / np.abs(truth).max())


def _autograd(
    architecture: Architecture, feeds: Mapping[str, Tensor], seed: Tensor | None, dtype: torch.dtype
) -> dict[str, Array]:
    """Gradients of the module's parameters, and of its real inputs."""
    model = module(architecture).to(dtype).requires_grad_()  # also what its author froze
    given = {name: tensor.to(dtype).requires_grad_() if tensor.is_floating_point() else tensor for name, tensor in feeds.items()}
    with torch.random.fork_rng():
        output = model(*(tensor for name, tensor in given.items() if name != TARGET))
        if seed is None:
            LOSSES[architecture.loss].loss(output, given[TARGET]).backward()
        else:
            output.backward(seed.to(dtype))
    leaves = {**dict(model.named_parameters()), **{name: t for name, t in given.items() if t.is_floating_point()}}
    return {n: np.zeros(t.shape) if t.grad is None else t.grad.double().numpy() for n, t in leaves.items()}
