"""Verdicts beside those of other tools, and against the truth."""
