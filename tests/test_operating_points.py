"""Each row's vjp where the models in models/ use it: at the values that the network really has there.

The oracle is float64 differences. Through a whole deep net they are blind to small gradients; node by node, at the operating
point, they are not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.digits_models import DIGITS
from vgcompile.verification import verify


@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_vjp_at_the_operating_point(path: Path) -> None:
    found = verify(path, seed=5, stages=["node"])
    assert not found.wrong
    assert not found.reasons("node")
    assert not [check for check in found.checks if check.reason], "a node was judged in float32"
