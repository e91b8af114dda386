"""The whole run: every case, in each form, by each tool."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.conformance.cases import Case, Excluded, published, symbolic
from benchmarks.conformance.running import CannotRun, run
from benchmarks.conformance.truth import NoTruth, Truth, truth
from benchmarks.conformance.verdict import WRONG, Verdict, judge
from benchmarks.conformance.workers import spread

FORMS = ("published", "symbolic")
LIMIT = 90.0  # seconds for one case, in all forms and by all tools


@dataclass(frozen=True)
class Result:
    verdicts: tuple[Verdict, ...]
    excluded: tuple[Excluded, ...]
    without_symbol: tuple[str, ...]  # cases that have no symbolic form

    @property
    def size(self) -> int:
        return len({verdict.case for verdict in self.verdicts if verdict.form == FORMS[0]} | set(self.without_symbol))


@dataclass(frozen=True)
class _Judged:
    """What a worker says of one case."""

    verdicts: tuple[Verdict, ...] = ()
    excluded: str = ""
    without_symbol: bool = False


def judged(case: Case, tools: Sequence[str], forms: Sequence[str]) -> _Judged:
    warnings.simplefilter("ignore")
    try:
        run(case.model, case.feeds)
    except CannotRun:
        return _Judged(excluded="ONNX Runtime does not run its forward")
    in_form = {form: case if form == "published" else symbolic(case) for form in forms}
    known = _once(case)
    with np.errstate(all="ignore"):
        verdicts = [
            judge(present, form, tool, known) for form, present in in_form.items() if present is not None for tool in tools
        ]
    return _Judged(tuple(verdicts), without_symbol=any(present is None for present in in_form.values()))


def _once(case: Case) -> Callable[[], Truth]:
    """The truth of a case, computed where it is first asked for; it is the same in all forms and for all tools."""

    @lru_cache(maxsize=1)
    def found() -> Truth | NoTruth:
        try:
            return truth(case)
        except NoTruth as reason:
            return reason
        except Exception as error:  # a failure of the instrument is no verdict on a tool
            return NoTruth(f"the instrument failed: {type(error).__name__}: {error}")

    def known() -> Truth:
        there = found()
        if isinstance(there, NoTruth):
            raise there
        return there

    return known


def suite(
    tools: Sequence[str],
    forms: Sequence[str] = FORMS,
    chosen: Callable[[Case], bool] = lambda case: True,
    jobs: int = 2,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Result:
    """Judge the chosen cases."""
    cases, excluded = published()
    cases = tuple(case for case in cases if chosen(case))
    _warm(tools)

    def lost(index: int, why: str) -> _Judged:
        case = cases[index]
        return _Judged(
            tuple(Verdict(case.name, case.operator, form, tool, WRONG, "crashes", why) for form in forms for tool in tools)
        )

    found: dict[int, _Judged] = {}
    for index, result in spread(lambda i: judged(cases[i], tools, forms), len(cases), jobs, LIMIT, lost):
        found[index] = result
        progress(len(found), len(cases))
    ordered = [found[index] for index in range(len(cases))]
    return Result(
        tuple(verdict for result in ordered for verdict in result.verdicts),
        (*excluded, *(Excluded(cases[i].name, result.excluded) for i, result in found.items() if result.excluded)),
        tuple(case.name for case, result in zip(cases, ordered, strict=True) if result.without_symbol),
    )


def _warm(tools: Sequence[str]) -> None:
    """Import in the parent what every worker would import for itself."""
    if "vgcompile" in tools:
        import vgcompile.derivatives  # noqa: F401
    if "onnx-ad" in tools:
        import onnx_ad  # noqa: F401
