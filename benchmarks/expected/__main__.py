"""The expected tier against measurement.

    python -m benchmarks.expected [--quick] [--only NAME ...] [--seeds 64] [--spread-seeds 512]

Prints, for each net, the median and the largest error of the local factors of activations' edges, and the error of the total from
the last hidden layer to the first; for recurrences the error of a step and of all of them; the spread at batch 1, 8 and 64; and
what 1,000 layers cost. Exits with 1 where a stated tolerance is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.expected.cases import NETS, SPREAD, Net, dense
from benchmarks.expected.measuring import opened, sample
from benchmarks.expected.stepping import steps
from vgcompile.analysis.expected import expected
from vgcompile.signal import Signal

EDGE, TOTAL, STEP, WHOLE, SD = 0.02, 0.10, 0.02, 1.5, 0.15
BATCHES = (1, 8, 64)


@dataclass(frozen=True)
class Row:
    """What is printed of one net, and whether it is within its tolerances."""

    cells: tuple[str, ...]
    kept: bool


def chain(net: Net, seeds: int) -> Row:
    found = sample(net.text, net.batch, seeds)
    errors = np.array([found.local_error(use) for use in found.activations])
    predicted, measured, doubt = found.ends()
    total = 10.0 ** (predicted - float(measured.mean())) - 1.0
    edge = float(np.median(errors))
    kept = bool(doubt) if not net.stable else not doubt and edge <= EDGE and abs(total) <= TOTAL
    sizes = f"{10.0**predicted:.4g}", f"{10.0 ** measured.mean():.4g}"
    return Row((net.name, f"{edge:.2%}", f"{errors.max():.1%}", *sizes, f"{total:+.1%}", doubt), kept)


def recurrence(net: Net, seeds: int) -> Row:
    found = steps(net.text, net.batch, seeds)
    inside = found.per_step <= STEP and 1.0 / WHOLE <= found.total <= WHOLE
    kept = bool(found.doubt) if not net.stable else inside and not found.doubt
    sizes = f"{10.0 ** found.predicted[0]:.4g}", f"{10.0 ** found.measured[0]:.4g}"
    return Row((net.name, f"{found.per_step:.2%}", "", *sizes, f"x{found.total:.2f}", found.doubt), kept)


def spread(name: str, text: str, batch: int, seeds: int) -> Row:
    found = sample(text, batch, seeds)
    mean, sd, logs = found.input_gain()
    measured = float(logs.std(ddof=1))
    cells = (name, str(batch), f"{mean:.4f}", f"{logs.mean():.4f}", f"{sd:.4f}", f"{measured:.4f}", f"{sd / measured - 1.0:+.1%}")
    return Row(cells, abs(sd / measured - 1.0) <= SD)


def speed() -> str:
    """Seconds for 1,000 layers of 256, the best of three."""
    network, times = opened(dense("deep", 1000, "tanh", 1.0)), []
    for _ in range(3):
        start = time.perf_counter()
        expected(network, 64, {"x": Signal(0.0, 1.0, 0.0, 0.0, 1.0 / 256.0)})
        times.append(time.perf_counter() - start)
    return f"1,000 layers of 256, predicted in {min(times):.2f} s"


def show(console: Console, title: str, heads: Sequence[str], rows: Sequence[Row]) -> None:
    table = Table(*heads, "", title=title)
    for row in rows:
        table.add_row(*row.cells, "" if row.kept else "missed")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 seeds, and 64 for the spread at batch 8 alone")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--spread-seeds", type=int, default=512)
    parser.add_argument("--only", nargs="*", default=[], help="names of nets, `spread`, `speed`")
    given = parser.parse_args()
    seeds, many = (8, 64) if given.quick else (given.seeds, given.spread_seeds)
    console, rows = Console(width=200), []
    wanted = [net for net in NETS if not given.only or net.name in given.only]
    for net in wanted:
        console.print(f"[dim]{net.name}[/dim]")
        rows.append(recurrence(net, seeds) if net.recurrent else chain(net, seeds))
    if rows:
        heads = ("net", "factor, median", "largest", "predicted", "measured", "total", "doubt")
        show(console, f"Gains, {seeds} initializations", heads, rows)
    if not given.only or "spread" in given.only:
        batches = (8,) if given.quick else BATCHES
        spreads = [spread(name, text, batch, many) for name, text in SPREAD.items() for batch in batches]
        heads = ("net", "batch", "predicted", "measured", "sd predicted", "sd measured", "error")
        show(console, f"Spread of the log gain to the input, {many} initializations", heads, spreads)
        rows += spreads
    if not given.only or "speed" in given.only:
        console.print(speed())
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
