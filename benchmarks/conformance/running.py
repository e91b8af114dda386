"""One model in stock ONNX Runtime on the CPU, whatever the types of its inputs."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

Array = np.ndarray[Any, Any]


class CannotRun(Exception):
    """ONNX Runtime does not load a model, or does not run it on these inputs."""


class Runner:
    """A session; types that NumPy has no name for go in and come out by their bytes, 4-bit and 8-bit ones as initializers."""

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
        self._baked = {name for name, array in feeds.items() if _unnamed(array)}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        try:
            self._session = onnxruntime.InferenceSession(
                _bake(model, {name: feeds[name] for name in self._baked}).SerializeToString(),
                options,
                ["CPUExecutionProvider"],
            )
        except Exception as error:  # each of ONNX Runtime's failures is a class of its own
            raise CannotRun(_words(error)) from None
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self._types = {value.name: value.type for value in (*self._session.get_inputs(), *self._session.get_outputs())}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {name: _value(feeds[name]) for name in self.inputs}
        try:
            results = self._session.run_with_ort_values(self.outputs, given)
            return {name: _read(result, self._types[name]) for name, result in zip(self.outputs, results, strict=True)}
        except Exception as error:
            raise CannotRun(_words(error)) from None


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return Runner(model, feeds)(feeds)


def _unnamed(array: Array) -> bool:
    return array.dtype.kind == "V" or (array.dtype.type.__module__ == "ml_dtypes" and array.dtype != ml_dtypes.bfloat16)


def _bake(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    if not arrays:
        return model
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    kept = [value for value in baked.graph.input if value.name not in arrays]
    del baked.graph.input[:]
    baked.graph.input.extend(kept)
    baked.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return baked


def _value(array: Array) -> onnxruntime.OrtValue:
    if array.dtype == ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            np.ascontiguousarray(array).view(np.uint16), onnx.TensorProto.BFLOAT16
        )
    return onnxruntime.OrtValue.ortvalue_from_numpy(
        array if array.dtype.kind in "OSU" else np.ascontiguousarray(array).reshape(array.shape)
    )


def _read(value: onnxruntime.OrtValue, kind: str) -> Array:
    if kind != "tensor(bfloat16)":
        return value.numpy()
    shape = value.shape()
    count = int(np.prod(shape))
    words = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else []
    return np.array(words, np.uint16).view(ml_dtypes.bfloat16).reshape(shape)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
