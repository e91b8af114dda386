"""ONNX's own test cases of single operators: each is a model of one node with inputs for it, differentiated as it is published,
with integer operands that arrive at run time, and with a symbol for each extent of its inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tests.reference import evaluator, in_float64
from vgcompile.derivatives import gradients

Array = np.ndarray[Any, Any]
REAL = (np.float16, np.float32, np.float64)
RUNS = 21  # an opset whose kernels ONNX Runtime has, for models of newer ones


@dataclass(frozen=True)
class NodeCase:
    """A published case: its model, and one set of inputs by name."""

    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, Any]

    @property
    def operator(self) -> str:
        return str(self.model.graph.node[0].op_type)

    @property
    def real(self) -> list[str]:
        return [name for name, value in self.inputs.items() if isinstance(value, np.ndarray) and value.dtype in REAL]

    @property
    def in_double(self) -> dict[str, Any]:
        return {name: np.asarray(value, np.float64) if name in self.real else value for name, value in self.inputs.items()}

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, in float64."""
        names = [value.name for value in self.model.graph.output]
        with np.errstate(all="ignore"):
            found = evaluator(in_float64(self.model).SerializeToString()).run(None, dict(inputs))
        return dict(zip(names, found, strict=True))

    def along(self, g: Mapping[str, Array], v: Mapping[str, Array], step: float = 1e-6) -> float:
        """d <g, f(x + t v)> / dt at 0 by central differences, in float64."""

        def value(t: float) -> float:
            y = self.values({name: x + t * v[name] if name in v else x for name, x in self.in_double.items()})
            return sum(float(np.vdot(g[name], y[name])) for name in g)

        return (value(step) - value(-step)) / (2.0 * step)


def node_cases(operators: frozenset[str]) -> Iterator[NodeCase]:
    """The cases of one node of these operators, those left out that write an operator out as its function."""
    for case in _published():
        if len(case.model.graph.node) == 1 and case.operator in operators:
            yield case


@lru_cache(maxsize=1)
def _published() -> list[NodeCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = [test for test in load_model_tests(kind="node") if test.model is not None and test.data_sets]
    return [NodeCase(test.name, test.model, _inputs(test.model, test.data_sets[0][0])) for test in tests]


def _inputs(model: onnx.ModelProto, given: Sequence[Any]) -> dict[str, Any]:
    """The inputs of a data set by name; a tensor may come as a protobuf message, or as a NumPy scalar."""
    values = (numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in given)
    arrays = (np.asarray(value) if isinstance(value, np.generic) else value for value in values)
    return {info.name: value for info, value in zip(model.graph.input, arrays, strict=False)}


def symbolic(case: NodeCase, names: Sequence[str]) -> onnx.ModelProto:
    """The case's model with a symbol for each extent above 1 of these inputs, equal ones where extents are equal."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim if value.name in names else ():
            if dim.dim_value > 1:
                dim.dim_param = f"D{dim.dim_value}"
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"{value.name}.{axis}"
    return model


@dataclass(frozen=True)
class CaseGradient:
    """``by`` is the output that holds an input's gradient."""

    model: onnx.ModelProto
    by: Mapping[str, str]

    @property
    def seeds(self) -> list[str]:
        """The outputs whose adjoints are asked for."""
        return [value.name.removeprefix("adj.") for value in self.model.graph.input if value.name.startswith("adj.")]

    def run(self, inputs: Mapping[str, Any], g: Mapping[str, Array]) -> dict[str, Array]:
        """In float64."""
        feeds = {**inputs, **{f"adj.{name}": value for name, value in g.items()}}
        with np.errstate(all="ignore"):
            found = evaluator(in_float64(self.model).SerializeToString()).run(list(self.by.values()), feeds)
        return dict(zip(self.by, found, strict=True))

    def run_stock(self, inputs: Mapping[str, Any], g: Mapping[str, Array]) -> dict[str, Array]:
        """By ONNX Runtime, in the model's own types."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.opset_import[0].version = min(model.opset_import[0].version, RUNS)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
        given = {**inputs, **{f"adj.{name}": value for name, value in g.items()}}
        feeds = {i.name: np.asarray(given[i.name], types.get(i.type)) for i in session.get_inputs()}
        return dict(zip(self.by, session.run(list(self.by.values()), feeds), strict=True))


def differentiated(model: onnx.ModelProto, wanted: Sequence[str], loss: str | None = None) -> CaseGradient:
    """The model with the gradients of ``wanted`` inputs, the adjoints of its real outputs (or of ``loss``) given."""
    prefix = "grad." if loss is None else "second."
    made = gradients(model, wrt=list(wanted), seed_input=True, loss=loss, prefix=prefix)
    return CaseGradient(made.model, made.by)
