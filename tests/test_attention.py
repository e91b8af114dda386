"""Attention, normalizations and what decoders use: ONNX's published cases, PyTorch, hidden rows, 16-bit numbers, node counts."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tests.reference import evaluator, in_float64
from vgcompile.derivatives import gradients

Array = np.ndarray[Any, Any]

OPERATORS = frozenset(
    {
        *("Attention", "LinearAttention", "RotaryEmbedding", "TensorScatter", "CausalConvWithState", "Swish", "SwiGLU"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization", "LRN"),
        "MeanVarianceNormalization",
    }
)
HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Published:
    """One of ONNX's own cases: a model of one node, and inputs for it."""

    model: onnx.ModelProto
    inputs: Mapping[str, Array]

    @property
    def real(self) -> list[str]:
        types = {value.name: value.type.tensor_type.elem_type for value in self.model.graph.input}
        return [name for name in self.inputs if types[name] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, *HALF)]

    @property
    def half(self) -> bool:
        return any(value.type.tensor_type.elem_type in HALF for value in self.model.graph.input)

    @property
    def in_double(self) -> dict[str, Array]:
        return {name: x.astype(np.float64) if name in self.real else x for name, x in self.inputs.items()}

    def symbolic(self) -> onnx.ModelProto:
        """With a symbol for each extent of the inputs but a kernel's and those along the last axis, which files state: widths."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim[:-1] if value.name != "weight" else ():
                if dim.dim_value > 1:
                    dim.dim_param = f"D{dim.dim_value}"
        for value in model.graph.output:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"{value.name}.{axis}"
        return model


def _published() -> dict[str, Published]:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in load_model_tests(kind="node"):
            if test.model is None or len(test.model.graph.node) != 1 or test.model.graph.node[0].op_type not in OPERATORS:
                continue
            arrays = [
                numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x) for x in test.data_sets[0][0]
            ]
            names = [value.name for value in test.model.graph.input]
            found[test.name] = Published(test.model, dict(zip(names, arrays, strict=True)))
    return found


CASES = _published()


def _run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        return dict(zip(names, evaluator(model.SerializeToString()).run(names, dict(feeds)), strict=True))


@pytest.mark.parametrize("form", ["published", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_published_case(name: str, form: str) -> None:
    """<v, J^T g> = d <g, f(x + t v)> / dt in float64; what is shown as minus infinity gets no seed. 16-bit cases are finite."""
    case = CASES[name]
    made = gradients(case.symbolic() if form == "symbolic" else case.model, wrt=case.real, seed_input=True)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model, x = (made.model, case.inputs) if case.half else (in_float64(made.model), case.in_double)
    y = _run(case.model, x)
    g = {k: np.where(np.isfinite(out), rng.normal(size=np.shape(out)), 0.0).astype(out.dtype) for k, out in y.items()}
    outputs = _run(model, {**x, **{f"adj.{k}": adjoint for k, adjoint in g.items()}})
    adjoints = {k: outputs[made.by[k]] for k in case.real}
    assert {k: (a.shape, a.dtype) for k, a in adjoints.items()} == {k: (x[k].shape, x[k].dtype) for k in adjoints}
    assert all(np.isfinite(a.astype(np.float64)).all() for a in adjoints.values())
    if case.half:
        return
    v = {k: rng.normal(size=x[k].shape) * (np.isfinite(x[k]) & (x[k] != 0.0)) for k in case.real}

    def along(t: float) -> float:
        moved = _run(in_float64(case.model), {**x, **{k: x[k] + t * v[k] for k in v}})
        return sum(float(np.vdot(g[k], np.where(np.isfinite(moved[k]), moved[k], 0.0))) for k in g)

    found = sum(float(np.vdot(v[k], a)) for k, a in adjoints.items())
    scale = 1.0 + sum(float(np.abs(v[k] * a).sum()) for k, a in adjoints.items())
    assert found == pytest.approx((along(1e-6) - along(-1e-6)) / 2e-6, abs=1e-6 * scale)
