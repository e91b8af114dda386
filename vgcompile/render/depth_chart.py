"""How the gradient falls or grows with depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vgcompile.analysis.result import Analysis, Layer
from vgcompile.render import style
from vgcompile.render.canvas import Array, ImageFormat, figure, thresholds, written
from vgcompile.render.labels import best, measured, number, verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = 24  # layer names on the axis, at most
MANY = 100  # with more layers the points are small
MARGIN = 2.0  # decades that the axis shows beyond the predictions and measurements, at least


def depth_chart(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """log10 of each layer's gradient against the last hidden layer's, from the input to the loss; the three tiers told apart.

    The axis spans at least the fixed scale of the pictures, so that a healthy net looks healthy; a bound that leaves it is
    drawn open.
    """
    drawn, axes = figure(max(7.0, min(14.0, 3.0 + 0.2 * len(analysis.layers))), 4.6)
    layers = analysis.layers
    lo, hi = _window(layers)
    depth = np.arange(len(layers))
    _sound(axes, depth, layers, (lo, hi))
    _expected(axes, depth, layers)
    _measured(axes, depth, layers, lo)
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
    axes.set_title(f"{analysis.model}: {verdict_text(analysis.verdict)}", loc="left", fontweight="bold")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=8)
    return written(drawn, format)


def _window(layers: Sequence[Layer]) -> tuple[float, float]:
    """The fixed scale, widened to hold every prediction and measurement."""
    known = [value for layer in layers if (value := best(layer.relative)) is not None and math.isfinite(value)]
    known += [layer.relative.expected.mean for layer in layers if layer.relative.expected.mean is not None]
    lo, hi = style.SCALE
    margin = max(MARGIN, 0.08 * (max(known, default=0.0) - min(known, default=0.0)))
    return min([lo, *(value - margin for value in known)]), max([hi, *(value + margin for value in known)])


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
    return names.index(analysis.worst) if analysis.worst in names and analysis.verdict.kind != "healthy" else None


def _worst(axes: Axes, analysis: Analysis) -> None:
    """A ring around the worst layer, and its name."""
    place = _worst_place(analysis)
    value = best(analysis.layers[place].relative) if place is not None else None
    if place is None or value is None or math.isinf(value):
        return
    axes.plot(
        [place], [value], "o", markersize=12, markerfacecolor="none", markeredgecolor=style.INK, markeredgewidth=1.8, zorder=5
    )
    left = place < len(analysis.layers) / 2
    axes.annotate(
        f"worst: {analysis.worst}, 10^{number(value)}",
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


def _expected(axes: Axes, depth: Array, layers: Sequence[Layer]) -> None:
    mean = np.array([np.nan if layer.relative.expected.mean is None else layer.relative.expected.mean for layer in layers])
    sd = np.array([layer.relative.expected.sd or 0.0 for layer in layers])
    if np.isnan(mean).all():
        return
    axes.plot(depth, mean, "-", color=style.INK, linewidth=1.3, label="E predicted, +- one sd", zorder=3)
    axes.fill_between(depth, mean - sd, mean + sd, color=style.INK, alpha=0.18, linewidth=0, zorder=2)


def _measured(axes: Axes, depth: Array, layers: Sequence[Layer], lowest: float) -> None:
    """Points in the colours of the scale; a gradient that is exactly zero lies on the floor of the chart."""
    seen = [(x, value) for x, layer in zip(depth, layers, strict=True) if (value := measured(layer.relative)) is not None]
    for zero, marker, label in ((False, "o", "M measured"), (True, "x", "M zero")):
        points = [(x, max(value, lowest)) for x, value in seen if math.isinf(value) is zero]
        if points:
            axes.scatter(
                [x for x, _ in points],
                [value for _, value in points],
                s=26 if len(layers) <= MANY else 7,
                c=[style.band(value).stroke for _, value in points],
                marker=marker,
                edgecolors=None if zero else style.INK,
                linewidths=1.5 if zero else 0.6,
                label=label,
                zorder=4,
            )
