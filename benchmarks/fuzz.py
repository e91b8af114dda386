"""Mutated models: whatever the text, the answer is a model or complaints, in time and in bounds.

    python -m benchmarks.fuzz --count 100000 --seed 0

Each file is a model of ``models/`` or a case of ``tests/cases/spec`` with a few mutations. It is read, linted and, up to 60
layers and 8 MB of weights, built; what is said of it is written in every format. All is done in one process. A failure is any
other exception, more than 2 s of the processor, or more than 500 MB of memory; failing texts are kept in a folder.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vgcompile import build as building
from vgcompile.build import build
from vgcompile.cli.formats import MACHINE
from vgcompile.cli.snippet import show
from vgcompile.errors import Complaint, SpecError
from vgcompile.spec import loads
from vgcompile.spec.lint import lint

ROOT = Path(__file__).parent.parent
LAYERS = 60
WEIGHTS = 2**23
SECONDS = 2.0
MEGABYTES = 500
LONGEST = 10_000
FILE = "mutated.yaml"

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
_ODD = (
    "", "\n", "\n\n", "\t", " ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int ", "!x ", "'", '"', "|\n", ">\n", "#",
    "---\n", "<<: *a", "%YAML 1.1\n", "? ", "null", "~", "no", "on", "yes", "true", ".nan", ".inf", "-.inf", "0x1F", "0o17",
    "010", "1_000", "12:30",
    "\x00", "\x85", "\u2028", "\ufeff", "é", "日本", "🙂", "\U0001d7d9", "${i}", "${2 ** 9}", "${", "../..",
    "a/b", "input", "loss", "sum",
)  # fmt: skip
_NUMBERS = (
    "0", "-1", "1", "2", "3", "64", "1000", "100001", "2147483647", "2147483648", "1e-320", "3.5e38", "1" + "0" * 30, "0.5",
)  # fmt: skip

Mutation = Callable[[str, random.Random, Sequence[str]], str]


def _spot(text: str, rng: random.Random) -> int:
    return rng.randrange(len(text) + 1)


def _odd_piece(text: str, rng: random.Random, models: Sequence[str]) -> str:
    begin = _spot(text, rng)
    return text[:begin] + rng.choice(_ODD) + text[begin + rng.choice((0, 0, 1, 5, 20)) :]


def _other_character(text: str, rng: random.Random, models: Sequence[str]) -> str:
    begin = _spot(text, rng)
    return text[:begin] + chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x3000)))) + text[begin + 1 :]


def _other_word(text: str, rng: random.Random, models: Sequence[str]) -> str:
    """A word that some model has, in the place of another."""
    return _replaced(_WORD, text, rng.choice(_WORD.findall(rng.choice(models)) or ["a"]), rng)


def _misspelt_word(text: str, rng: random.Random, models: Sequence[str]) -> str:
    word = list(rng.choice(_WORD.findall(text) or ["a"]))
    place = rng.randrange(len(word))
    word[place] = rng.choice(("", word[place] * 2, "x"))
    return _replaced(_WORD, text, "".join(word), rng)


def _other_number(text: str, rng: random.Random, models: Sequence[str]) -> str:
    return _replaced(_NUMBER, text, rng.choice(_NUMBERS), rng)


def _replaced(pattern: re.Pattern[str], text: str, new: str, rng: random.Random) -> str:
    places = [found.span() for found in pattern.finditer(text)]
    if not places:
        return text + new
    begin, end = rng.choice(places)
    return text[:begin] + new + text[end:]


def _lines_moved(text: str, rng: random.Random, models: Sequence[str]) -> str:
    """A few lines copied, moved, taken out, or indented otherwise."""
    lines = text.split("\n")
    begin = rng.randrange(len(lines))
    block = lines[begin : begin + rng.randrange(1, 5)]
    kept = lines if rng.random() < 0.4 else lines[:begin] + lines[begin + len(block) :]
    place, shift = rng.randrange(len(kept) + 1), rng.choice(("", "", "  ", " ", "\t"))
    moved = [] if rng.random() < 0.3 else [shift + line if rng.random() < 0.8 else line.lstrip() for line in block]
    return "\n".join([*kept[:place], *moved, *kept[place:]])


def _spliced(text: str, rng: random.Random, models: Sequence[str]) -> str:
    """The beginning of this text, and the end of another model."""
    return text[: _spot(text, rng)] + (other := rng.choice(models))[_spot(other, rng) :]


MUTATIONS: tuple[Mutation, ...] = (
    _odd_piece,
    _other_character,
    _other_word,
    _misspelt_word,
    _other_number,
    _lines_moved,
    _spliced,
)


def originals() -> list[str]:
    """The texts that are mutated, short ones and long ones."""
    files = (*ROOT.glob("models/*.yaml"), *ROOT.glob("tests/cases/spec/*.yaml"))
    texts = (path.read_bytes().decode(errors="replace") for path in sorted(files))
    return [text for text in texts if len(text) < LONGEST]


def mutated(seed: int, models: Sequence[str]) -> str:
    """One of the models with one to four mutations; the same for the same seed."""
    rng = random.Random(seed)
    text = rng.choice(models)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        text = rng.choice(MUTATIONS)(text, rng, models)
    return text


def judged(text: str) -> Sequence[Complaint]:
    """What is said of a text, once it has been said in every format."""
    try:
        spec = loads(text, FILE)
        complaints: Sequence[Complaint] = build(spec).warnings if len(spec.layers) <= LAYERS else lint(spec)
    except SpecError as error:
        complaints = error.complaints
    show(complaints, io.StringIO(), {FILE: text})
    for write in MACHINE.values():
        write(complaints)
    return complaints


class _Hang(BaseException):
    """Not an Exception: nothing on the way may take it for its own."""


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Of the processor: what else the machine is doing is no fault of the text."""

    def stop(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Tally:
    """``failures`` maps the seed of a text to what went wrong with it."""

    files: int = 0
    said: Counter[str] = field(default_factory=Counter)  # texts by the first rule that was named
    slowest: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Megabytes of this process, at most."""
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return kilobytes / (2**20 if sys.platform == "darwin" else 1024)


def fuzz(seeds: Iterator[int] | range) -> Tally:
    """Judge the texts of the seeds."""
    models = originals()
    tally = Tally()
    for seed in seeds:
        text, begun, was_within = mutated(seed, models), time.process_time(), tally.peak <= MEGABYTES
        try:
            with _limit(SECONDS):
                complaints = judged(text)
            tally.said[complaints[0].rule.code if complaints else "nothing"] += 1
        except _Hang:
            tally.failures[seed] = f"more than {SECONDS:g} s"
        except Exception as error:
            tally.failures[seed] = f"{type(error).__name__}: {error}"
        tally.slowest = max(tally.slowest, time.process_time() - begun)
        if was_within and tally.peak > MEGABYTES:
            tally.failures[seed] = f"more than {MEGABYTES} MB: {tally.peak:.0f} MB"
        tally.files += 1
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge mutated models.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first text; the others follow")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for texts that fail")
    given = parser.parse_args()
    begun = time.perf_counter()
    building.LARGEST = WEIGHTS
    tally = fuzz(range(given.seed, given.seed + given.count))
    models = originals()
    for seed, reason in tally.failures.items():
        given.keep.mkdir(parents=True, exist_ok=True)
        (given.keep / f"{seed}.yaml").write_text(mutated(seed, models), errors="surrogateescape")
        print(f"{seed}: {reason}")
    print(", ".join(f"{code} {number}" for code, number in tally.said.most_common()))
    print(
        f"{tally.files} files in {time.perf_counter() - begun:.0f} s: {len(tally.failures)} failures, "
        f"slowest {tally.slowest:.2f} s, peak {tally.peak:.0f} MB"
    )
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
