"""The collector rests while a graph is made, and is as it was afterwards."""

from __future__ import annotations

import gc

import pytest

from vgcompile.graph.pause import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ValueError):
            _fail()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


@uncollected()
def _fail() -> None:
    assert not gc.isenabled()
    raise ValueError
