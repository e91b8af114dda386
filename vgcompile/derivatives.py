"""Derivatives of any model: a file of any exporter, or a YAML model, to one ONNX graph of standard operators.

model -- normalized --> graph -- attach --> loss -- joint --> model's outputs, grad.<name>
                                                   twice --> hvp.<name>
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from vgcompile.compiler import open_network
from vgcompile.errors import UserError, nearest
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.load import trainable
from vgcompile.graph.network import Network
from vgcompile.graph.normalize import normalized
from vgcompile.graph.pause import uncollected
from vgcompile.graph.skeleton import Outline
from vgcompile.passes.attach import attach
from vgcompile.passes.check import verified
from vgcompile.passes.gradient import ADJOINT, GRADIENT, joint, named_values
from vgcompile.passes.lower import Profile

Source = str | Path | onnx.ModelProto | Network  # of a Network its model is changed
HESSIAN, VECTOR = "hvp.", "v."  # prefixes of a Hessian-vector product's outputs and inputs
PARAMETERS, INPUTS, ALL = "parameters", "inputs", "all"
NAMED = 8  # names that a message lists


@dataclass(frozen=True)
class Subject:
    """A model to differentiate: ``inputs`` are its real data inputs, ``parameters`` what is trained, ``notes`` what was done;
    ``network`` is what a YAML model was read into, with its data."""

    source: str
    model: ir.Model
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    notes: tuple[str, ...] = ()
    network: Network | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(str(value.name) for value in self.model.graph.outputs)


@dataclass(frozen=True)
class Gradients:
    """A joint graph; ``by`` maps each value that was asked for to the output that holds its gradient."""

    outline: Outline
    root: tuple[str, ...]
    by: dict[str, str]
    notes: tuple[str, ...] = ()

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The graph as ONNX, with its weights, which must be less than 2 GB."""
        return self.outline.whole()


def grad(
    model: Source,
    *,
    wrt: str | Sequence[str] = PARAMETERS,
    loss: str | None = None,
    seed_input: bool = False,
    attach_loss: str | None = None,
    class_axis: int = 1,
    prefix: str = GRADIENT,
    profile: Profile = "fast",
) -> onnx.ModelProto:
    """The joint graph of a model: its own outputs, and ``grad.<name>`` for each asked value.

    ``wrt`` is ``parameters``, ``inputs``, ``all`` or the names of values. ``loss`` names the scalar that is differentiated
    (default: the output called ``loss``, or the only scalar one). With ``seed_input`` the adjoint of ``loss``, or of every real
    output, comes in as ``adj.<output>``; ``attach_loss`` makes a loss of the output ``loss`` (default: the only one). The profile
    ``fast`` writes hard gradients in the forms that run fastest on ONNX Runtime's CPU, ``portable`` in those of fewest nodes.

    Raises UserError for names and options that do not suit the model, ModelError for a file that cannot be taken, and
    GradientRefused where an operator on the way has no rule for its case.
    """
    asked = gradients(
        model,
        wrt=wrt,
        loss=loss,
        seed_input=seed_input,
        attach_loss=attach_loss,
        class_axis=class_axis,
        prefix=prefix,
        profile=profile,
    )
    return asked.model


@uncollected()
def gradients(
    model: Source,
    *,
    wrt: str | Sequence[str] = PARAMETERS,
    loss: str | None = None,
    seed_input: bool = False,
    attach_loss: str | None = None,
    class_axis: int = 1,
    prefix: str = GRADIENT,
    profile: Profile = "fast",
) -> Gradients:
    """What ``grad`` does, with the names of what it made."""
    question = ask(model, wrt=wrt, loss=loss, seed_input=seed_input, attach_loss=attach_loss, class_axis=class_axis)
    return _answered(question, question.subject.model, prefix, profile)


@dataclass(frozen=True)
class Question:
    """What is differentiated by what: the sum of ``roots``, with adjoints from ``outside`` or without, by ``wanted``."""

    subject: Subject
    roots: tuple[str, ...]
    wanted: tuple[str, ...]
    outside: bool


