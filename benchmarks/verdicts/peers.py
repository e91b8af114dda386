"""Four nets of 20 layers of 16 units, and what each preset says of them.

onnxsim's grad_health (0.8.1), the one other checker of gradients in ONNX graphs that we know of, was tried on them before; what
it said, in float32, stands in the last column.
"""

from __future__ import annotations

from dataclasses import dataclass

import vgcompile
from vgcompile.analysis import Options
from vgcompile.analysis.presets import PRESETS
from vgcompile.build import build
from vgcompile.graph.network import Network
from vgcompile.spec import loads

MODEL = """
name: {name}
inputs: {{x: {{shape: [batch, 16]}}, t: {{shape: [batch, 16]}}}}
init: {{weight: {{kind: normal, sd: {sd}}}}}
layers:
  - {{kind: block, name: hidden, repeat: 19, layers: [{{kind: dense, units: 16, activation: {activation}}}]}}
  - {{kind: dense, name: out, units: 16, activation: {activation}}}
loss: {{kind: mse, target: t}}
"""


@dataclass(frozen=True)
class Net:
    activation: str
    sd: float
    right: str  # the verdict that it should get
    published: str  # grad_health's, in float32

    @property
    def name(self) -> str:
        return f"{self.activation} {self.sd:g}"

    def network(self) -> Network:
        name = f"{self.activation}_{self.sd:g}".replace(".", "_")
        return build(loads(MODEL.format(name=name, sd=self.sd, activation=self.activation), f"{name}.yaml"))


NETS = (
    Net("sigmoid", 0.02, "vanishing", "healthy"),
    Net("sigmoid", 0.25, "vanishing", "healthy"),
    Net("relu", 3.0, "exploding", "imprecise"),
    Net("tanh", 0.6, "healthy", "imprecise"),
)


def verdict(net: Net, preset: str) -> str:
    """The net's verdict and grade in a preset, from all tiers."""
    found = vgcompile.analyze(net.network(), Options(preset=preset, batch=32)).verdict
    return found.kind if preset != "default" else f"{found.kind} ({found.grade})"


def table() -> str:
    head = ["net, sd of a weight", "right", *PRESETS, "onnxsim grad_health"]
    rows = [[net.name, net.right, *(verdict(net, preset) for preset in PRESETS), net.published] for net in NETS]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    sources = [f"* {preset.name}: {preset.source}" for preset in PRESETS.values()]
    return "\n".join([*lines, "", *sources])
