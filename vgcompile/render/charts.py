"""Two charts: how the gradient falls or grows with depth, and where on its activation each layer works.

Drawn by matplotlib without a display; the same analysis gives the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vgcompile.analysis.presets import DEFAULT
from vgcompile.analysis.result import Activation, Analysis, Layer
from vgcompile.analysis.saturation import FLAT
from vgcompile.interval import WHOLE
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import Case, Op
from vgcompile.ops.reading import slope, slope_range
from vgcompile.render import style
from vgcompile.render.labels import best, measured, number, verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
ImageFormat = Literal["svg", "png", "pdf"]

NAMES = 24  # layer names on the axis, at most
LEGEND_CHARACTERS = 105  # of labels beside each other
LABEL_CHARACTERS = 80  # of one
BINS = 80  # of a histogram over the whole axis, at most
MANY = 100  # with more layers the points are small
MARGIN = 2.0  # decades that the axis shows beyond the predictions and measurements, at least
SETTINGS: Any = {
    "svg.hashsalt": "vgcompile",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def depth_chart(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """log10 of each layer's gradient against the last hidden layer's, from the input to the loss; the three tiers told apart.

    The axis spans at least the fixed scale of the pictures, so that a healthy net looks healthy; a bound that leaves it is
    drawn open.
    """
    figure, axes = _figure(max(7.0, min(14.0, 3.0 + 0.2 * len(analysis.layers))), 4.6)
    layers = analysis.layers
    lo, hi = _window(layers)
    depth = np.arange(len(layers))
    _sound(axes, depth, layers, (lo, hi))
    _expected(axes, depth, layers)
    _measured(axes, depth, layers, lo)
    _thresholds(axes)
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
    return _written(figure, format)


def activation_plot(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """Each kind of activation in use: phi, its derivative, the region where the derivative is not small in green, and how the
    pre-activations of the first, a middle and the last such layer are spread over it."""
    kinds = _kinds(analysis.activations)
    figure, axes = _figure(7.0, 3.4 * max(1, len(kinds)), rows=max(1, len(kinds)))
    if not kinds:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No activation of one variable in this network.", ha="center", va="center")
    for panel, (row, uses) in zip(np.ravel(axes), kinds, strict=False):
        _activation(panel, row, uses)
    return _written(figure, format)


def _figure(width: float, height: float, rows: int = 1) -> tuple[Figure, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor=style.PAPER)
        return figure, figure.subplots(rows, 1)


def _written(figure: Figure, format: ImageFormat) -> bytes:
    """The figure as bytes without a date or a random identifier."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[format]
    target = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(target, format=format, dpi=144, metadata=metadata)
    return target.getvalue()


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


