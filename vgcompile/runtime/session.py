"""A compiled model that runs: ONNX Runtime with our choices, and its errors in our words.

    session = Session(compiled.gradient)
    session.run(["loss", "grad.hidden/weight"], {"x": x, "target": t})

Parameters are graph inputs with defaults: a feed under a parameter's name overrides it for that run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from vgcompile.errors import DataError, EngineError, nearest
from vgcompile.runtime.providers import INSTALL, NAMES, choose, request

Array = np.ndarray[Any, Any]

MANY_NODES = 20_000  # beyond, optimizing takes longer than what it saves: 32,000 nodes load in 4 s, unoptimized in 1.4
PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; a larger model is not one message any more, its weights go to a file beside it
FATAL_ONLY = 4  # ONNX Runtime warns once for each overridable parameter, and says errors twice: we raise them
_FAILURES = tuple(failure for failure in vars(failures).values() if isinstance(failure, type) and issubclass(failure, Exception))


class Session:
    """An ONNX Runtime session on a model in memory or in a file (whose external data lie beside it).

    ``threads`` None leaves the number to ONNX Runtime; sums depend on it in their last bits. Raises EngineError where the
    provider is not there or does not start, or where ONNX Runtime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto | str | Path, provider: str = "auto", threads: int | None = None) -> None:
        chosen = choose(provider)
        if chosen == "cuda":
            onnxruntime.preload_dlls()  # CUDA and cuDNN as pip installs them
        with tempfile.TemporaryDirectory(prefix="vgcompile.") as folder:
            try:
                self._session = onnxruntime.InferenceSession(
                    _source(model, Path(folder)), _options(model, threads), request(chosen)
                )
            except _FAILURES as error:
                raise EngineError(f"ONNX Runtime refuses the model: {_words(error)}") from None
        started = [short for short, name in NAMES.items() if name in self._session.get_providers()]
        if provider == "cuda" and "cuda" not in started:
            raise EngineError(f"the CUDA provider is installed but did not start (no device or no driver); {INSTALL}")
        self.provider = chosen if chosen in started else "cpu"
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self.required = tuple(value.name for value in self._session.get_inputs())
        self.overridable = tuple(value.name for value in self._session.get_overridable_initializers())

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The named outputs (None: all) for these feeds.

        Raises DataError for a feed that is missing, not an input, or does not fit; EngineError where the run itself fails.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        self._check(feeds)
        try:
            results = self._session.run(list(names), dict(feeds))
        except failures.InvalidArgument as error:
            raise DataError(f"the data do not fit the model: {_words(error)}") from None
        except _FAILURES as error:
            raise EngineError(f"ONNX Runtime failed while running on {self.provider}: {_words(error)}") from None
        return dict(zip(names, results, strict=True))

    def _check(self, feeds: Mapping[str, Array]) -> None:
        missing = [name for name in self.required if name not in feeds]
        if missing:
            raise DataError(f"no data for the model's input {missing[0]!r}; it needs {', '.join(self.required)}")
        known = {*self.required, *self.overridable}
        for name in feeds:
            if name not in known:
                raise DataError(
                    f"the model has no input {name!r}; " + (nearest(name, known) or f"it has {', '.join(self.required)}")
                )


def _source(model: onnx.ModelProto | str | Path, folder: Path) -> str | bytes:
    """What ONNX Runtime loads; a model that is too large for one message is written to ``folder``, which it maps at once."""
    if isinstance(model, str | Path):
        return str(model)
    if model.ByteSize() < PROTOBUF_LIMIT:
        serialized: bytes = model.SerializeToString()
        return serialized
    file = folder / "model.onnx"
    ir.save(ir.from_proto(model), file, external_data="model.data")  # onnx.save would empty the caller's model
    return str(file)


def _options(model: onnx.ModelProto | str | Path, threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.use_deterministic_compute = True
    if threads is not None:
        options.intra_op_num_threads = threads
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    if len(proto.graph.node) > MANY_NODES:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _words(error: Exception) -> str:
    """ONNX Runtime's message on one line, without its error code and its advice."""
    text = " ".join(line.strip() for line in str(error).splitlines() if "Please fix" not in line)
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text).strip()
