"""Every remedy tried on one model, and ranked: what heals first and, of what heals, what costs least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vgcompile.analysis import Analysis, Options, analyze
from vgcompile.analysis.pipeline import TIERS
from vgcompile.errors import UserError
from vgcompile.fixing.edits import Edit, depth, most_copies
from vgcompile.fixing.remedies import Remedy, Search, remedies, searches
from vgcompile.fixing.sheet import Sheet
from vgcompile.fixing.trial import Model, Trial, built, judging, solved, tried

SHOWN = 3  # of the best, in all tiers


@dataclass(frozen=True)
class Advice:
    """``helpful`` trials stand best first and are healthy; the others left the net ill, nearest to health first."""

    model: Model
    start: Trial
    helpful: Sequence[Trial]
    others: Sequence[Trial]

    @property
    def ranked(self) -> Sequence[Trial]:
        return (*self.helpful, *self.others)


def advice(model: Model, options: Options | None = None, progress: Callable[[str], None] = lambda stage: None) -> Advice:
    """Try all remedies. Raises SpecError for a text that is no model, UserError for a model without layers to judge."""
    network, options = built(model), options or Options()
    judged, analysis = judging(network, options)
    if not analysis.layers:
        raise UserError(f"{model.file}: no layer holds parameters, so there is nothing to fix")
    start = Trial("as it is", "", model.text, network, analysis)
    found: dict[str, Trial] = {}
    for trial in _trials(model, judged, progress):
        if _differs(trial, start):
            found.setdefault(trial.text, trial)
    ranked = sorted(found.values(), key=lambda trial: _rank(trial, start))
    helpful = [trial for trial in ranked if trial.kind == "healthy" and trial.worst is not None]
    others = [trial for trial in ranked if trial not in helpful]
    return Advice(model, start, helpful, others)


def in_all_tiers(found: Advice, options: Options) -> Iterator[tuple[Trial, Analysis]]:
    """The model as it is and the best trials, bounded, predicted and measured."""
    whole = replace(options, tiers=TIERS)
    for trial in (found.start, *found.helpful[:SHOWN]):
        yield trial, analyze(trial.network, whole)


def _differs(trial: Trial, start: Trial) -> bool:
    """Whether a change of the text is one of the model: a variant may state in another place what was changed here."""
    return (trial.worst, trial.parameters, trial.flops) != (start.worst, start.parameters, start.flops)


def _trials(model: Model, options: Options, progress: Callable[[str], None]) -> Iterator[Trial]:
    for remedy in remedies(Sheet(model.text)):
        progress(remedy.name)
        trial = _first(model, remedy, options)
        if trial is not None:
            yield trial
    for search in searches():
        progress(search.name)
        trial = _searched(model, search, options)
        if trial is not None:
            yield trial
    progress("a shorter net")
    trial = _shortened(model, options)
    if trial is not None:
        yield trial


def edited(text: str, steps: Sequence[Edit]) -> str | None:
    """The text after all edits; None where one of them found nothing to change."""
    before = made = Sheet(text).text
    for step in steps:
        sheet = Sheet(made)
        if not step(sheet):
            return None
        made = sheet.text
    return made if made != before else None


def _first(model: Model, remedy: Remedy, options: Options) -> Trial | None:
    for form in remedy.forms:
        text = edited(model.text, form)
        trial = tried(model, remedy.name, remedy.why, text, options) if text is not None else None
        if trial is not None:
            return trial
    return None


def _searched(model: Model, search: Search, options: Options) -> Trial | None:
    trials: dict[float, Trial | None] = {}

    def worst(number: float) -> float | None:
        text = edited(model.text, search.of(number))
        trials[number] = trial = tried(model, search.name, search.why, text, options) if text is not None else None
        return trial.worst if trial is not None else None

    best = solved(search.low, search.high, worst)
    return trials.get(best) if best is not None else None


def _shortened(model: Model, options: Options) -> Trial | None:
    """As many copies of what repeats most as are healthy."""
    healthy, copies, found = 0, most_copies(Sheet(model.text)), None
    while copies - healthy > 1:
        middle = (healthy + copies) // 2
        text = edited(model.text, [depth(middle)])
        why = f"{middle} copies in the place of {most_copies(Sheet(model.text))}"
        trial = tried(model, "a shorter net", why, text, options) if text is not None else None
        if trial is not None and trial.kind == "healthy":
            healthy, found = middle, trial
        else:
            copies = middle
    return found


def _rank(trial: Trial, start: Trial) -> tuple[bool, bool, float, float]:
    """Healthy ones by what they add in parameters and operations, then by the distance of the worst layer's gain from 1, each to
    a tenth; a much shorter net, which is another one, behind these. Others by the distance alone."""
    off = round(abs(trial.worst), 1) if trial.worst is not None and math.isfinite(trial.worst) else math.inf
    if trial.kind != "healthy":
        return (True, False, off, 0.0)
    added = max(trial.parameters / max(start.parameters, 1), trial.flops / max(start.flops, 1.0)) - 1.0
    return (False, trial.flops < 0.8 * start.flops, round(max(added, 0.0), 1), off)
