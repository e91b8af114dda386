"""An analysis for a terminal: a table of layers, the net's verdict, and its worst path spelled out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vgcompile.analysis.checkpoints import Checkpoints
from vgcompile.analysis.findings.wording import budgets, reasons, together, worst
from vgcompile.analysis.result import Analysis, Elements, Layer, Path, Reason, Tiers, Verdict

COLOURS = {
    "vanishing": "blue",
    "exploding": "red",
    "dead": "magenta",
    "saturated": "yellow",
    "healthy": "green",
    "unknown": "bright_black",
}
SEVERITIES = {"error": "red", "warning": "yellow"}
WORDS: dict[Reason, str] = {"zero": "zero", "underflow": "underflow", "unbounded": "unbounded", "undefined": "-", "not_run": ""}
# A row of numbers that a narrow terminal wraps is read more easily than one that is cut or folded cell by cell. Rich minds the
# width on a dumb terminal only where it is given the height too.
WIDE = 10_000
LONG, HEAD, TAIL = 24, 4, 4  # layers of a path that is spelled out, and of a longer one's ends


def print_analysis(analysis: Analysis) -> None:
    """Print to stdout, without blanks at the ends of lines; colours only on a terminal."""
    _print(f"{analysis.source}, {analysis.region}; numbers are log10 of gradient norms", _table(analysis), _summary(analysis))


def print_checkpoints(found: Checkpoints) -> None:
    """The gain of each layer at each checkpoint, and how its verdict changes."""
    first, last = found.analyses[0], found.analyses[-1]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "kind"):
        table.add_column(name)
    for name in ("line", *found.files):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in found.rows:
        layer = row.layers[-1]
        gains = [_best(at.gain) for at in row.layers]
        changes = Text(" -> ").join(Text(kind, style=COLOURS[kind]) for kind in row.kinds)
        table.add_row(layer.name, layer.kind, "" if layer.line is None else str(layer.line), *gains, changes)
    verdicts = [
        Text(f"{file}: ").append(_verdict(analysis.verdict)).append(f", worst {analysis.worst}")
        for file, analysis in zip(found.files, found.analyses, strict=True)
    ]
    _print(f"{last.source}, {first.region}; log10 of gradient norms, at each checkpoint", table, verdicts)


def _print(title: str, table: Table, summary: Iterable[Text]) -> None:
    console = Console(highlight=False, markup=False, emoji=False, width=WIDE, height=WIDE)
    with console.capture() as captured:
        console.print(title)
        console.print()
        console.print(table)
        console.print()
        for line in summary:
            console.print(line)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _table(analysis: Analysis) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "kind"):
        table.add_column(name)
    table.add_column("line", justify="right")
    table.add_column("proved")
    for name in ("predicted", "measured", "relative", "update"):
        table.add_column(name, justify="right")
    several = any(layer.elements is not None for layer in analysis.layers)
    for name in ("peak", "zeros", "not finite") if several else ():
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for layer in analysis.layers:
        table.add_row(*_row(layer), *(_elements(layer.elements) if several else ()), _verdict(layer.verdict))
    return table


def _row(layer: Layer) -> Iterator[str | Text]:
    yield layer.name
    yield layer.kind
    yield "" if layer.line is None else str(layer.line)
    yield proved(layer.gain)
    yield predicted(layer.gain)
    yield measured(layer.gain)
    yield _best(layer.relative)
    yield measured(layer.update)


def proved(tiers: Tiers) -> str:
    """The interval, rounded outward."""
    lo, hi = tiers.sound.lo, tiers.sound.hi
    if lo is None and hi is None:
        return WORDS[tiers.why.get("sound.hi", "not_run")]
    low = "-inf" if lo is None else f"{math.floor(lo * 100) / 100:.2f}"
    high = "inf" if hi is None else f"{math.ceil(hi * 100) / 100:.2f}"
    return f"[{low}, {high}]" + (" vacuous" if tiers.sound.vacuous else "")


def predicted(tiers: Tiers) -> str:
    expected = tiers.expected
    if expected.mean is None:
        return WORDS[tiers.why.get("expected", "not_run")]
    doubt = "?" if expected.confidence == "low" else ""
    return f"{expected.mean:.2f}" + ("" if expected.sd is None else f" +-{expected.sd:.2f}") + doubt


def measured(tiers: Tiers) -> str:
    return WORDS[tiers.why.get("measured", "not_run")] if tiers.measured is None else f"{tiers.measured:.2f}"


def _elements(elements: Elements | None) -> Iterator[str]:
    """log10 of the greatest magnitude, and shares."""
    if elements is None:
        yield from ("", "", "")
        return
    yield "-" if elements.peak is None else f"{elements.peak:.2f}"
    yield f"{elements.zeros:.1%}"
    yield f"{elements.undefined:.1%}"


def _best(tiers: Tiers) -> str:
    """Measured, else predicted, else proved: what the verdict looks at."""
    return measured(tiers) or predicted(tiers) or proved(tiers)


def _verdict(verdict: Verdict) -> Text:
    return Text(verdict.text, style=COLOURS[verdict.kind])


def _summary(analysis: Analysis) -> Iterator[Text]:
    yield Text("verdict: ").append(_verdict(analysis.verdict)).append(f", {analysis.verdict.why}" if analysis.verdict.why else "")
    worst = analysis.worst_layer
    if worst is None:
        return
    place = f" ({analysis.source}:{worst.line})" if worst.line is not None else ""
    yield Text(f"worst layer: {worst.name}{place}")
    if analysis.verdict.worst_path is not None:
        yield Text(
            f"its strongest path from the loss ({analysis.verdict.worst_path.tier}): {_spelled(analysis.verdict.worst_path)}"
        )
    yield from (Text(f"depth budget of {line}") for line in budgets(analysis.budgets))
    yield from _findings(analysis)


def _findings(analysis: Analysis) -> Iterator[Text]:
    """What is new at some length, what is known by its number."""
    for group in together(finding for finding in analysis.findings if not finding.known):
        said = worst(group)
        rest = f" and {len(group) - 1} more" if len(group) > 1 else ""
        place = f" ({said.mark.file}:{said.mark.line})" if said.mark.line else ""
        rule = f"{said.rule.code} {said.rule.name}"
        yield Text(f"{rule}: {said.layer}{rest}{place}: {said.message}", style=SEVERITIES[said.severity])
        for line in (*reasons(said), *([f"help: {said.hint}"] if said.hint else [])):
            yield Text(f"    {line}")
    known = sum(finding.known for finding in analysis.findings)
    if known:
        yield Text(f"{known} findings are known")
    if analysis.verdict.ill and not analysis.source.endswith(".onnx"):
        yield Text(f"changes that would help: vgcompile fix {analysis.source}")


def _spelled(path: Path) -> str:
    """``output -0.31, hidden/20 -0.62, ... = -9.28``: one number a layer, its factors and merges together; of a long path its
    ends and the sum of what is between."""
    parts = [
        (name, sum(step.factor + step.merge for step in steps))
        for name, steps in groupby(path.steps, key=lambda step: step.layer)
    ]
    if len(parts) > LONG:
        between = parts[HEAD:-TAIL]
        parts[HEAD:-TAIL] = [(f"... {len(between)} layers", sum(number for _, number in between))]
    return ", ".join(f"{name or '(input)'} {number:+.2f}" for name, number in parts) + f" = {path.gain:.2f}"
