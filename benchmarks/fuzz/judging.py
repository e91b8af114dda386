"""A case judged: what is said of it, and whether that is within time and memory."""

from __future__ import annotations

import io
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz.cases import Case, case
from benchmarks.fuzz.trees import PART
from vgcompile.build import build
from vgcompile.cli.formats import MACHINE
from vgcompile.cli.snippet import show
from vgcompile.errors import Complaint, SpecError
from vgcompile.spec import Spec, loads
from vgcompile.spec.lint import lint
from vgcompile.spec.reading import Node

LAYERS = 60
SECONDS = 2.0
MEGABYTES = 500


@dataclass
class Tally:
    """What came of some cases: how often a rule was the first that was named, what stands in those that were read well, and by
    the number of a case what went wrong."""

    files: int = 0
    said: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)  # kinds of layers, and sections
    slowest: float = 0.0
    peak: float = 0.0  # megabytes of the process
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.files += other.files
        self.said += other.said
        self.read += other.read
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)
        self.failures |= other.failures


def fuzz(seeds: Iterable[int]) -> Tally:
    """Judge the cases of these numbers."""
    tally = Tally()
    with TemporaryDirectory() as folder:
        for seed in seeds:
            tally.files += 1
            begun, before = time.process_time(), _peak()
            try:
                with _limit(SECONDS):
                    _judge(case(seed), Path(folder), tally)
            except _Hang:
                tally.failures[seed] = f"more than {SECONDS:g} s"
            except Exception as error:
                tally.failures[seed] = f"{type(error).__name__}: {error}"
            tally.slowest = max(tally.slowest, time.process_time() - begun)
            tally.peak = max(tally.peak, peak := _peak())
            if before <= MEGABYTES < peak:
                tally.failures[seed] = f"more than {MEGABYTES} MB: {peak:.0f} MB"
                _forget_peak()
    return tally


def _judge(given: Case, folder: Path, tally: Tally) -> None:
    file, part = folder / "model.yaml", folder / PART
    part.unlink(missing_ok=True)
    if given.part is not None:
        part.write_bytes(given.part.encode(errors="surrogatepass"))
    complaints: Sequence[Complaint]
    try:
        spec = loads(given.text, str(file), variant=given.variant, settings=given.settings)
        _note(spec, given, tally)
        complaints = build(spec).warnings if len(spec.layers) <= LAYERS else lint(spec)
    except SpecError as error:
        complaints = error.complaints
    show(complaints, io.StringIO(), {str(file): given.text})
    for write in MACHINE.values():
        write(complaints)
    tally.said[complaints[0].rule.code if complaints else "nothing"] += 1


def _note(spec: Spec, given: Case, tally: Tally) -> None:
    """What stands in a text that is read without a complaint, though its layers may not fit each other."""
    asked = {"include": given.part is not None, "--variant": given.variant is not None, "--set": bool(given.settings)}
    tally.read.update(name for name, is_there in asked.items() if is_there)
    tally.read["${...}"] += "${" in given.text
    tally.read.update(spec.document.model_fields_set)
    tally.read.update({f"kind {kind}" for kind in _kinds(spec.tree.children["layers"])})


def _kinds(layers: Node) -> Iterator[str]:
    """Those of a list of layers, and of the layers inside them."""
    for layer in layers.children.values():
        kind = layer.get("kind")
        yield str(layer.value if kind is None else kind.value)
        for name in ("layers", "shortcut"):
            yield from _kinds(layer.children[name]) if name in layer.children else ()


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


def _peak() -> float:
    """Megabytes of this process, at most."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    """Begin anew, where the system lets us: else the first case above the limit hides those behind it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
