"""An ONNX file made of known layers -> a readable YAML model and its weights.

    classifier.onnx -- graph.load --> Network -- layers --> Stack -- folding, writing --> model.yaml, model.safetensors

What is imported is what the file computes: its layers, wires and weights, and a loss if it is one of the language's. How it was
drawn and what it is fed with a file does not say. Where a node is like no layer, all such nodes are named at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vgcompile.errors import ModelError, SpecError
from vgcompile.graph.load import load
from vgcompile.graph.network import Input, Network
from vgcompile.importing.comparison import require_equal
from vgcompile.importing.composing import composed
from vgcompile.importing.layers import Stack, read_layers
from vgcompile.importing.losses import added_loss, stated_loss
from vgcompile.importing.trial import Array
from vgcompile.importing.writing import written


@dataclass(frozen=True)
class Imported:
    """``text`` is a YAML model; ``weights`` its parameters and running statistics, by their full names; ``notes`` what was left
    out."""

    name: str
    text: str
    weights: Mapping[str, Array]
    notes: tuple[str, ...]


def imported(path: str | Path, *, name: str | None = None, weights_file: str | None = None, loss: str | None = None) -> Imported:
    """Read an ONNX file as a model called ``name`` (the file's own name) that takes its weights from ``weights_file``. A file
    without a loss gets one of the kind ``loss`` (losses.ADDED), with a target as a further input.

    Raises ModelError for what the language has no layers for, SelfCheckError where what was made computes something else.
    """
    network = load(path)
    stack = composed(read_layers(network))
    network = replace(network, inputs={name: _counted(declared, stack) for name, declared in network.inputs.items()})
    stated = stated_loss(network) if loss is None else added_loss(network, loss)
    model = written(network, stack, name or network.name, weights_file, stated)
    alone = written(network, stack, model.name, None, stated)  # its weights are in no file yet
    try:
        require_equal(network, stack.names(network), alone.text, model.weights)
    except SpecError as error:
        raise ModelError(f"{path}: its layers are known, but do not make a model of the language:\n{error}") from None
    return Imported(model.name, model.text, model.weights, (*network.notes, *model.notes, *_more(network, model.weights)))


def _more(network: Network, weights: Mapping[str, Array]) -> list[str]:
    """A note where the model learns more numbers than the file holds: biases it lacks, tensors that it holds once for several."""
    held = network.model.graph.initializers
    tensors = [tensor for name in network.parameters if (tensor := held[name].const_value) is not None]
    there = sum(tensor.size for tensor in tensors)
    here = sum(array.size for name, array in weights.items() if not name.rpartition("/")[2].startswith("running_"))
    return (
        [f"the model has {here:,} parameters, the file {there:,}: biases that it lacks, tensors merged"] if here > there else []
    )


def _counted(declared: Input, stack: Stack) -> Input:
    """An input with the number of its classes."""
    known = declared.classes or stack.classes(declared.name)
    return replace(declared, classes=known) if known and declared.dtype.is_integer() else declared
