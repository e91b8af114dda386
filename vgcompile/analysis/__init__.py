"""How much gradient gets through every edge: proved, predicted and measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgcompile.analysis.pipeline import Options, analyze
    from vgcompile.analysis.result import Analysis

# Names are imported when they are first used: `vgcompile summary` needs none of the tiers.
_HOMES = {
    "Analysis": "vgcompile.analysis.result",
    "Options": "vgcompile.analysis.pipeline",
    "analyze": "vgcompile.analysis.pipeline",
}

__all__ = ["Analysis", "Options", "analyze"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vgcompile.analysis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
