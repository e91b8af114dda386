"""Where on its activation each layer works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vgcompile.analysis.result import Activation, Analysis
from vgcompile.analysis.saturation import FLAT
from vgcompile.interval import WHOLE
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import Case, Op
from vgcompile.ops.reading import slope, slope_range
from vgcompile.render import style
from vgcompile.render.canvas import Array, ImageFormat, figure, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND_CHARACTERS = 105  # of labels beside each other
LABEL_CHARACTERS = 80  # of one
BINS = 80  # of a histogram over the whole axis, at most


def activation_plot(analysis: Analysis, format: ImageFormat = "svg") -> bytes:
    """Each kind of activation in use: phi, its derivative, the region where the derivative is not small in green, and how the
    pre-activations of the first, a middle and the last such layer are spread over it."""
    kinds = kinds_of(analysis)
    drawn, axes = figure(7.0, 3.4 * max(1, len(kinds)), rows=max(1, len(kinds)))
    if not kinds:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No activation of one variable in this network.", ha="center", va="center")
    for panel, (row, uses) in zip(np.ravel(axes), kinds, strict=False):
        _activation(panel, row, uses)
    return written(drawn, format)


def kinds_of(analysis: Analysis) -> list[tuple[Op, list[Activation]]]:
    """The activations by operator and attributes, those with a row of one variable."""
    kinds: dict[str, tuple[Op, list[Activation]]] = {}
    for activation in analysis.activations:
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
