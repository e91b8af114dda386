"""How the gradient falls or grows with depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vgcompile.analysis.result import Analysis, Layer
from vgcompile.render import style
from vgcompile.render.canvas import Array, ImageFormat, figure, observed, predicted, thresholds, window, written
from vgcompile.render.labels import best, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = 24  # layer names on the axis, at most


def depth_chart(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """log10 of each layer's gradient against the last hidden layer's, from the input to the loss; the three tiers told apart.

    The axis spans at least the fixed scale of the pictures, so that a healthy net looks healthy; a bound that leaves it is
    drawn open.
    """
    drawn, axes = figure(max(7.0, min(14.0, 3.0 + 0.2 * len(analysis.layers))), 4.6)
    layers = analysis.layers
    relative = [layer.relative for layer in layers]
    lo, hi = window(relative)
    depth = np.arange(len(layers))
    _sound(axes, depth, layers, (lo, hi))
    predicted(axes, depth, relative)
    observed(axes, depth, relative, lo)
    thresholds(axes)
    _worst(axes, analysis)
    axes.axhline(0.0, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_ylim(lo, hi)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(-0.6, max(len(layers) - 0.4, 0.6))
    axes.set_ylabel("log10 of the gradient against\nthe last hidden layer's")
    axes.set_xlabel("layers with parameters, from the input to the loss")
    shown = _named(analysis)
    axes.set_xticks(shown, [layers[place].name for place in shown], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_title(f"{analysis.model}: {analysis.verdict.text}", loc="left", fontweight="bold")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)
    return written(drawn, format)


def _named(analysis: Analysis) -> list[int]:
    """The layers named on the axis: every one, or in a deep net some at equal distances and always the worst."""
    step = max(1, math.ceil(len(analysis.layers) / NAMES))
    worst = _worst_place(analysis)
    regular = range(0, len(analysis.layers), step)
    return sorted(
        [place for place in regular if worst is None or abs(place - worst) >= step] + ([] if worst is None else [worst])
    )


def _worst_place(analysis: Analysis) -> int | None:
    """Where the worst layer stands, where there is anything to point at."""
    names = [layer.name for layer in analysis.layers]
    return names.index(analysis.worst) if analysis.worst in names and analysis.verdict.ill else None


def _worst(axes: Axes, analysis: Analysis) -> None:
    """A ring around the worst layer, and its name."""
    place = _worst_place(analysis)
    value = best(analysis.layers[place].relative) if place is not None else None
    if place is None or value is None or math.isinf(value):
        return
    axes.plot(
        [place], [value], "o", markersize=12, markerfacecolor="none", markeredgecolor=style.INK, markeredgewidth=1.8, zorder=5
    )
    steps = analysis.layers[place].through_time
    over = f", 10^{number(best(steps) or 0.0)} over its steps" if steps is not None and analysis.verdict.over == "steps" else ""
    left = place < len(analysis.layers) / 2
    axes.annotate(
        f"worst: {analysis.worst}{over or f', 10^{number(value)}'}",
        (place, value),
        xytext=(12 if left else -12, -3 if value < 0 else 3),
        textcoords="offset points",
        ha="left" if left else "right",
        va="top" if value < 0 else "bottom",
        fontweight="bold",
        zorder=6,
    )


def _sound(axes: Axes, depth: Array, layers: Sequence[Layer], window: tuple[float, float]) -> None:
    """The certified band; where it leaves the window an arrowhead says that it goes on, where it says nothing there is none."""
    bounds = [layer.relative.sound for layer in layers]
    known = np.array([not bound.vacuous for bound in bounds])
    if not known.any():
        return
    lo = np.array([-np.inf if bound.lo is None else bound.lo for bound in bounds])
    hi = np.array([np.inf if bound.hi is None else bound.hi for bound in bounds])
    floor, ceiling = (np.where(known, np.clip(bound, *window), np.nan) for bound in (lo, hi))
    sides, seen = np.append(depth, len(depth)) - 0.5, np.nanmax(ceiling - floor) > 0  # the reference's own is a point
    axes.stairs(ceiling, sides, baseline=floor, fill=True, color="#d3dfee", label="S certified" if seen else None, zorder=1)
    for edge, beyond, marker in ((window[0], lo < window[0], "v"), (window[1], hi > window[1], "^")):
        open_ended = known & beyond
        nudge = 0.02 * (window[1] - window[0]) * (1 if marker == "v" else -1)
        axes.plot(
            depth[open_ended],
            np.full(open_ended.sum(), edge + nudge),
            marker,
            color="#6f93bf",
            markersize=5,
            linestyle="none",
            zorder=2,
        )
