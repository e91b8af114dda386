"""Networks of the literature beside PyTorch's, made small: one weight for both, output and all gradients in float64."""

from __future__ import annotations

import pytest

from benchmarks.models.comparison import ALLOWED, compared
from benchmarks.models.references import REFERENCES, Reference

SMALL = {name: reference for name, reference in REFERENCES.items() if reference.small is not None}


@pytest.mark.parametrize(("name", "reference"), SMALL.items(), ids=SMALL)
def test_output_and_gradients_are_pytorchs(name: str, reference: Reference) -> None:
    """By the worst parameter, for a small gradient beside large ones is a gradient too. In float32 only the output is compared: a
    ReLU that rounding turns over makes a gradient jump, in either program."""
    assert reference.small is not None
    try:
        found = compared(name, reference, reference.small)
    except ImportError as error:
        pytest.skip(f"compared with another library's module: {error}")
    assert found.double.largest <= ALLOWED
    assert found.single.output <= max(ALLOWED, 16 * found.theirs.output)
