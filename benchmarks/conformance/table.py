"""The verdicts as text: a table for each form, every reason of a refusal, every wrong case by name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.conformance.suite import Result
from benchmarks.conformance.verdict import REFUSED, RIGHT, UNJUDGED, UNRUN, WRONG, Verdict

NAMED = 6  # cases that a reason lists by name


def counts(result: Result, tool: str, form: str) -> Counter[str]:
    return Counter(verdict.verdict for verdict in result.verdicts if (verdict.tool, verdict.form) == (tool, form))


def summary(result: Result, tools: Sequence[str], forms: Sequence[str]) -> str:
    """One line for each tool and form."""
    lines = [f"{'form':12}{'tool':12}{'cases':>7}{RIGHT:>14}{REFUSED:>14}{WRONG:>14}{UNRUN:>12}{UNJUDGED:>12}"]
    for form in forms:
        for tool in tools:
            found = counts(result, tool, form)
            total = sum(found.values())
            cells = "".join(f"{_share(found[kind], total):>14}" for kind in (RIGHT, REFUSED, WRONG))
            lines.append(f"{form:12}{tool:12}{total:>7}{cells}{found[UNRUN]:>12}{found[UNJUDGED]:>12}")
    return "\n".join(lines)


def _share(count: int, total: int) -> str:
    return f"{count} ({100.0 * count / total:.1f} %)" if total else "0"


def markdown(result: Result, tools: Sequence[str], forms: Sequence[str], versions: str) -> str:
    return "\n".join(
        [
            HEADER.format(versions=versions),
            _the_set(result),
            "## Verdicts\n",
            *_verdicts(result, tools, forms),
            *(line for tool in tools for line in _of_tool(result, tool, forms)),
            *_operators(result, tools, forms[0]),
        ]
    )


HEADER = """# Conformance: ONNX's node tests, differentiated

<!-- Generated: python -m benchmarks.conformance --markdown docs/conformance.md -->

Every single-operator test that ONNX ships for backends is a small model with inputs. Here each one that has a real input and a
real output is differentiated by all of its real inputs, with the adjoints of its outputs coming in from outside; the gradient
file is run in stock ONNX Runtime and compared with differences of the forward in float64. {versions}.

- **right**: agrees with the truth for every real input, along random directions of that input alone.
- **refused**: the tool says that it does not differentiate the case.
- **WRONG**: disagrees, is not finite where the truth is, crashes, or makes a file that ONNX Runtime does not run.
- **no kernel**: right in ONNX's reference evaluator; a bfloat16 case whose forward ONNX Runtime's CPU runs, and whose gradient
  needs an operator that it has no bfloat16 kernel for.
- **not judged**: there is a gradient, and nothing independent to compare it with.

The truth is one-sided differences, extrapolated from two steps, of the reference evaluator in float64; of ONNX Runtime in
float64 or float32 where the evaluator is not faithful to the published outputs. Where the two sides disagree the published data
sit on a kink: there the gradient has to lie between the slopes of the two sides, and it is compared strictly where a small
seeded perturbation moves the inputs off the kink. An input without a gradient needs zeros. The adjoint of what no framework
learns (the scales and the region of Resize, the ratio of Dropout, indices and depth of OneHot) only has to be finite. Random
operators are compared with the mask of the same run (Dropout) or with zero.

Two forms: *published* is the test as it is: integer operands (axes, shapes, indices) arrive at run time as graph inputs.
*symbolic* is the same test with the first axis of the first real input made a symbol, and of every other real input of the same
extent: where ONNX's inference still holds and ONNX Runtime runs the model with twice that extent.
"""


def _the_set(result: Result) -> str:
    reasons = Counter(excluded.reason for excluded in result.excluded)
    judged = {verdict.case for verdict in result.verdicts}
    lines = [
        f"| not in the set | {'tests':>5} |",
        "|---|--:|",
        *(f"| {reason} | {count} |" for reason, count in reasons.most_common()),
    ]
    return "\n".join(
        [
            "## The set\n",
            f"{len(judged)} of ONNX's {len(judged) + len(result.excluded)} node tests; "
            f"{len(result.without_symbol)} of them have no symbolic form.\n",
            *lines,
            "",
            *_own(result),
        ]
    )


def _own(result: Result) -> Iterable[str]:
    if result.own:
        yield "Of some tests in the set ONNX Runtime's forward is another than the published one, and what they are judged by:"
        yield f"{', '.join(result.own)}.\n"


def _verdicts(result: Result, tools: Sequence[str], forms: Sequence[str]) -> Iterable[str]:
    yield "| form | tool | cases | right | refused | WRONG | no kernel | not judged |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for form in forms:
        for tool in tools:
            found = counts(result, tool, form)
            total = sum(found.values())
            cells = " | ".join(_share(found[kind], total) for kind in (RIGHT, REFUSED, WRONG))
            yield f"| {form} | {tool} | {total} | {cells} | {found[UNRUN]} | {found[UNJUDGED]} |"
    yield ""


def _of_tool(result: Result, tool: str, forms: Sequence[str]) -> Iterable[str]:
    yield f"## {tool}\n"
    for kind, title in ((WRONG, "Wrong"), (REFUSED, "Refused"), (UNRUN, "No kernel"), (UNJUDGED, "Not judged")):
        for form in forms:
            found = [v for v in result.verdicts if (v.tool, v.form, v.verdict) == (tool, form, kind)]
            if not found:
                continue
            yield f"### {title}, {form}: {len(found)}\n"
            if kind == WRONG:
                yield "| test | what | |"
                yield "|---|---|---|"
                yield from (f"| {v.case} | {v.kind} | {_cell(v.reason)} |" for v in found)
            else:
                yield "| tests | reason | such as |"
                yield "|--:|---|---|"
                for reason, same in grouped(found):
                    names = ", ".join(v.case for v in same[:NAMED]) + (", ..." if len(same) > NAMED else "")
                    yield f"| {len(same)} | {_cell(reason)} | {names} |"
            yield ""


def grouped(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """By reason, the most frequent first; names and numbers of one case do not tell reasons apart."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[re.sub(r"\d+", "#", re.sub(r"'[^']*'", "'...'", verdict.reason))].append(verdict)
    return sorted(((same[0].reason, same) for same in groups.values()), key=lambda group: (-len(group[1]), group[0]))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:240]


def _operators(result: Result, tools: Sequence[str], form: str) -> Iterable[str]:
    yield f"## By operator, {form}\n"
    yield f"| operator | tests | {' | '.join(tools)} |"
    yield f"|---|--:|{'---|' * len(tools)}"
    by: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in result.verdicts:
        if verdict.form == form:
            by[verdict.operator].append(verdict)
    for operator, verdicts in sorted(by.items()):
        cells = []
        for tool in tools:
            found = Counter(v.verdict for v in verdicts if v.tool == tool)
            cells.append(
                ", ".join(f"{count} {kind}" for kind in (RIGHT, REFUSED, WRONG, UNRUN, UNJUDGED) if (count := found[kind]))
            )
        yield f"| {operator} | {len({v.case for v in verdicts})} | {' | '.join(cells)} |"
    yield ""
