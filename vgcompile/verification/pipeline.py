"""Verify a gradient on somebody's own data, read from top to bottom.

question -- one float32 run --> values -- each node, differences in float64 --> node checks
         -- joint, float64 --> gradient -- differences of the loss ----------> end-to-end checks
         -- the file ------------------- ONNX Runtime, float32 --------------> float32 checks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from vgcompile.derivatives import PARAMETERS, Question, Source, answer, ask
from vgcompile.errors import DataError
from vgcompile.graph.load import declared
from vgcompile.graph.network import Network
from vgcompile.initial import stream
from vgcompile.passes.gradient import ADJOINT
from vgcompile.passes.lower import lower
from vgcompile.runtime import data
from vgcompile.runtime.session import Session
from vgcompile.verification.nodes import Unevaluated, check_node, on_the_way
from vgcompile.verification.result import STAGES, Check, Stage, Verification
from vgcompile.verification.slopes import Array
from vgcompile.verification.whole import Whole, check_end_to_end, check_float32

BATCH = 3  # samples that are drawn where nobody says how many: enough to couple them
TOLERANCE = 1e-5
END_TO_END = 10.0  # times the tolerance: a loss sums over much


def verify(
    model: Source,
    *,
    wrt: str | list[str] = PARAMETERS,
    loss: str | None = None,
    seed_input: bool = False,
    attach_loss: str | None = None,
    class_axis: int = 1,
    file: str | None = None,
    batch: int | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    stages: Sequence[Stage] = STAGES,
    progress: Callable[[str], None] = lambda what: None,
) -> Verification:
    """Compile a gradient as ``grad`` does and hold it against differences, on the arrays of ``file`` or on drawn ones.

    ``stages`` are the checks that are made: of the nodes, of the whole end to end, of the file in float32.

    Raises UserError for what ``grad`` would raise it for, and DataError for data that do not fit.
    """
    question = ask(model, wrt=wrt, loss=loss, seed_input=seed_input, attach_loss=attach_loss, class_axis=class_axis)
    made = answer(question)
    _open(question)
    progress("reading data")
    feeds = _feeds(question, file, batch, seed)
    progress("running forward")
    values = _values(question, feeds)
    adjoints = _adjoints(question, values, file, seed) if seed_input else {}
    checks = _nodes(question, values, seed, tolerance, progress) if "node" in stages else []
    if set(stages) - {"node"}:
        found = _whole(Whole(question, feeds, adjoints), made.model, seed, tolerance, progress)
        checks += [check for check in found if check.stage in stages]
    return Verification(question.subject.source, tuple(checks), made.notes)


def _open(question: Question) -> None:
    """An initializer that is asked for is an input with a default, as in the joint graph."""
    graph = question.subject.model.graph
    held = [graph.initializers[name] for name in question.wanted if name in graph.initializers]
    graph.inputs.extend(value for value in held if not value.is_graph_input())


def _feeds(question: Question, file: str | None, size: int | None, seed: int) -> dict[str, Array]:
    """One array for each input that is no parameter."""
    subject, network = question.subject, question.subject.network
    known = network.inputs if network is not None else {}
    held = subject.model.graph.initializers
    inputs = {
        str(value.name): known.get(str(value.name)) or declared(value)
        for value in subject.model.graph.inputs
        if value.name not in held
    }
    source = Network(
        name=Path(subject.source).stem,
        source=subject.source,
        model=subject.model,
        inputs=inputs,
        outputs=(),
        data=network.data if network is not None else None,
    )
    fixed = any(isinstance(declared.samples, int) for declared in inputs.values())
    drawn = file is None and not fixed
    return data.batch(source, file=file, size=BATCH if size is None and drawn else size, seed=seed)


def _values(question: Question, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the main graph in one run of the forward, in the model's own types."""
    model = question.subject.model.clone()
    made = [value for node in model.graph for value in node.outputs if value.name and isinstance(value.type, ir.TensorType)]
    model.graph.outputs[:] = made
    session = Session(ir.to_proto(lower(model)), provider="cpu")
    constants = {
        str(value.name): value.const_value.numpy()
        for value in question.subject.model.graph.initializers.values()
        if value.const_value is not None
    }
    return {**constants, **feeds, **session.run(None, {name: feeds[name] for name in session.required})}


def _adjoints(question: Question, values: Mapping[str, Array], file: str | None, seed: int) -> dict[str, Array]:
    """From the data file where it holds them, else drawn."""
    held: dict[str, Array] = {}
    if file is not None:
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[f"{ADJOINT}{name}"] for name in question.roots if f"{ADJOINT}{name}" in arrays.files}
    found = {}
    for name in question.roots:
        shape = values[name].shape
        g = held[name] if name in held else np.asarray(stream(seed, f"{ADJOINT}{name}").standard_normal(shape))
        if g.shape != shape:
            raise DataError(f"{file}: array {ADJOINT}{name} has the shape {list(g.shape)}, the output {name!r} {list(shape)}")
        found[name] = g.astype(values[name].dtype).astype(np.float64)
    return found


def _nodes(
    question: Question, values: Mapping[str, Array], seed: int, tolerance: float, progress: Callable[[str], None]
) -> list[Check]:
    found: list[Check] = []
    for alone in on_the_way(question.subject.model, question.roots, question.wanted):
        progress(f"node {alone.node.name}")
        found += check_node(alone, values, stream(seed, str(alone.node.name)), tolerance)
    return found


def _whole(whole: Whole, file: onnx.ModelProto, seed: int, tolerance: float, progress: Callable[[str], None]) -> list[Check]:
    progress("float64 gradient")
    names = whole.question.wanted
    try:
        exact = whole.gradient(whole.point)
        progress(f"the loss is {whole.here:.6g}")
    except Unevaluated as error:
        reason = f"of the whole model in float64, {error}"
        return [Check(stage, name, "not verified", reason=reason) for stage in ("end to end", "float32") for name in names]
    found = []
    for name in names:
        progress(f"end to end {name}")
        found.append(check_end_to_end(whole, name, exact[name], stream(seed, name), END_TO_END * tolerance))
    progress("float32")
    return found + check_float32(whole, file, exact, stream(seed, "float32"), tolerance)
