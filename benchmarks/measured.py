"""What measuring costs: the instrumented graph against a plain forward and backward of the same network, side by side.

    python -m benchmarks.measured [--nets wide deep] [--rounds 15] [--threads N] [--clock wall|cpu] [--out out/measured.json]

All graphs of a network get the same batch, bound once, in one process, and run in turn. The plain one gives out every gradient
that the instrumented ones compute (parameters and real inputs). Printed are the nodes of the plain graph, the time of its median
node by ONNX Runtime's own profile, its own time, and what each form of measuring adds: the median over the rounds of the ratio to
the plain run beside it, less 1. ``double`` is what squares cost when each adjoint is cast to double first. On a machine that
others use as well, the processor's time tells more than the clock (``--threads 1 --clock cpu``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

import vgcompile
from vgcompile import spec
from vgcompile.analysis.instrument import EXACT, QUICK, instrument
from vgcompile.analysis.measured import extents
from vgcompile.build import build
from vgcompile.graph.emit import is_real
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import joint
from vgcompile.runtime.data import batch as read_batch

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent
CHAIN = """
name: chain
inputs:
  x: {{shape: [batch, {width}], range: [0, 1]}}
  label: {{shape: [batch], type: int64, classes: 10}}
init: {{weight: he_normal, bias: zeros}}
layers:
  - {{kind: block, name: hidden, repeat: {depth}, layers: [{{kind: dense, units: {width}, activation: {activation}}}]}}
  - {{kind: dense, name: logits, units: 10}}
loss: {{kind: cross_entropy, input: logits, target: label}}
"""


def chain(depth: int, width: int, activation: str) -> Network:
    return build(spec.loads(CHAIN.format(depth=depth, width=width, activation=activation)))


def model(name: str, *settings: str) -> Network:
    return vgcompile.open_network(ROOT / "models" / f"{name}.yaml", settings=settings)


NETS: Mapping[str, tuple[str, int, Callable[[], Network]]] = {
    "deep": ("50 layers of 64, sigmoid", 64, lambda: chain(50, 64, "sigmoid")),
    "wide": ("10 layers of 512, sigmoid", 512, lambda: chain(10, 512, "sigmoid")),
    "relu": ("10 layers of 1024, ReLU", 512, lambda: chain(10, 1024, "relu")),
    "resnet20": ("resnet20", 64, lambda: model("resnet20")),
    "transformer": ("transformer_prenorm, 4 blocks", 16, lambda: model("transformer_prenorm", "depth=4")),
}


@dataclass(frozen=True)
class Row:
    """``added`` maps a form of measuring to the share of the plain time that it adds."""

    net: str
    batch: int
    nodes: int
    median_node_us: float
    plain_ms: float
    added: Mapping[str, float]


def row(name: str, rounds: int, threads: int, clock: Callable[[], float]) -> Row:
    title, size, opened = NETS[name]
    network = opened()
    feeds = read_batch(network, size=size, seed=0)
    known = extents(network, feeds)
    wanted = [str(value.name) for value in network.model.graph.inputs if is_real(value)]
    assert network.loss is not None
    graphs = {
        "plain": joint(network.model.clone(), [network.loss], wanted, [network.loss]),
        "squares": instrument(network, (), QUICK["squares"], known).model,
        "all": instrument(network, (), QUICK["all"], known).model,
        "double": instrument(network, (), EXACT["squares"], known).model,
    }
    node = _median_node(graphs["plain"], feeds, threads)
    runs = {form: _bound(graph, feeds, threads) for form, graph in graphs.items()}
    seconds: dict[str, list[float]] = {form: [] for form in runs}
    for count in range(rounds + 1):
        for form, run in runs.items():
            start = clock()
            run()
            if count:  # the first round makes ready
                seconds[form].append(clock() - start)
    plain = seconds["plain"]
    added = {
        form: median(t / beside for t, beside in zip(times, plain, strict=True)) - 1
        for form, times in seconds.items()
        if form != "plain"
    }
    return Row(title, size, len(graphs["plain"].graph), 1e6 * node, 1e3 * median(plain), added)


def _session(graph: ir.Model, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(check(graph).SerializeToString(), options, ["CPUExecutionProvider"])


def _bound(graph: ir.Model, feeds: Mapping[str, Array], threads: int) -> Callable[[], None]:
    """A run without copies: what goes in is bound, what comes out stays where it is."""
    session = _session(graph, threads)
    binding = session.io_binding()
    for given in session.get_inputs():
        binding.bind_cpu_input(given.name, feeds[given.name])
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def _median_node(graph: ir.Model, feeds: Mapping[str, Array], threads: int) -> float:
    """Seconds that the median node takes, each at its best of a few runs."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(graph, threads, str(Path(folder) / "profile"))
        names = {given.name for given in session.get_inputs()}
        for _ in range(4):
            session.run(None, {name: array for name, array in feeds.items() if name in names})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(1e-6 * event["dur"])
    return median(min(found) for found in times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: as ONNX Runtime has it")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--out", type=Path, default=Path("out/measured.json"))
    given = parser.parse_args()
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    found = []
    print("| net | batch | nodes | median node (us) | plain (ms) | squares | all four | squares in double |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.nets:
        one = row(name, given.rounds, given.threads, clock)
        found.append(asdict(one))
        added = " | ".join(f"{one.added[form]:+.0%}" for form in ("squares", "all", "double"))
        print(f"| {one.net} | {one.batch} | {one.nodes} | {one.median_node_us:.0f} | {one.plain_ms:.1f} | {added} |", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"threads": given.threads, "clock": given.clock, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
