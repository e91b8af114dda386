"""What a gradient loses in a floating-point type: elements that round to zero, updates that change no weight.

Elements are taken to be Gaussian, of a root mean square whose log10 is known with a standard deviation: the log-normal band of
the expected tier (Hanin and Nica 2020), or 0 of a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LOG2 = math.log10(2.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class FloatType:
    """A binary type of IEEE 754 or its kin: ``precision`` is p, bits of the significand with the hidden one; ``least`` and
    ``greatest`` are log10 of its smallest subnormal and its largest finite number."""

    name: str
    precision: int
    least: float
    greatest: float


def _binary(name: str, precision: int, least: int, greatest: int) -> FloatType:
    return FloatType(name, precision, least * LOG2, greatest * LOG2 + math.log10(2.0 - 2.0 ** (1 - precision)))


FLOATS: Mapping[str, FloatType] = {
    kind.name: kind
    for kind in (_binary("float32", 24, -149, 127), _binary("float16", 11, -24, 15), _binary("bfloat16", 8, -133, 127))
}


def share_flushed(size: ArrayLike, sd: ArrayLike, kind: FloatType) -> np.ndarray[Any, Any]:
    """The share of Gaussian elements that round to zero: |g| at most half of the least number. ``size`` [...] is log10 of their
    root mean square, ``sd`` [...] its standard deviation."""
    logs = kind.least - LOG2 - np.asarray(size)[..., None] - np.asarray(sd)[..., None] * _NODES
    ratios = 10.0 ** np.clip(logs, -300.0, 300.0) / math.sqrt(2.0)
    shares = [math.erf(ratio) for ratio in ratios.ravel().tolist()]  # of so few numbers, in less time than to import another erf
    return np.asarray(np.clip(np.reshape(shares, ratios.shape) @ _WEIGHTS, 0.0, 1.0))


def share_lost(update: float, kind: FloatType) -> float:
    """The share of weights that an update leaves as they are: |u| < 2^-p |w|, both Gaussian, so that their quotient is Cauchy's.
    ``update`` is log10 of ||u|| / ||w||."""
    return 2.0 / math.pi * math.atan2(1.0, 10.0 ** (update + kind.precision * LOG2))
