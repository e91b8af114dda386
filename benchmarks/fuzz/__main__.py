"""``python -m benchmarks.fuzz``: cases judged in worker processes, with progress on stderr and a summary on stdout."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.conformance.workers import spread
from benchmarks.fuzz.cases import case
from benchmarks.fuzz.judging import Tally, fuzz
from vgcompile.layers import LAYERS

CHUNK = 100
PATIENCE = (
    600.0  # seconds of the clock for a chunk that takes one of an idle processor: one that is stuck where no signal reaches it
)
REPORTED = 15.0  # seconds between two lines of progress


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge mutated models.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case; the others follow")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for cases that fail")
    given = parser.parse_args()
    begun = time.monotonic()
    tally, reported = Tally(), begun
    for chunk in _chunks(given.seed, given.count, given.workers):
        tally.add(chunk)
        for seed, reason in chunk.failures.items():
            _keep(given.keep, seed, reason)
        if time.monotonic() - reported > REPORTED:
            reported = time.monotonic()
            print(_progress(tally, given.count, reported - begun), file=sys.stderr, flush=True)
    _summarize(tally, given.seed, time.monotonic() - begun)
    sys.exit(bool(tally.failures))


def _chunks(first: int, count: int, workers: int) -> Iterator[Tally]:
    chunks = [range(begin, min(begin + CHUNK, first + count)) for begin in range(first, first + count, CHUNK)]

    def lost(index: int, why: str) -> Tally:
        seeds = chunks[index]
        return Tally(files=len(seeds), failures={seeds[0]: f"{why}, at one of {seeds[0]} ... {seeds[-1]}"})

    for _, tally in spread(lambda index: fuzz(chunks[index]), len(chunks), workers, PATIENCE, lost):
        yield tally


def _keep(folder: Path, seed: int, reason: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seed}.txt").write_text(f"{reason}\n\n{case(seed)}", errors="surrogateescape")
    print(f"{seed}: {reason}", flush=True)


def _progress(tally: Tally, count: int, seconds: float) -> str:
    rate = tally.files / seconds
    left = (count - tally.files) / rate / 60
    return f"{tally.files:,} of {count:,}, {rate:.0f} a second, {left:.1f} min left, {len(tally.failures)} failures"


def _summarize(tally: Tally, first: int, seconds: float) -> None:
    print("said      ", ", ".join(f"{code} {number}" for code, number in tally.said.most_common()))
    parts = [f"{name} {number}" for name, number in tally.read.most_common() if not name.startswith("kind ")]
    print("read well ", ", ".join(parts))
    never = [kind for kind in LAYERS if f"kind {kind}" not in tally.read]
    print(f"layers     {len(LAYERS) - len(never)} of {len(LAYERS)} kinds" + (f", none of {', '.join(never)}" if never else ""))
    print(
        f"{tally.files} cases from {first} on in {seconds:.0f} s: {len(tally.failures)} failures, "
        f"slowest {tally.slowest:.2f} s of the processor, peak {tally.peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
