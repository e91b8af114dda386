"""Time by depth: what each stage costs for a chain of dense layers, and per layer; and for whole models, all three tiers.

    python -m benchmarks.scale [--width 64] [--depths 1000 10000] [--no-measure] [--models resnet50 ...] [--batch 8]

Each stage runs once, after a net of ten layers has filled the caches; --no-measure leaves out the measured tier. A tier is
timed as an analysis of its own, `sound` with the drawing of weights. The seconds in brackets are the processor's, all threads
together, which another user's work disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import vgcompile
from vgcompile import spec
from vgcompile.analysis import Options
from vgcompile.build import build
from vgcompile.render import butterfly, diagram, engine

ROOT = Path(__file__).parent.parent
TEXT = """
name: chain
inputs:
  x: {{shape: [batch, 64], range: [0, 1]}}
  label: {{shape: [batch], type: int64, classes: 10}}
init: {{weight: lecun_normal, bias: zeros}}
layers:
  - {{kind: block, name: hidden, repeat: {depth}, layers: [{{kind: dense, units: {width}, activation: sigmoid}}]}}
  - {{kind: dense, name: logits, units: 10}}
loss: {{kind: cross_entropy, input: logits, target: label}}
"""


Seconds = tuple[float, float]  # by the clock and of the processor


def stages(depth: int, width: int, measure: bool) -> dict[str, Seconds]:
    """Seconds by stage."""
    seconds: dict[str, Seconds] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)
        return result

    network = timed("open", lambda: build(spec.loads(TEXT.format(depth=depth, width=width))))
    timed("compile", lambda: vgcompile.compile_network(network))  # type: ignore[arg-type]
    timed("expected", lambda: vgcompile.analyze(network, Options(tiers=("expected",))))  # type: ignore[arg-type]
    analysis = timed("sound", lambda: vgcompile.analyze(network, Options(tiers=("sound",))))  # type: ignore[arg-type]
    timed("draw forward", lambda: engine.layout(diagram.forward_dot(network, analysis), "svg", None))  # type: ignore[arg-type]
    timed("draw butterfly", lambda: engine.layout(butterfly.butterfly_dot(network, analysis), "svg", None))  # type: ignore[arg-type]
    if measure:
        timed("measured", lambda: vgcompile.analyze(network, Options(tiers=("measured",))))  # type: ignore[arg-type]
    return seconds


def whole(name: str, batch: int) -> dict[str, Seconds]:
    """Seconds by stage of one analysis of a model."""
    marks = [("open", time.perf_counter(), time.process_time())]

    def begin(stage: str) -> None:
        marks.append((stage, time.perf_counter(), time.process_time()))

    network = vgcompile.open_network(ROOT / "models" / f"{name}.yaml")
    begin("data")
    vgcompile.analyze(network, Options(batch=batch), begin)
    begin("end")
    return {stage: (after[1] - wall, after[2] - cpu) for (stage, wall, cpu), after in itertools.pairwise(marks)}


def print_models(names: Sequence[str], batch: int) -> None:
    print("| model | open | bounding | predicting | measuring and judging | together |")
    print("|---|---|---|---|---|---|")
    for name in names:
        seconds = whole(name, batch)
        shown = [seconds[stage] for stage in ("open", "bounding", "predicting", "measuring")]
        sums = tuple(map(sum, zip(*seconds.values(), strict=True)))
        print(f"| {name} | " + " | ".join(f"{wall:.1f} ({cpu:.1f})" for wall, cpu in (*shown, sums)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depths", type=int, nargs="*", default=[1000, 10000])
    parser.add_argument("--no-measure", dest="measure", action="store_false")
    parser.add_argument("--models", nargs="*", default=["resnet50", "transformer_prenorm"])
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    stages(10, options.width, options.measure)  # imports and caches
    if options.models:
        print_models(options.models, options.batch)
    if not options.depths:
        return
    found = {depth: stages(depth, options.width, options.measure) for depth in options.depths}
    print(
        "| stage | "
        + " | ".join(f"{depth:,} layers (s)" for depth in found)
        + " | "
        + " | ".join("ms a layer" for _ in found)
        + " |"
    )
    print("|---" * (1 + 2 * len(found)) + "|")
    for stage in next(iter(found.values())):
        times = [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in (seconds[stage] for seconds in found.values())]
        rates = [f"{1e3 * seconds[stage][0] / depth:.2f}" for depth, seconds in found.items()]
        print(f"| {stage} | " + " | ".join(times + rates) + " |")
    for depth, seconds in found.items():
        static = sum(wall for stage, (wall, _) in seconds.items() if stage != "measured")
        print(f"{depth:,} layers: open + compile + expected + sound + draw {static:.2f} s, {1e3 * static / depth:.2f} ms a layer")


if __name__ == "__main__":
    main()
