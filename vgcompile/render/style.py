"""Colours, widths and fonts of the pictures: data only.

The scale is log10 of a gain, fixed from -6 to +6 and never fitted to the data: a healthy net looks healthy. Seven bands, grey in
the middle, blue where the gradient vanishes, orange to red where it explodes; blue and orange stay apart under every common
colour blindness. Without colour the width tells them apart: a vanishing gradient is a thin line, an exploding one a thick line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SCALE = (-6.0, 6.0)


@dataclass(frozen=True)
class Band:
    """One class of the scale, from ``lo`` (included) to ``hi``: line colour and width in points, fill and text of a node."""

    lo: float
    hi: float
    name: str
    stroke: str
    width: float
    fill: str
    text: str


BANDS = (
    Band(-math.inf, -6.0, "vanished", "#053061", 0.8, "#053061", "#ffffff"),
    Band(-6.0, -3.0, "vanishing", "#2166ac", 1.4, "#2f74b5", "#ffffff"),
    Band(-3.0, -1.0, "weak", "#6baed6", 2.2, "#cfe3f3", "#1b1b1b"),
    Band(-1.0, 1.0, "healthy", "#8c8c8c", 3.2, "#f2f2f2", "#1b1b1b"),
    Band(1.0, 3.0, "strong", "#f09a4a", 4.6, "#fde0c2", "#1b1b1b"),
    Band(3.0, 6.0, "exploding", "#d35417", 6.4, "#d35417", "#ffffff"),
    Band(6.0, math.inf, "exploded", "#8c1c08", 8.4, "#8c1c08", "#ffffff"),
)
UNKNOWN = Band(math.nan, math.nan, "no number", "#b9b9b9", 1.0, "#ffffff", "#1b1b1b")

FONT = "Helvetica"
FONT_SIZE = 10
LABEL_SIZE = 8
TITLE_SIZE = 14
VERDICT_SIZE = 12
BOX_CHARACTERS = 56  # of a line in a box
TITLE_CHARACTERS = 100  # of a line in the title
INK = "#1b1b1b"  # text and outlines
FAINT = "#6b6b6b"  # shapes, legends
FORWARD = "#5b6470"  # forward edges, which carry no colour of their own
PAPER = "#ffffff"
SHADE = "#eef1f5"  # behind the boxes of one repeated block
WORST = "#000000"  # outline of the worst layer, with WORST_WIDTH
WORST_WIDTH = 3.0
GREEN = "#cfe8cf"  # where a derivative is not small: the green region of the founding text

SHAPES = {"input": "oval", "target": "oval", "layer": "box", "loss": "octagon", "seed": "octagon"}
VACUOUS = "dashed"  # no certified bound
ABSENT = "dotted"  # no number at all
VERDICTS = {
    "vanishing": "#2166ac",
    "exploding": "#c0430f",
    "healthy": "#2f6b2f",
    "saturated": "#7a4a00",
    "dead": "#053061",
    "unknown": "#5f5f5f",
}


def band(value: float | None) -> Band:
    """The class of a log10 gain; ``None``: no number is known."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return next(band for band in BANDS if band.lo <= value < band.hi or band.hi == math.inf)
