"""The set: ONNX's backend node tests that have a gradient to ask for, and the same tests with a symbolic first axis."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from benchmarks.conformance.running import CannotRun, run
from vgcompile.graph.skeleton import nodes_of
from vgcompile.reference import REAL

Array = np.ndarray[Any, Any]
STANDARD = ("", "ai.onnx")
SYMBOL = "N"


@dataclass(frozen=True)
class Case:
    """``feeds`` are the published inputs, ``expected`` the published outputs."""

    name: str
    operator: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]

    @property
    def real_inputs(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.model.graph.input if element(value) in REAL)

    @property
    def real_outputs(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.model.graph.output if element(value) in REAL)


@dataclass(frozen=True)
class Excluded:
    name: str
    reason: str


def element(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


@lru_cache(maxsize=1)
def _tests() -> tuple[Any, ...]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return tuple(load_model_tests(kind="node"))


@lru_cache(maxsize=1)
def published() -> tuple[tuple[Case, ...], tuple[Excluded, ...]]:
    """Every node test in the order of ONNX's loader: the cases that may be in, and those that are not.

    Whether ONNX Runtime runs a case's forward is found out where the case is judged.
    """
    found: list[Case] = []
    out: list[Excluded] = []
    for test in _tests():
        name = test.name.removeprefix("test_")
        reason = _outside(test.model)
        if reason:
            out.append(Excluded(name, reason))
            continue
        inputs, outputs = test.data_sets[0]
        graph = test.model.graph
        feeds = {value.name: _array(given) for value, given in zip(graph.input, inputs, strict=True)}
        expected = {value.name: _array(given) for value, given in zip(graph.output, outputs, strict=True)}
        found.append(Case(name, _operator(name, test.model), test.model, feeds, expected))
    return tuple(found), tuple(out)


def _outside(model: onnx.ModelProto) -> str:
    """Why a test has no gradient to ask for, or nothing."""
    domains = {node.domain for node in nodes_of(model.graph)} - set(STANDARD)
    if domains:
        return f"of another domain than the default one ({', '.join(sorted(domains))})"
    values = [*model.graph.input, *model.graph.output]
    kinds = {value.type.WhichOneof("value") for value in values} - {"tensor_type"}
    if kinds:
        return "of sequences, optionals or maps"
    if not any(element(value) in REAL for value in model.graph.output):
        return "no real output" if any(element(value) in REAL for value in model.graph.input) else "neither real input nor output"
    if not any(element(value) in REAL for value in model.graph.input):
        return "no real input"
    return ""


def _operator(name: str, model: onnx.ModelProto) -> str:
    """The operator that a test is about; of an expanded one the operator whose function body it is, by the test it is made of."""
    if "_expanded" not in name:
        return str(model.graph.node[-1].op_type)
    return _plain_operators().get(name.split("_expanded")[0], str(model.graph.node[-1].op_type))


@lru_cache(maxsize=1)
def _plain_operators() -> dict[str, str]:
    return {
        test.name.removeprefix("test_"): test.model.graph.node[-1].op_type for test in _tests() if "_expanded" not in test.name
    }


def _array(given: Any) -> Array:
    return numpy_helper.to_array(given) if isinstance(given, TensorProto) else np.asarray(given)


def symbolic(case: Case) -> Case | None:
    """The case with its first axis a symbol: ``N`` stands for the first extent of the first real input of rank one or more, and
    of every other real input that has the same one.

    Taken is the first of two choices (all such inputs, the first alone) for which ONNX's inference still holds and ONNX Runtime
    runs the model with these inputs twice as long; None where there is no such choice. Choices where the longer outputs are the
    outputs twice, so that the axis truly counts samples, go first.
    """
    sized = [name for name in case.real_inputs if case.feeds[name].ndim]
    if not sized or not case.feeds[sized[0]].shape[0]:
        return None
    extent = case.feeds[sized[0]].shape[0]
    everything = tuple(name for name in sized if case.feeds[name].shape[0] == extent)
    choices = list(dict.fromkeys([everything, everything[:1]]))
    fits = [(choice, found) for choice in choices if (found := _renamed(case, choice)) is not None]
    runs = [(found, doubled) for choice, found in fits if (doubled := _doubled(case, found, choice)) is not None]
    return next((found for found, samples in runs if samples), runs[0][0] if runs else None)


def _renamed(case: Case, names: Sequence[str]) -> Case | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.value_info[:]
    for value in model.graph.input:
        if value.name in names:
            value.type.tensor_type.shape.dim[0].dim_param = SYMBOL
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return None
    for value, known in zip(inferred.graph.output, case.model.graph.output, strict=True):
        if not value.type.tensor_type.HasField("shape"):  # its rank stands, its extents are for the run to say
            value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in known.type.tensor_type.shape.dim)
        if len(value.type.tensor_type.shape.dim) != len(known.type.tensor_type.shape.dim):
            return None
    del inferred.graph.value_info[:]
    return replace(case, model=inferred)


def _doubled(case: Case, found: Case, names: Sequence[str]) -> bool | None:
    """Whether the outputs come out twice where the inputs go in twice; None where they do not run so."""
    twice = {name: np.concatenate([array, array]) if name in names else array for name, array in case.feeds.items()}
    try:
        outputs = run(found.model, twice)
    except CannotRun:
        return None
    once = case.expected
    return all(
        once[name].ndim > 0
        and array.shape == (2 * once[name].shape[0], *once[name].shape[1:])
        and np.allclose(array.astype(np.float64), np.concatenate([once[name]] * 2).astype(np.float64), 1e-2, 1e-2, equal_nan=True)
        for name, array in outputs.items()
        if name in case.real_outputs
    )