def ask(
    model: Source,
    *,
    wrt: str | Sequence[str] = PARAMETERS,
    loss: str | None = None,
    seed_input: bool = False,
    attach_loss: str | None = None,
    class_axis: int = 1,
) -> Question:
    """Read a model and the options of ``grad``: the loss is attached, names are found."""
    subject = open_subject(model, _named(wrt, loss))
    roots = _roots(subject, loss, seed_input, attach_loss, class_axis)
    return Question(subject, tuple(roots), tuple(_wanted(subject, wrt)), seed_input)


def answer(question: Question, prefix: str = GRADIENT, profile: Profile = "fast") -> Gradients:
    """What ``gradients`` makes; the question may be asked again."""
    return _answered(question, question.subject.model.clone(), prefix, profile)


def _answered(question: Question, model: ir.Model, prefix: str, profile: Profile) -> Gradients:
    """The subject's ``model`` becomes the joint graph."""
    subject, roots, wanted = question.subject, question.roots, question.wanted
    outputs = list(dict.fromkeys([*subject.outputs, *(() if question.outside else roots)]))
    made = joint(model, roots, wanted, outputs, outside=question.outside, prefix=prefix, profile=profile)
    return Gradients(verified(made), roots, {name: f"{prefix}{name}" for name in wanted}, subject.notes)


def hvp(
    model: Source,
    *,
    wrt: str | Sequence[str] = PARAMETERS,
    loss: str | None = None,
    attach_loss: str | None = None,
    class_axis: int = 1,
) -> onnx.ModelProto:
    """Hessian-vector products of a model's loss: its own outputs, and ``hvp.<name>`` for each asked value.

    The vector comes in as ``v.<name>``, one part for each asked value in its shape; ``hvp.<name>`` is the part of H v that
    belongs to it, with H the second derivatives of the loss by all asked values together: the gradient of <grad, v>.
    Options and errors are those of ``grad``.
    """
    return products(model, wrt=wrt, loss=loss, attach_loss=attach_loss, class_axis=class_axis).model


def products(
    model: Source,
    *,
    wrt: str | Sequence[str] = PARAMETERS,
    loss: str | None = None,
    attach_loss: str | None = None,
    class_axis: int = 1,
) -> Gradients:
    """What ``hvp`` does, with the names of what it made."""
    subject = open_subject(model, _named(wrt, loss))
    roots = _roots(subject, loss, False, attach_loss, class_axis, ways=_ATTACH)
    wanted = _wanted(subject, wrt)
    outputs = list(dict.fromkeys([*subject.outputs, *roots]))
    first = joint(subject.model, roots, wanted, outputs, profile=None)
    second = joint(first, [f"{GRADIENT}{name}" for name in wanted], wanted, outputs, outside=True, prefix=HESSIAN)
    values = named_values(second)
    for name in wanted:
        if f"{VECTOR}{name}" in values:
            raise UserError(f"the model holds a value called {VECTOR + name!r}, which is to be the vector's part; rename it")
        values[f"{ADJOINT}{GRADIENT}{name}"].name = f"{VECTOR}{name}"
    return Gradients(verified(second), tuple(roots), {name: f"{HESSIAN}{name}" for name in wanted}, subject.notes)


def _named(wrt: str | Sequence[str], loss: str | None) -> frozenset[str]:
    """The values that a caller names: they stay where an operator is recognized around them."""
    groups = (PARAMETERS, INPUTS, ALL)
    names = () if isinstance(wrt, str) and wrt in groups else (wrt,) if isinstance(wrt, str) else wrt
    return frozenset(names) | (frozenset() if loss is None else {loss})


def open_subject(source: Source, kept: Set[str] = frozenset()) -> Subject:
    """Read a model: a YAML model as it trains, an ONNX file or proto as it stands, its parameters found.

    Values called ``kept`` stay where an operator is recognized around them.
    """
    if isinstance(source, Network) or (not isinstance(source, onnx.ModelProto) and Path(source).suffix != ".onnx"):
        network = source if isinstance(source, Network) else open_network(source)
        data = [value for value in network.model.graph.inputs if value.name not in network.parameters]
        return Subject(network.source, network.model, _real(data), network.parameters, network.notes, network)
    given = normalized(source, kept=kept)
    model = given.model
    parameters = trainable(model, given.initializers)
    note = f"{given.source}: {_counted(parameters)}"
    return Subject(given.source, model, _real(model.graph.inputs), tuple(parameters), (*given.notes, note))


