"""Networks and analyses made by hand for the pictures' tests: every operator multiplies the gradient by a stated factor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.result import (
    Activation,
    Analysis,
    Edge,
    Expected,
    Layer,
    Mismatch,
    Path,
    SelfCheck,
    Sound,
    Step,
    Tiers,
    Verdict,
)
from vgcompile.analysis.uses import parameter_layers, uses
from vgcompile.graph.emit import Emitter
from vgcompile.graph.network import Input, Network

FACTORS = {"Sigmoid": -0.55, "Tanh": -0.1, "Relu": -0.15, "Gemm": 0.0, "Add": 0.0, "Softplus": 0.35}
WIDTH = 100
TEN = math.log(10.0)


class Sketch:
    """A network under construction: layers of one scope each, with a YAML line for each."""

    def __init__(self, name: str) -> None:
        self.name, self.graph = name, ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=name)
        self.op, self.lines, self.parameters = Emitter(self.graph), [f"name: {name}", "layers:"], []
        self.inputs: dict[str, Input] = {}

    def input(self, name: str, *shape: int | str, role: str = "input") -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        self.graph.inputs.append(value)
        self.inputs[name] = Input(name, shape, ir.DataType.FLOAT, (0.0, 1.0), role=role)
        return value

    def layer(self, name: str, kind: str, x: ir.Value, *more: ir.Value, units: int = WIDTH, activation: str = "") -> ir.Value:
        self.lines.append(f"  - {{kind: {kind}, name: {name}}}")
        with self.op.scope(name, layer=name, kind=kind, source=f"models/{self.name}.yaml:{len(self.lines)}:5") as op:
            if kind == "dense":
                x = op.Gemm(x, self._parameter(f"{name}/weight", int(x.shape[1]), units), self._parameter(f"{name}/bias", units))
            elif kind == "add":
                x = op.Add(x, *more)
            elif kind == "mse":
                x = op.ReduceMean(op.Mul(error := op.Sub(x, *more), error), keepdims=0)
            return op.emit(activation, x) if activation else x

    def _parameter(self, name: str, *shape: int) -> ir.Value:
        self.parameters.append(name)
        value = self.op.constant(np.zeros(shape, np.float32), name)
        self.graph.inputs.append(value)
        return value

    def network(self, output: ir.Value) -> Network:
        target = self.input("target", "batch", *list(output.shape)[1:], role="target")
        loss = self.layer("loss", "mse", output, target)
        self.graph.outputs.append(loss)
        text = "\n".join(self.lines) + "\n"
        return Network(
            self.name,
            f"models/{self.name}.yaml",
            ir.Model(self.graph, ir_version=10),
            self.inputs,
            (output.name,),
            loss.name,
            parameters=tuple(self.parameters),
            text=text,
        )


def chain(depth: int, activation: str = "Sigmoid", apart: bool = False) -> Network:
    """``depth`` hidden layers; ``apart``: each activation is a layer of its own."""
    sketch = Sketch(f"{activation.lower()}_{depth}")
    x = sketch.input("x", "batch", 784)
    for copy in range(1, depth + 1):
        x = sketch.layer(f"hidden/{copy}/dense", "dense", x, activation="" if apart else activation)
        if apart:
            x = sketch.layer(f"hidden/{copy}/{activation.lower()}", activation.lower(), x, activation=activation)
    return sketch.network(sketch.layer("head", "dense", x, units=10))


def residual(depth: int, activation: str = "Sigmoid") -> Network:
    """``depth`` residual blocks: two dense layers, and the input added to what they give."""
    sketch = Sketch(f"residual_{depth}")
    x = sketch.layer("stem", "dense", sketch.input("x", "batch", 784))
    for copy in range(1, depth + 1):
        y = sketch.layer(f"block/{copy}/dense", "dense", x, activation=activation)
        y = sketch.layer(f"block/{copy}/dense2", "dense", y, activation=activation)
        x = sketch.layer(f"block/{copy}/add", "add", x, y)
    return sketch.network(sketch.layer("head", "dense", x, units=10))


def analysis(network: Network, factors: Mapping[str, float] = FACTORS) -> Analysis:
    """What an analysis might say of a network whose operators multiply the gradient by ``factors`` (log10; 0 where absent)."""
    logs: defaultdict[str, float] = defaultdict(lambda: -math.inf, dict.fromkeys(network.outputs, 0.0))
    gains: dict[str, float] = {}
    every = uses(network)
    for use in reversed(every):
        if network.loss == use.node.outputs[0].name or use.layer == "loss":
            gains[use.id] = 0.0
            continue
        gains[use.id] = logs[use.node.outputs[0].name] + factors.get(use.node.op_type, 0.0)
        logs[use.value.name] = 0.5 * float(np.logaddexp(2 * TEN * logs[use.value.name], 2 * TEN * gains[use.id])) / TEN
    edges = tuple(
        Edge(
            use.id,
            use.source,
            use.node.name,
            use.value.name,
            use.layer,
            use.role,
            use.shape,
            use.line,
            Tiers(),
            tiers(gains[use.id]),
        )
        for use in every
    )
    held = parameter_layers(network)
    totals = {layer.name: logs[layer.value.name] for layer in held}
    reference = totals[held[-2].name]
    layers = tuple(
        Layer(
            layer.name,
            layer.kind,
            layer.line,
            layer.value.name,
            tiers(totals[layer.name]),
            tiers(totals[layer.name] - reference),
            Tiers(measured=totals[layer.name] - 2.0),
            verdict(totals[layer.name] - reference),
        )
        for layer in held
    )
    worst = max(layers, key=lambda layer: abs(layer.relative.measured))
    steps = tuple(Step(edge.id, edge.layer, edge.line, -0.5, 0.0) for edge in reversed(edges) if edge.role == "activation")[:12]
    path = Path(steps, worst.gain.measured, "measured")
    found = Verdict(worst.verdict.kind, "observed", path, worst.verdict.why)
    checked = SelfCheck((), (Mismatch(edges[0].id, "measured -3.1, predicted -2.4 +- 0.1"),))
    bends = [node for node in network.model.graph if node.op_type in ("Sigmoid", "Tanh", "Relu", "Softplus")]
    watched = tuple(histogram(bends[place], place) for place in sorted({0, len(bends) // 2, len(bends) - 1})) if bends else ()
    provenance = {"vgcompile": "0", "seed": 0, "batch": 64, "mode": "training", "loss": network.loss}
    return Analysis(
        network.name, network.source, "range: x in [0, 1]", edges, layers, watched, found, worst.name, checked, provenance
    )


def tiers(log: float) -> Tiers:
    return Tiers(Sound(log * 1.4 - 1.0, log * 0.6 + 1.5, log < -12), Expected(log - 0.1, 0.1 + abs(log) / 100, "high"), log)


def verdict(relative: float) -> Verdict:
    kind = "vanishing" if relative < -3 else "exploding" if relative > 3 else "healthy"
    return Verdict(kind, "observed", None, f"10^{relative:.2f} of the gradient at the last hidden layer")


def histogram(node: ir.Node, place: int) -> Activation:
    bins = np.linspace(-4, 4, 41)
    mean, sd = (0.3, 1.5 - place * 0.01)
    counts = (1000 * np.exp(-0.5 * ((bins[:-1] + 0.1 - mean) / sd) ** 2)).astype(int)
    layer = node.metadata_props["vgcompile.layer"]
    return Activation(node.name, layer, node.op_type, {}, (tuple(bins.tolist()), tuple(counts.tolist())), mean, sd)
