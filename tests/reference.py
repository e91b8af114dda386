"""The tests' oracle: the package's float64 evaluator, which knows nothing of the gradient rules."""

from vgcompile.reference import evaluator, in_float64, padding

__all__ = ["evaluator", "in_float64", "padding"]