def _counted(parameters: Sequence[str]) -> str:
    """How many parameters were found, and which."""
    shown = ", ".join(parameters[:NAMED]) + (", ..." if len(parameters) > NAMED else "")
    count = "1 parameter" if len(parameters) == 1 else f"{len(parameters)} parameters"
    return count + (f": {shown}" if parameters else "")


def _real(values: Sequence[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values if is_real(value))


def _roots(subject: Subject, loss: str | None, seed_input: bool, kind: str | None, class_axis: int, ways: str = "") -> list[str]:
    """The names of the values that are differentiated; a loss is attached where one is asked for. Where there is none, ``ways``
    would do."""
    ways = ways or _WAYS
    if kind is not None and seed_input:
        raise UserError("--attach-loss and --seed-input exclude each other: an adjoint from outside stands for a loss")
    values = named_values(subject.model)
    if loss is not None and loss not in values:
        outputs = ", ".join(subject.outputs[:NAMED])
        hint = nearest(loss, values) or f"its outputs are {outputs}"
        raise UserError(f"{subject.source}: --loss {loss!r} is no value of the model; {hint}")
    real = [value for value in subject.model.graph.outputs if is_real(value) and value.producer() is not None]
    chosen = [values[loss]] if loss is not None else real
    if loss is not None and not is_real(chosen[0]):
        raise UserError(f"{subject.source}: --loss {loss!r} holds no real numbers; name a real output")
    if seed_input:
        return [str(value.name) for value in chosen]
    if kind is not None:
        return [str(attach(subject.model, _only(subject, chosen, "--attach-loss"), kind, class_axis).name)]
    if loss is not None and not _is_scalar(chosen[0]):
        raise UserError(f"{subject.source}: --loss {loss!r} is {_shown(chosen[0])}, a loss is one real number; {ways}")
    scalars = [value for value in chosen if _is_scalar(value)]
    named = [value for value in scalars if value.name == "loss"] or scalars
    if len(named) != 1:
        found = ", ".join(f"{value.name} {_shown(value)}" for value in chosen[:NAMED]) or "none that holds real numbers"
        which = "several outputs are scalar, name one with --loss" if named else f"no output is a scalar loss; {ways}"
        raise UserError(f"{subject.source}: {which} (its outputs: {found})")
    return [str(named[0].name)]


_ATTACH = "make a loss of it with --attach-loss cross_entropy, mse, mae, huber or binary_cross_entropy"
_WAYS = f"let its adjoint come from outside with --seed-input, or {_ATTACH}"


def _only(subject: Subject, chosen: Sequence[ir.Value], option: str) -> ir.Value:
    if len(chosen) != 1:
        names = ", ".join(str(value.name) for value in chosen[:NAMED]) or "none"
        raise UserError(f"{subject.source}: {option} needs one real output, name it with --loss (found: {names})")
    return chosen[0]


def _is_scalar(value: ir.Value) -> bool:
    return all(dim == 1 for dim in dims(value))


def _shown(value: ir.Value) -> str:
    return f"{value.dtype.name.lower() if value.dtype is not None else '?'}[{', '.join(map(str, dims(value)))}]"


def _wanted(subject: Subject, wrt: str | Sequence[str]) -> list[str]:
    """The names of the values to differentiate by."""
    groups = {PARAMETERS: subject.parameters, INPUTS: subject.inputs, ALL: (*subject.inputs, *subject.parameters)}
    if isinstance(wrt, str) and wrt in groups:
        if not groups[wrt]:
            other = "inputs" if wrt == PARAMETERS else "parameters"
            what = "inputs, and no parameters" if wrt == ALL else wrt
            hint = "by name" if wrt == ALL else f"with --wrt {other} or by name"
            raise UserError(f"{subject.source}: the model has no real {what}; ask for others {hint}")
        return list(groups[wrt])
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    values = named_values(subject.model)
    wrong = []
    for name in names:
        if name not in values:
            wrong.append(f"{name!r} is no value of the model" + (f", {hint}" if (hint := nearest(name, values)) else ""))
        elif not is_real(values[name]):
            wrong.append(f"{name!r} holds no real numbers")
    if wrong or not names:
        raise UserError(f"{subject.source}: --wrt: " + ("; ".join(wrong) or "names at least one value"))
    return list(dict.fromkeys(names))