def _thresholds(axes: Axes) -> None:
    """The verdicts' limits as dashed lines, each with its word on the side where it holds."""
    for threshold, word, offset, side in (
        (DEFAULT.vanishing, f"vanishing below 1e{DEFAULT.vanishing:.0f}", -3, "top"),
        (DEFAULT.exploding, f"exploding above 1e{DEFAULT.exploding:.0f}", 3, "bottom"),
    ):
        axes.axhline(threshold, color=style.FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            word,
            (1.0, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(-2, offset),
            textcoords="offset points",
            ha="right",
            va=side,
            color=style.FAINT,
            bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )


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


def _kinds(activations: Sequence[Activation]) -> list[tuple[Op, list[Activation]]]:
    """The activations by operator and attributes, those with a row of one variable."""
    kinds: dict[str, tuple[Op, list[Activation]]] = {}
    for activation in activations:
        row = lookup(activation.operator)
        if row is not None and len(row.derivatives) == 1:
            key = f"{activation.operator} {sorted(activation.attributes.items())}"
            kinds.setdefault(key, (row, []))[1].append(activation)
    return list(kinds.values())


def _activation(axes: Axes, row: Op, uses: Sequence[Activation]) -> None:
    attributes = uses[0].attributes
    x = np.linspace(*_span(uses), 801)
    with np.errstate(all="ignore"):
        phi, derivative = row.numpy(x, **attributes), slope(NUMPY, row, 0, (x,), **attributes)  # type: ignore[misc]
        greatest = float(slope_range(NUMPY, row, 0, Case(attributes, ranges=(WHOLE,))).magnitude.max())
    if not math.isfinite(greatest):
        greatest = float(np.nanmax(np.abs(derivative)))
    green = np.abs(derivative) > FLAT * greatest
    axes.fill_between(x, 0, 1, where=green, transform=axes.get_xaxis_transform(), color=style.GREEN, linewidth=0, zorder=0)
    axes.plot(x, phi, "-", color=style.INK, linewidth=1.6, label=f"{row.name}(x)", zorder=4)
    axes.plot(x, derivative, "--", color="#d35417", linewidth=1.6, label=f"its derivative, at most {greatest:.3g}", zorder=4)
    axes.set_ylim(*_height(phi, derivative))
    axes.set_xlim(x[0], x[-1])
    spread = axes.twinx()
    _spread(spread, uses)
    axes.set_xlabel("pre-activation x")
    details = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in attributes.items()
        if value != "none"
    )
    axes.set_title(f"{row.name}{f' ({details})' if details else ''}", loc="left", fontweight="bold")
    axes.set_title(f"green: derivative above {FLAT:.0%} of its greatest", loc="right", fontsize=8, color="#2f6b2f")

    both = zip(axes.get_legend_handles_labels(), spread.get_legend_handles_labels(), strict=True)
    handles, labels = (list(curves) + list(spreads) for curves, spreads in both)
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=max(1, min(3, LEGEND_CHARACTERS // max(map(len, labels)))),
        fontsize=8,
        frameon=False,
    )


def _span(uses: Sequence[Activation]) -> tuple[float, float]:
    """From -6 to 6, or as far as the pre-activations reach, to 30 at most."""
    ends = [end for use in uses if use.histogram for end in (use.histogram[0][0], use.histogram[0][-1])]
    reach = min(max([6.0, *map(abs, ends)]), 30.0)
    return -reach, reach


def _height(*curves: Array) -> tuple[float, float]:
    values = np.clip(np.concatenate(curves), -1.5, 3.0)
    lo, hi = float(np.nanmin(values)), float(np.nanmax(values))
    return lo - 0.05 * (hi - lo), hi + 0.08 * (hi - lo)


def _spread(axes: Axes, uses: Sequence[Activation]) -> None:
    """Histograms as densities on a scale of their own, told apart by line and colour."""
    looks = (("#2166ac", "-"), ("#6a3d9a", "-."), ("#7a7a7a", ":"))
    for use, (colour, line) in zip(uses, looks, strict=False):
        if use.histogram is None:
            continue
        bins, counts = _coarse(np.array(use.histogram[0]), np.array(use.histogram[1], float), axes.get_xlim())
        density = counts / max(counts.sum(), 1.0) / np.diff(bins)
        axes.stairs(
            density,
            bins,
            color=colour,
            linestyle=line,
            linewidth=1.3,
            fill=False,
            label=_shortened(f"x at {use.layer}"),
            zorder=3,
        )
        axes.stairs(density, bins, color=colour, alpha=0.10, fill=True, zorder=2)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _shortened(label: str) -> str:
    """What tells a layer's long name from others is its end."""
    return label if len(label) <= LABEL_CHARACTERS else f"x at ...{label[-LABEL_CHARACTERS + 8 :]}"


def _coarse(bins: Array, counts: Array, span: tuple[float, float]) -> tuple[Array, Array]:
    """Neighbouring bins put together until each is wide enough to be seen."""
    together = max(1, math.ceil((span[1] - span[0]) / BINS / (bins[1] - bins[0])))
    spare = -len(counts) % together
    width = bins[1] - bins[0]
    bins = np.concatenate([bins, bins[-1] + width * np.arange(1, spare + 1)])
    return bins[::together], np.pad(counts, (0, spare)).reshape(-1, together).sum(axis=1)
