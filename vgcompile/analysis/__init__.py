"""How much gradient gets through every edge: proved, predicted and measured."""

from vgcompile.analysis.pipeline import Options, analyze
from vgcompile.analysis.result import Analysis

__all__ = ["Analysis", "Options", "analyze"]
