"""How the gradient falls or grows through the steps of a recurrence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vgcompile.analysis.result import Analysis, Tiers
from vgcompile.render.canvas import ImageFormat, figure, observed, predicted, thresholds, window, written
from vgcompile.render.labels import best, number

NAMED = 6  # recurrences whose names are written down, at most

Profile = tuple[str, Sequence[Tiers]]  # the layer, and each step's gain against the last one's


def step_chart(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """log10 of the gradient at each step of a recurrence against that at its last step, in the order in which it reads them.

    The number at the first step is the one that the verdict rests on.
    """
    profiles = profiles_of(analysis)
    drawn, axes = figure(7.0, 3.8)
    if not profiles:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No recurrence whose steps are told apart in this network.", ha="center", va="center")
        return written(drawn, format)
    lo, hi = window([tiers for _, steps in profiles for tiers in steps])
    longest = max(len(steps) for _, steps in profiles)
    for place, (_, steps) in enumerate(profiles):
        x = np.arange(len(steps)) + 1.0
        predicted(axes, x, steps, "" if place else "E predicted")
        observed(axes, x, steps, lo, "" if place else "M measured")
    thresholds(axes, "left")  # a gradient that dies crosses its limit at the right
    axes.axhline(0.0, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_ylim(lo, hi)
    axes.set_xlim(0.0, longest + 1.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("log10 of the gradient against\nthe last step's")
    axes.set_xlabel("steps, in the order in which they are read")
    axes.set_title(f"{analysis.model}: {analysis.verdict.text}", loc="left", fontweight="bold")
    axes.legend(
        loc="lower right",
        title="\n".join(_named(profiles)),  # beside their first steps, names would lie upon each other's points
        title_fontproperties={"weight": "bold", "size": 9},
        alignment="left",
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
        fontsize=8,
    )
    return written(drawn, format)


def profiles_of(analysis: Analysis) -> Sequence[Profile]:
    """The recurrences of which some tier tells the steps apart, from the input to the loss."""
    found = []
    for edge in analysis.edges:
        steps = [step.against(edge.steps[-1]) for step in edge.steps]
        if any(best(step) is not None for step in steps):
            found.append((edge.layer, steps))
    return found


def _named(profiles: Sequence[Profile]) -> list[str]:
    """Name and first step's number of the recurrences that tell most, from the uppermost to the lowest one."""
    known = [(value, name) for name, steps in profiles if (value := best(steps[0])) is not None]
    telling = sorted(known, key=lambda pair: -abs(pair[0]))[:NAMED]
    return [f"{name}: first step 10^{number(value)}" for value, name in sorted(telling, reverse=True)]
