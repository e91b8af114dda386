"""One training step's gradient, side by side: NAME.grad.onnx, onnx-ad's adjoint of the same graph, and PyTorch's autograd.

    python -m benchmarks.peers [--models deep_sigmoid lenet] [--batch 64] [--rounds 20] [--out out/peers.json]

All three get the same parameters and the same batch on the same number of threads, and differentiate the loss by every parameter.
Printed are the nodes of the file, the milliseconds of a step (the least of all rounds: what the machine can do), and the worst
parameter's difference from PyTorch in float64, relative to that parameter's gradient. Not measured: compile time, memory, GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ad
import onnx_ir as ir
import torch
from onnx_ir.passes import common

import vgcompile
from tests import torch_oracle
from vgcompile.graph.network import Network
from vgcompile.passes.gradient import named_values
from vgcompile.runtime.data import batch as read_batch

Array = np.ndarray[Any, Any]
Step = Callable[[], Mapping[str, Array]]
ROOT = Path(__file__).parent.parent
MODELS = ("deep_sigmoid", "deep_relu", "deep_residual", "lenet", "resnet20")


@dataclass(frozen=True)
class Row:
    model: str
    tool: str
    nodes: int | None = None
    milliseconds: float | None = None
    difference: float | None = None
    refused: str = ""


def rows(name: str, size: int, rounds: int, threads: int) -> list[Row]:
    """What the three tools do with one model."""
    network = vgcompile.open_network(ROOT / "models" / f"{name}.yaml")
    feeds, parameters = read_batch(network, size=size, seed=0), network.parameter_values()
    _, truth = torch_oracle.gradients(network, feeds, parameters, torch.float64)
    found = []
    for tool, prepare in (("vgcompile", _ours), ("onnx-ad", _onnx_ad), ("PyTorch", _torch)):
        try:
            nodes, step = prepare(network, feeds, parameters, threads)
        except onnx_ad.UnsupportedOperator as refused:
            found.append(Row(name, tool, refused=str(refused)))
            continue
        found.append(Row(name, tool, nodes, _milliseconds(step, rounds), _difference(step(), truth)))
    return found


def _ours(network: Network, feeds: Mapping[str, Array], parameters: Mapping[str, Array], threads: int) -> tuple[int | None, Step]:
    model = vgcompile.compile_network(network).gradient
    session = vgcompile.Session(model, provider="cpu", threads=threads)
    names = [f"grad.{name}" for name in parameters]
    return len(model.graph.node), lambda: {name[5:]: array for name, array in session.run(names, feeds).items()}


def _onnx_ad(
    network: Network, feeds: Mapping[str, Array], parameters: Mapping[str, Array], threads: int
) -> tuple[int | None, Step]:
    """It wants every shape as a number, parameters as plain inputs and the loss as a tensor of one axis."""
    model = network.model.clone()
    values = named_values(model)
    model.graph.outputs[:] = [values[network.loss]]
    for value in model.graph.inputs:
        value.shape = ir.Shape({**feeds, **parameters}[value.name].shape)
    common.RemoveInitializersFromInputsPass()(model)
    for name in parameters:
        model.graph.initializers.pop(name, None)
        model.graph.inputs.append(values[name])
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    joint = onnx_ad.reverse(proto, layout="onnx")
    session = vgcompile.Session(joint, provider="cpu", threads=threads)
    given = {**feeds, **parameters, f"adj_{network.loss}": np.ones((1,), np.float32)}
    known = {name: array for name, array in given.items() if name in session.required}
    outputs = [f"adj_{name}" for name in parameters]
    return len(joint.graph.node), lambda: {name[4:]: array[..., 0] for name, array in session.run(outputs, known).items()}


def _torch(
    network: Network, feeds: Mapping[str, Array], parameters: Mapping[str, Array], threads: int
) -> tuple[int | None, Step]:
    torch.set_num_threads(threads)
    return None, lambda: torch_oracle.gradients(network, feeds, parameters, torch.float32)[1]


def _milliseconds(step: Step, rounds: int) -> float:
    least = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        least = min(least, time.perf_counter() - start)
    return 1000.0 * least


def _difference(found: Mapping[str, Array], truth: Mapping[str, Array]) -> float:
    return max(float(np.abs(found[name] - g).max() / max(np.abs(g).max(), 1e-30)) for name, g in truth.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/peers.json"))
    given = parser.parse_args()
    found = []
    print(f"{'model':16}{'tool':12}{'nodes':>7}{'ms':>10}{'difference':>12}")
    for name in given.models:
        for row in rows(name, given.batch, given.rounds, given.threads):
            found.append(asdict(row))
            numbers = (
                f"{row.nodes or '':>7}{row.milliseconds:>10.2f}{row.difference:>12.1e}" if not row.refused else f"  {row.refused}"
            )
            print(f"{row.model:16}{row.tool:12}{numbers}", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
