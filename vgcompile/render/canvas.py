"""What the charts have in common: figures that matplotlib draws without a display, the same analysis as the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vgcompile.analysis.presets import DEFAULT
from vgcompile.render import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
ImageFormat = Literal["svg", "png", "pdf"]

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


def thresholds(axes: Axes) -> None:
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
