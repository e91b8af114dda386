"""The founding story, trained: plain SGD over NAME.grad.onnx, the deep sigmoid net against each of the three known fixes.

    python benchmarks/founding_story.py [--steps 1500] [--out out/founding_story]

Each net sees the same batches of the digits in the same order. What is printed: accuracy on 297 held-out digits, the loss, and
how far the first hidden layer's weights moved from where they started, against how far the last hidden layer's did.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

import vgcompile
from vgcompile.analysis.uses import parameter_layers
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent
HELD_OUT = 297
# Each net with the learning rate that served it best of 0.003, 0.01, 0.03, 0.1, 0.3 and 1.0.
CONTESTANTS = {"deep_sigmoid": 0.3, "deep_relu": 0.03, "deep_residual": 1.0, "deep_batchnorm": 0.03}


@dataclass(frozen=True)
class Run:
    """One net's training: losses by step, and at the end the accuracy and the movement ||W - W0|| / ||W0|| of two layers."""

    model: str
    rate: float
    losses: list[float]
    accuracy: float
    first: float
    last: float


def train(name: str, rate: float, steps: int, batch: int = 64) -> Run:
    """Plain SGD: feed parameters, read gradients, subtract."""
    network = vgcompile.open_network(ROOT / "models" / f"{name}.yaml")
    session = vgcompile.Session(vgcompile.compile_network(network).gradient)
    parameters = network.parameter_values()
    start = {key: array.copy() for key, array in parameters.items()}
    x, y = digits(network)
    losses = []
    for rows in track(batches(len(x) - HELD_OUT, batch, steps), name, total=steps):
        results = session.run(None, {**inputs(network, x[rows], y[rows]), **parameters})
        losses.append(float(results[network.loss]))
        for key in parameters:
            parameters[key] = parameters[key] - np.float32(rate) * results[f"grad.{key}"]
    results = session.run(None, {**inputs(network, x[-HELD_OUT:], y[-HELD_OUT:]), **parameters})
    accuracy = float((results[network.outputs[0]].argmax(axis=1) == y[-HELD_OUT:]).mean())
    hidden = [layer for layer in parameter_layers(network) if layer.linear][:-1]
    moved = [movement(start, parameters, [weight.name for weight in layer.weights]) for layer in hidden]
    return Run(name, rate, losses, accuracy, moved[0], moved[-1])


def digits(network: Network) -> tuple[Array, Array]:
    """The network's own data, shuffled once, the same way for every net."""
    assert network.data is not None
    with np.load(ROOT / "models" / network.data.path) as arrays:
        x, y = (arrays[network.data.arrays[declared.name]] for declared in network.inputs.values())
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order]


def inputs(network: Network, x: Array, y: Array) -> dict[str, Array]:
    return dict(zip(network.inputs, (x, y), strict=True))


def batches(rows: int, size: int, steps: int) -> Iterator[Array]:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield rng.integers(0, rows, size)


def movement(start: Mapping[str, Array], end: Mapping[str, Array], names: list[str]) -> float:
    moved = sum(float(((end[name] - start[name]) ** 2).sum()) for name in names)
    return float(np.sqrt(moved / sum(float((start[name] ** 2).sum()) for name in names)))


def table(runs: list[Run]) -> str:
    lines = [
        "| model | rate | final loss | held-out accuracy | first hidden layer moved | last hidden layer moved |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        loss = float(np.mean(run.losses[-50:]))
        lines.append(
            f"| {run.model} | {run.rate:g} | {loss:.3f} | {100 * run.accuracy:.1f} % | {run.first:.2e} | {run.last:.2e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "founding_story")
    parser.add_argument("--rates", type=float, nargs="*", help="try these learning rates for every net instead")
    options = parser.parse_args()
    plan = [(name, rate) for name, best in CONTESTANTS.items() for rate in (options.rates or [best])]
    runs = [train(name, rate, options.steps) for name, rate in plan]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "runs.json").write_text(json.dumps([run.__dict__ for run in runs], indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
