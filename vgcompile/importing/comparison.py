"""Does a model that was imported compute what the file does: both are run on one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vgcompile.build import build
from vgcompile.errors import SelfCheckError
from vgcompile.graph.network import Network
from vgcompile.importing.trial import Array
from vgcompile.passes.check import check
from vgcompile.passes.inference import inference
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session
from vgcompile.spec import loads

TOLERANCE = 1e-4  # of the l2 norm: products may be summed in another order
SAMPLES = 2
EXTENT = 7  # of axes whose size a file leaves open


def weighted(text: str, weights: Mapping[str, Array]) -> Network:
    """The network of a YAML text with these parameters and running statistics."""
    network = build(loads(text))
    held = network.model.graph.initializers
    for name, array in weights.items():
        held[name].const_value = ir.Tensor(array, name=name)
    return network


def require_equal(original: Network, outputs: Sequence[str], text: str, weights: Mapping[str, Array]) -> None:
    """Raises SelfCheckError where the outputs of a file, in the order of the model's, are not the model's but for rounding."""
    made = weighted(text, weights)
    given = batch(_of_known_extents(original), size=_samples(original), seed=0)
    read = zip(made.inputs.items(), original.inputs, strict=False)
    fed = {key: given[name].astype(declared.dtype.numpy()) for (key, declared), name in read}
    there, here = _run(original, given), _run(made, fed)
    for name, output in zip(outputs, made.outputs, strict=True):
        expected, found = (np.asarray(array, np.float64) for array in (there[name], here[output]))
        scale = max(float(np.linalg.norm(expected)), 1e-30)
        if found.shape != expected.shape or not float(np.linalg.norm(found - expected)) <= TOLERANCE * scale:
            raise SelfCheckError(f"{original.source}: the imported model gives another {name!r}; nothing was written")


def _of_known_extents(network: Network) -> Network:
    """With a number for each extent that a file leaves open, but for the batch."""
    fixed = {
        name: tuple(EXTENT if isinstance(dim, str) and axis != one.batch_axis else dim for axis, dim in enumerate(one.shape))
        for name, one in network.inputs.items()
    }
    return replace(network, inputs={name: replace(one, shape=fixed[name]) for name, one in network.inputs.items()})


def _samples(network: Network) -> int:
    sizes = (declared.samples for declared in network.inputs.values())
    return next((size for size in sizes if isinstance(size, int)), SAMPLES)


def _run(network: Network, feeds: Mapping[str, Array]) -> dict[str, Array]:
    session = Session(check(inference(network)), "cpu")
    needed = set(session.required)
    return session.run(None, {name: array for name, array in feeds.items() if name in needed})
