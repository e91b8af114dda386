"""A network with the weights of a file: what training has made of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from vgcompile.errors import UserError
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import PREFIX
from vgcompile.graph.tensors import made_when_read
from vgcompile.graph.weights import matched, numbers, open_weights


def with_weights(network: Network, path: str | Path) -> Network:
    """The same network with parameters, and running statistics where it holds some, from a ``.npz``, ``.safetensors`` or
    ``.onnx`` file, by their names, ``.`` for ``/``. Tensors of other names are passed over: optimizers keep theirs there too.

    Raises UserError for a file that cannot be read, lacks a parameter, or holds one of another shape.
    """
    path, model = Path(path), network.model.clone()
    held = {name: value for name, value in model.graph.initializers.items() if is_real(value) and value.shape is not None}
    shapes = {name: tuple(int(extent) for extent in dims(value)) for name, value in held.items()}
    stored = open_weights(path)
    missing = matched(stored, {name: shapes[name] for name in network.parameters}, {}, (), strict=True)
    found = matched(stored, shapes, {}, (), strict=False)
    absent = [name for name in network.parameters if name not in found.tensors]
    flaws = [*found.flaws, *(missing.flaws[:1] if absent else ())]
    if flaws:
        raise UserError("\n".join(f"{path}: {flaw.message}" for flaw in flaws))
    for name, tensor in found.tensors.items():
        value = held[name]
        read = partial(numbers, tensor, f"{path}: the tensor for {name!r}")
        value.const_value = made_when_read(read, shapes[name], name)
        value.metadata_props.pop(PREFIX + "initial", None)
    return replace(network, model=model)
