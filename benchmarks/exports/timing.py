"""CPU seconds that a joint graph takes to make, by stage and by number of nodes, each in a fresh process.

Processor time of the process (user and system), not the clock's: the machine may be shared.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

STAGES = ("normalize", "differentiate", "lower", "optimize", "check", "serialize")


def table(kinds: Sequence[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    print(f"{'kind':12}{'forward':>8}{'joint':>8}{'total s':>9}{'ms/node':>9}" + "".join(f"{stage:>15}" for stage in STAGES))
    found = []
    for kind in kinds:
        for count in counts:
            program = [sys.executable, "-m", "benchmarks.exports.timing", kind, str(count)]
            row = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            found.append(row)
            stages = "".join(f"{row['stages'].get(stage, 0.0):>15.2f}" for stage in STAGES)
            rate = 1e3 * row["total"] / row["forward"]
            print(f"{kind:12}{row['forward']:>8}{row['joint']:>8}{row['total']:>9.2f}{rate:>9.2f}{stages}", flush=True)
    return found


def measure(kind: str, count: int, profile: bool = False) -> dict[str, Any]:
    """One model, by stage."""
    from benchmarks.exports.synthetic import synthetic
    from vgcompile import derivatives
    from vgcompile.graph.skeleton import Outline
    from vgcompile.passes import gradient

    derivatives.grad(synthetic(kind, 30))  # what is imported late, and caches that a first call fills
    model = synthetic(kind, count)
    spent: dict[str, float] = {}
    places = (
        (derivatives, "normalized"),
        (gradient, "differentiate"),
        (gradient, "lower"),
        (gradient, "optimize"),
        (derivatives, "verified"),
        (Outline, "whole"),
    )
    with _watched(dict(zip(STAGES, places, strict=True)), spent):
        profiler = cProfile.Profile()
        start = time.process_time()
        joint = profiler.runcall(derivatives.grad, model) if profile else derivatives.grad(model)
        total = time.process_time() - start
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats(sys.argv[4] if len(sys.argv) > 4 else "cumulative").print_stats(70)
    return {"kind": kind, "forward": len(model.graph.node), "joint": len(joint.graph.node), "total": total, "stages": spent}


@contextmanager
def _watched(places: dict[str, tuple[Any, str]], spent: dict[str, float]) -> Iterator[None]:
    """Within it, each function adds to ``spent`` what it takes."""
    kept = {stage: getattr(module, name) for stage, (module, name) in places.items()}

    def timed(stage: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return kept[stage](*given, **named)
            finally:
                spent[stage] = spent.get(stage, 0.0) + time.process_time() - start

        return call

    for stage, (module, name) in places.items():
        setattr(module, name, timed(stage))
    try:
        yield
    finally:
        for stage, (module, name) in places.items():
            setattr(module, name, kept[stage])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), "--profile" in sys.argv)))
