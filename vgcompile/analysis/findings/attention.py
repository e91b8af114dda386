"""Attention over positions that are all alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Finding
from vgcompile.analysis.uses import layer_of
from vgcompile.graph.network import Network
from vgcompile.ops import lookup
from vgcompile.rules.gradients import COLLAPSED

Array = np.ndarray[Any, Any]
COLLAPSE = 1e-2  # of the values' length: below this residual they are the same at all positions


def averaged(network: Network) -> list[tuple[ir.Node, ir.Value]]:
    """The nodes that make means over positions, and the values that they make them of."""
    found = []
    for node in network.model.graph:
        row = lookup(node.op_type, node.domain)
        if row is not None and row.averages is not None and (value := node.inputs[row.averages]) is not None:
            found.append((node, value))
    return found


def watched(network: Network) -> list[str]:
    """Names of the values of the first, the middle and the last attention, for a run to show: all of them may be large."""
    names = [value.name or "" for _, value in averaged(network)]
    return [names[place] for place in sorted({0, len(names) // 2, len(names) - 1})] if names else []


def findings(subject: Subject) -> Iterator[Finding]:
    for node, value in averaged(subject.network):
        shown = value.name or ""
        seen = [run.watched[shown] for run in subject.tiers.measured if shown in run.watched]
        left = residual(seen[-1]) if seen else _predicted(subject, value)
        if left is None or left >= COLLAPSE:
            continue
        name = layer_of(node) or node.name or ""
        yield Finding(
            COLLAPSED,
            name,
            subject.mark(name),
            "observed" if seen else "predicted",
            "warning",
            f"the values of its positions differ by {left:.1e} of their length",
            float(np.log10(max(left, 1e-300))),
            "positions that tell the tokens apart, skips around attention, no large bias in front of it",
        )


def residual(x: Array) -> float | None:
    """||X - 1 mean(X)|| / ||X|| over the positions of [..., positions, features] (Dong et al. 2021, equation 1, in the Frobenius
    norm); None for a single position."""
    if x.ndim < 3 or x.shape[-2] < 2 or not np.isfinite(x).all():
        return None
    x = x.astype(np.float64)
    length = float(np.linalg.norm(x))
    return float(np.linalg.norm(x - x.mean(axis=-2, keepdims=True))) / length if length > 0 else None


def _predicted(subject: Subject, value: ir.Value) -> float | None:
    """The same of the expected tier: sqrt(1 - E[x_s x_t] / E[x^2]) for two positions s and t."""
    reading = subject.tiers.expected.readings.get(value) if subject.tiers.expected else None
    if reading is None or reading.base is None or not reading.base.signal.square > 0:
        return None
    signal = reading.base.signal
    return float(np.sqrt(max(1.0 - signal.within / signal.square, 0.0)))
