"""What the charts have in common: figures that matplotlib draws without a display, the same analysis as the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vgcompile.analysis.presets import DEFAULT
from vgcompile.analysis.result import Tiers
from vgcompile.render import style
from vgcompile.render.labels import best, measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
ImageFormat = Literal["svg", "png", "pdf"]

MANY = 100  # with more points they are small
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


def figure(width: float, height: float, rows: int = 1) -> tuple[Figure, Any]:
    """An empty figure, of this size in inches, and its axes, one below the other."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        made = Figure(figsize=(width, height), layout="constrained", facecolor=style.PAPER)
        return made, made.subplots(rows, 1)


def written(figure: Figure, format: ImageFormat) -> bytes:
    """The figure as bytes without a date or a random identifier."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[format]
    target = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(target, format=format, dpi=144, metadata=metadata)
    return target.getvalue()


def thresholds(axes: Axes, side: Literal["left", "right"] = "right") -> None:
    """The verdicts' limits as dashed lines, each with its word at this side of the chart, above or below where it holds."""
    for threshold, word, offset, above in (
        (DEFAULT.vanishing, f"vanishing below 1e{DEFAULT.vanishing:.0f}", -3, "top"),
        (DEFAULT.exploding, f"exploding above 1e{DEFAULT.exploding:.0f}", 3, "bottom"),
    ):
        axes.axhline(threshold, color=style.FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            word,
            (1.0 if side == "right" else 0.0, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(-2 if side == "right" else 2, offset),
            textcoords="offset points",
            ha=side,
            va=above,
            color=style.FAINT,
            bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )


def window(many: Sequence[Tiers]) -> tuple[float, float]:
    """The fixed scale, widened to hold every prediction and measurement."""
    known = [value for tiers in many if (value := best(tiers)) is not None and math.isfinite(value)]
    known += [tiers.expected.mean for tiers in many if tiers.expected.mean is not None]
    lo, hi = style.SCALE
    margin = max(MARGIN, 0.08 * (max(known, default=0.0) - min(known, default=0.0)))
    return min([lo, *(value - margin for value in known)]), max([hi, *(value + margin for value in known)])


def predicted(axes: Axes, x: Array, many: Sequence[Tiers], label: str = "E predicted, +- one sd") -> None:
    """A line of predictions, one standard deviation to either side of it shaded."""
    mean = np.array([np.nan if tiers.expected.mean is None else tiers.expected.mean for tiers in many])
    sd = np.array([tiers.expected.sd or 0.0 for tiers in many])
    if np.isnan(mean).all():
        return
    axes.plot(x, mean, "-", color=style.INK, linewidth=1.3, label=label, zorder=3)
    axes.fill_between(x, mean - sd, mean + sd, color=style.INK, alpha=0.18, linewidth=0, zorder=2)


def observed(axes: Axes, x: Array, many: Sequence[Tiers], lowest: float, label: str = "M measured") -> None:
    """Points in the colours of the scale; a gradient that is exactly zero lies on the floor of the chart."""
    seen = [(at, value) for at, tiers in zip(x, many, strict=True) if (value := measured(tiers)) is not None]
    for zero, marker, named in ((False, "o", label), (True, "x", label and "M zero")):
        points = [(at, max(value, lowest)) for at, value in seen if math.isinf(value) is zero]
        if points:
            axes.scatter(
                [at for at, _ in points],
                [value for _, value in points],
                s=26 if len(many) <= MANY else 7,
                c=[style.band(value).stroke for _, value in points],
                marker=marker,
                edgecolors=None if zero else style.INK,
                linewidths=1.5 if zero else 0.6,
                label=named,
                zorder=4,
            )
