"""Thresholds by name: our own, and those that other tools published, each with its source.

Ours are relative, so that neither the loss's scale nor the batch's size moves a verdict. The others' are of the gradient as it
is, which only a run knows: with them a verdict rests on the measured tier alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vgcompile.errors import UserError, nearest

# relative  ||dL/dz|| of the layer's pre-activation against that of the last hidden layer's
# ratio     ||dL/dW|| of the layer's weights against that of the last layer's
# norm      ||dL/dW|| of the layer's weights
# mean      the mean of |dL/dW|, that of Gaussian elements with the measured root mean square
Quantity = Literal["relative", "ratio", "norm", "mean"]
HALF_NORMAL = math.log10(math.sqrt(2.0 / math.pi))  # log10 of E|z|, z standard normal


@dataclass(frozen=True)
class Preset:
    """Below ``vanishing`` a layer's gradient has vanished, above ``exploding`` it explodes, both log10 of ``quantity``.

    ``floor``: vanishing as well takes ||dL/dW|| below this log10. ``first``: only the first layer is judged.
    """

    name: str
    quantity: Quantity
    vanishing: float
    exploding: float
    source: str
    floor: float = math.inf
    first: bool = False


DEFAULT = Preset("default", "relative", -3.0, 3.0, "a thousandth, or a thousandfold, of the last hidden layer's gradient")

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        DEFAULT,
        Preset("sagemaker", "mean", -7.0, 1.0, "Amazon SageMaker Debugger, docs/analysis.md: 1e-7; 10 in its example"),
        Preset(
            "autotrainer",
            "ratio",
            -3.0,
            math.log10(70.0),
            "AutoTrainer (Zhang et al., ICSE 2021), utils/monitor.py: first against last 1e-3 and first 1e-4, or 70",
            floor=-4.0,
            first=True,
        ),
        Preset("thedeepchecker", "mean", -6.0, 6.0, "TheDeepChecker (Ben Braiek and Khomh), config/settings.yaml: 1e-6, 1e6"),
        Preset("torchlens", "norm", -7.0, 4.0, "torchlens 2.33, gradient_flow_audit: 1e-7, 1e4"),
    )
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """Raises UserError with the nearest name."""
    if name not in PRESETS:
        raise UserError(f"--preset {name!r}: " + (nearest(name, PRESETS) or f"it takes {', '.join(PRESETS)}"))
    return PRESETS[name]


def absolute(preset: Preset, norm: float, size: int, last: float) -> float:
    """log10 of a preset's quantity, from log10 ||dL/dW|| of a layer with ``size`` weights and that of the ``last`` one."""
    if preset.quantity == "ratio":
        return norm - last
    return norm if preset.quantity == "norm" else norm - 0.5 * math.log10(size) + HALF_NORMAL
