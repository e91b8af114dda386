"""How values are followed: what rounding is given, when following stops, and in how many threads."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from vgcompile import spec
from vgcompile.analysis import sound as tier
from vgcompile.analysis.bounds import enclosure
from vgcompile.analysis.bounds.positive import root_of
from vgcompile.analysis.bounds.zonotope import Affine, Zonotopes
from vgcompile.build import build
from vgcompile.graph.network import Network
from vgcompile.interval import Array

POSITIVE = {
    "full rank": lambda rng: np.cov(rng.normal(size=(40, 200))),
    "of rank 1": lambda rng: np.outer(a := rng.normal(size=40), a),
    "zero": lambda rng: np.zeros((40, 40)),
    "of many scales": lambda rng: np.diag(10.0 ** -np.arange(0.0, 40.0)),
}


@pytest.mark.parametrize("name", POSITIVE)
def test_a_root_is_no_less_than_its_square(name: str) -> None:
    sigma = POSITIVE[name](np.random.default_rng(0))
    root = root_of(sigma)
    least = float(np.linalg.eigvalsh(root @ root.T - sigma)[0])
    assert least >= -1e-15 * np.trace(sigma)
    assert np.trace(root @ root.T - sigma) <= 1e-10 * np.trace(sigma)


def followed(slack: float) -> Affine:
    zonotopes = Zonotopes(inputs=[(0, 2, False)])
    known = Affine(np.zeros(3), np.ones((2, 3)), np.zeros(0, np.int64), np.zeros(3), np.full(3, 2.0))
    return zonotopes._with(known, np.full(3, slack))


@pytest.mark.parametrize(("slack", "numbers"), [(1e-13, 0), (1e-3, 3)])
def test_rounding_alone_is_no_number(slack: float, numbers: int) -> None:
    """It waits beside the numbers, and is part of how far the value may be all the same."""
    found = followed(slack)
    assert len(found.ids) == numbers
    assert (found.radius >= 2.0 + slack).all()
    held: Array = np.abs(found.rows).sum(axis=0) + found.slack
    assert (held >= 2.0 + slack).all()


def chain(depth: int, activation: str) -> Network:
    layers = f"  - {{kind: block, repeat: {depth}, layers: [{{kind: dense, units: 6, activation: {activation}}}]}}"
    return build(
        spec.loads(
            "name: n\ninputs:\n  x: {shape: [batch, 6], range: [-4, 4]}\n"
            f"init: {{weight: {{kind: normal, sd: 0.9}}, bias: zeros}}\nlayers:\n{layers}\n"
        )
    )


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_ranges_that_tell_no_slopes_are_given_up(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is lost by it: the bounds of all edges are those that following to the end gives."""
    steps: list[object] = []
    taken = enclosure._step
    monkeypatch.setattr(enclosure, "_step", lambda node, *given: steps.append(node) or taken(node, *given))
    network = chain(40, activation)
    early, count = tier.sound(network, "range"), len(steps)
    monkeypatch.setattr(enclosure, "MOST_UNTOLD", 1000)
    assert count < len(list(network.model.graph))
    late = tier.sound(network, "range")
    assert early.local.keys() == late.local.keys()
    data = {use for use in early.gain if use[0].inputs[use[1]].producer() is not None}
    assert np.allclose([early.gain[use][1] for use in data], [late.gain[use][1] for use in data], atol=1e-12)


def test_bounds_are_computed_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    begun = tier.enclose

    def watched(*given: object) -> object:
        seen.extend(each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas")
        return begun(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(tier, "enclose", watched)
    tier.sound(chain(2, "tanh"), "range")
    assert seen and set(seen) == {1}
