"""What a thousand layers cost."""

from __future__ import annotations

import time

from benchmarks.sound.nets import Net
from vgcompile.analysis.sound import sound


def report(width: int = 256, depth: int = 1000) -> str:
    """Seconds for bounds of every edge, building aside."""
    lines = []
    for activation in ("sigmoid", "relu"):
        network = Net(activation, width, depth).network()  # type: ignore[arg-type]
        for value in network.model.graph.initializers.values():
            if value.const_value is not None:
                value.const_value.numpy()  # drawn once, before the clock runs
        wall, cpu = time.perf_counter(), time.process_time()
        tier = sound(network, "everywhere")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        (x,) = [value for value in network.model.graph.inputs if value.name == "x"]
        cost = f"{wall:.1f} s ({cpu:.1f} s of CPU)"
        lines.append(f"{activation}: {depth} layers of {width}: {cost}, gain at the input below 10^{tier.total[x][1]:.1f}")
    return "\n".join(lines)
