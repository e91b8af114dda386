"""How numbers and names are written in the pictures: plain ASCII, one decimal of a log10, and the tier always named.

    S [-11.2, -3.1]  E -8.4+-0.1  M -8.5        one edge: certified interval, prediction, observation
    S [-11.2, 0.3]  E -8.4..-0.2  M -8.5..-0.2  several edges at once: from the least to the greatest

S is the sound tier, E the expected, M the measured one.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from vgcompile.analysis.result import Elements, Tiers
from vgcompile.ops.op import Dim

NOTHING = {"zero": -math.inf, "underflow": -math.inf}  # reasons for an absent measurement that are numbers all the same


def number(value: float) -> str:
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def spread_text(sd: float) -> str:
    """``+-0.1``, with a further digit for a small one; nothing where nothing is spread."""
    return "" if sd < 0.005 else f"+-{sd:.1f}" if sd >= 0.095 else f"+-{sd:.2f}"


def measured(tiers: Tiers) -> float | None:
    """The measured log10; minus infinity where the gradient is exactly zero or was flushed to zero."""
    return tiers.measured if tiers.measured is not None else NOTHING.get(tiers.why.get("measured", ""))


def best(tiers: Tiers) -> float | None:
    """The one log10 that a picture shows: measured, else expected, else the certified upper bound, else None."""
    if (value := measured(tiers)) is not None:
        return value
    if tiers.expected.mean is not None:
        return tiers.expected.mean
    return None if tiers.sound.vacuous else tiers.sound.hi


def extreme(values: Sequence[float]) -> float:
    """The value furthest from 0: the weakest or the strongest, whichever is worse."""
    return max(values, key=abs)


def tiers_text(many: Sequence[Tiers]) -> str:
    """The three tiers of one quantity, or their range over several; a tier that was not asked for is left out."""
    if not many:
        return ""
    parts = (_sound_text(many), _expected_text(many), _measured_text(many))
    return "  ".join(part for part in parts if part)


def elements_text(many: Sequence[Elements]) -> str:
    """``max -2.1  zeros 49%  not finite 1%``, of several edges the greatest; what there is none of is left out."""
    peaks = [elements.peak for elements in many if elements.peak is not None]
    zeros, undefined = (max(shares, default=0.0) for shares in ([e.zeros for e in many], [e.undefined for e in many]))
    parts = (
        f"max {number(max(peaks))}" if peaks else "",
        f"zeros {zeros:.0%}" if zeros else "",
        f"not finite {undefined:.0%}" if undefined else "",
    )
    return "  ".join(part for part in parts if part)


def _sound_text(many: Sequence[Tiers]) -> str:
    sound = [tiers.sound for tiers in many]
    if all(tiers.why.get("sound.hi") == "zero" for tiers in many):
        return "S zero"
    if any(tiers.why.get("sound.hi") in ("not_run", "undefined") for tiers in many):
        return ""
    if any(s.vacuous for s in sound):
        return "S unbounded" if any(tiers.why.get("sound.hi") == "unbounded" for tiers in many) else "S vacuous"
    los, his = [s.lo for s in sound if s.lo is not None], [s.hi for s in sound if s.hi is not None]
    lo = number(min(los)) if len(los) == len(sound) else "-inf"
    hi = number(max(his)) if len(his) == len(sound) else "inf"
    return f"S [{lo}, {hi}]"


def _expected_text(many: Sequence[Tiers]) -> str:
    expected = [tiers.expected for tiers in many]
    means = [e.mean for e in expected if e.mean is not None]
    if not means:
        return ""
    doubt = "?" if any(e.confidence == "low" for e in expected) else ""
    if len(many) == 1 and expected[0].sd is not None:
        return f"E {number(means[0])}{spread_text(expected[0].sd)}{doubt}"
    return f"E {_range_text(means)}{doubt}"


def _measured_text(many: Sequence[Tiers]) -> str:
    if len(many) == 1 and (reason := many[0].why.get("measured", "")) in NOTHING and many[0].measured is None:
        return f"M {reason}"
    values = [value for tiers in many if (value := measured(tiers)) is not None]
    return f"M {_range_text(values)}" if values else ""


def _range_text(values: Sequence[float]) -> str:
    least, most = number(min(values)), number(max(values))
    return least if least == most else f"{least}..{most}"


def shape_text(shape: Sequence[Dim]) -> str:
    """``batch x 3 x 32 x 32``; a symbol that the compiler made up, with a slash in it, reads ``?``."""
    return " x ".join(str(dim) if isinstance(dim, int) or "/" not in dim else "?" for dim in shape) or "scalar"


def count_text(count: int) -> str:
    """``10,100 parameters``, or nothing for none."""
    return f"{count:,} parameter{'s' if count != 1 else ''}" if count else ""


def ascii_text(text: str) -> str:
    """Text for a Graphviz label: what is not ASCII becomes an escape, for the engines measure text byte by byte."""
    return text.encode("ascii", "backslashreplace").decode()


def markup(text: str) -> str:
    """The same within an HTML-like label."""
    return html.escape(ascii_text(text), quote=True)
