"""The models that a suite can afford to run: those on the digits that lie beside them."""

from __future__ import annotations

from pathlib import Path

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.yaml"))
DIGITS = [path for path in MODELS if "data/digits.npz" in path.read_text()]
