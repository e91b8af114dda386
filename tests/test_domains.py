"""Which domains bound: every choice of them is sound, says so, and is no tighter than all together."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.sound.attack import attack
from benchmarks.sound.families import FAMILIES, random_model
from benchmarks.sound.nets import Net, jacobian, matrices
from benchmarks.sound.tightness import QUICK
from tests.random_models import models
from vgcompile import norms, spec
from vgcompile.analysis import Options, analyze
from vgcompile.analysis.bounds import latents
from vgcompile.analysis.bounds.domains import CENTRE, DOMAINS, ELLIPSOID, PRODUCT, ZONOTOPE, Domain, chosen
from vgcompile.analysis.bounds.region import Region, region
from vgcompile.analysis.bounds.slopes import slopes
from vgcompile.analysis.sound import sound
from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.cli.analyze import DOMAINS as OFFERED
from vgcompile.errors import UserError
from vgcompile.graph.network import Network
from vgcompile.interval import interval
from vgcompile.ops import lookup
from vgcompile.ops.op import Case

Array = np.ndarray[Any, Any]
CHOICES = [chosen([PRODUCT, *few]) for k in range(4) for few in combinations(DOMAINS[1:], k)]
FORMS = ("everywhere", "range", "ball:0.1", "ball:0.05@linf", "ball:0.01@linf")
MOVED = 0.01  # log10: with the ranges the middles of slopes move, and what lies around another middle may be a little less
NET = "name: n\ninputs:\n  x: {shape: [batch, 3], range: [-1, 1]}\nlayers:\n  - {kind: dense, units: 4, activation: tanh}\n"


def near(net: Net, radius: float) -> tuple[Network, Region, Array]:
    """A net, an l-infinity ball around a point, and the point."""
    network, x = net.network(0), np.random.default_rng(0).normal(size=net.width).astype(np.float32)
    return network, region(network, f"ball:{radius}@linf", {"x": x[None]}), x.astype(np.float64)


def at_input(network: Network, where: Region, domains: tuple[Domain, ...]) -> tuple[float, float]:
    """Bounds of the gain from the output to the input, as numbers."""
    (x,) = [value for value in network.model.graph.inputs if value.name == "x"]
    lo, hi = sound(network, where, domains=domains).total[x]
    return 10.0**lo, 10.0**hi


# ------------------------------------------------------------------------------------------------------------------ the option


def test_the_command_offers_what_there_is() -> None:
    assert tuple(OFFERED.split(",")) == DOMAINS


def test_product_is_always_there() -> None:
    assert chosen(["centre"]) == (PRODUCT, CENTRE)
    assert chosen(["centre", "ellipsoid", "zonotope"]) == DOMAINS


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["center"], "did you mean 'centre'?"),
        (["zonotop", "product"], "did you mean 'zonotope'?"),
        (["x"], "it takes product, zonotope, ellipsoid, centre"),
        ([], "names none; it takes product"),
    ],
)
def test_a_domain_that_is_none_is_refused(names: list[Any], said: str) -> None:
    with pytest.raises(UserError, match="--domains") as caught:
        analyze(build(spec.loads(NET)), Options(domains=names, tiers=("sound",)))
    assert said in str(caught.value)


@pytest.mark.parametrize(("words", "said"), [("product,center", "did you mean 'centre'?"), (",", "names none")])
def test_the_command_refuses_it_too(words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(NET)
    assert main(["analyze", str(path), "--domains", words]) != 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_choice_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(NET)
    assert main(["analyze", str(path), "--domains", "centre", "--tiers", "sound", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["provenance"]["domains"] == ["product", "centre"]
    assert document["region"] == "range: x in [-1, 1]; bounds of product, centre alone"
    named = {name for edge in document["edges"] for name in edge["gain"]["sound"].get("by", [])}
    assert named <= {"product", "centre"}
    whole = analyze(build(spec.loads(NET)), Options(tiers=("sound",)))
    assert whole.region == "range: x in [-1, 1]"
    assert whole.provenance["domains"] == list(DOMAINS)


# ------------------------------------------------------------------------------------------------------------------- soundness


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=models(), domains=st.sampled_from(CHOICES), form=st.sampled_from(FORMS))
def test_every_choice_is_sound_and_no_tighter_than_all(text: str, domains: tuple[Domain, ...], form: str) -> None:
    network = build(spec.loads(text))
    if form != "everywhere" and any(each.range is None for each in network.inputs.values() if each.dtype.is_floating_point()):
        form = "everywhere"
    where = region(network, form)
    few, every = sound(network, where, domains=domains), sound(network, where)
    moved = 1e-9 if set(domains) <= {PRODUCT, ZONOTOPE} else MOVED
    assert few.gain.keys() == every.gain.keys()
    for use, (lo, hi) in few.gain.items():
        least, most = every.gain[use]
        assert lo <= min(least + moved, most + 1e-9)
        assert hi >= max(most - moved, least - 1e-9)
        assert set(few.by[use]) <= set(domains)
    measured = analyze(network, Options(tiers=("sound", "measured"), domains=domains, region=form, batch=3))
    assert measured.self_check.violations == ()


@pytest.mark.parametrize("seed", range(len(FAMILIES)))
def test_no_attack_leaves_a_choice(seed: int) -> None:
    domains, form = CHOICES[seed % len(CHOICES)], FORMS[(seed + 2) % len(FORMS)]
    family, text = random_model(seed)
    assert attack(family, text, form, 120, seed, steps=3, domains=domains).violations == ()


@pytest.mark.parametrize("seed", range(len(FAMILIES)))
def test_no_attack_leaves_the_centre(seed: int) -> None:
    """Alone it works out the reach of what is uncertain by itself."""
    family, text = random_model(seed + len(FAMILIES))
    assert attack(family, text, "ball:0.05@linf", 120, seed, steps=3, domains=(PRODUCT, CENTRE)).violations == ()


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_the_centre_alone_is_exact_at_a_point(activation: Any) -> None:
    net = Net(activation, 8, 4)
    network, where, x = near(net, 1e-10)
    values = np.linalg.svd(jacobian(net, matrices(network), x), compute_uv=False)
    lo, hi = at_input(network, where, (PRODUCT, CENTRE))
    assert values[-1] * (1.0 - 1e-4) <= lo <= values[-1]
    assert values[0] <= hi <= values[0] * (1.0 + 1e-6)


@pytest.mark.parametrize(
    ("where", "attribute", "instead"),
    [
        (latents.Latents, "deviation", lambda self, v: 0.0),
        (latents, "singular_extremes", lambda a, beneath=0.0: (0.0, 0.98 * norms.singular_extremes(a)[1])),
    ],
    ids=["distance", "greatest"],
)
def test_a_broken_centre_is_seen(where: Any, attribute: str, instead: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the greatest gain at the ball's corners, or by the only one of a point."""
    network, ball, x = near(net := Net("tanh", 6, 3), 0.2)
    corners = x + 0.2 * np.random.default_rng(1).choice([-1.0, 1.0], size=(300, 6))
    best = max(float(np.linalg.norm(jacobian(net, matrices(network), corner), 2)) for corner in corners)
    assert best <= at_input(network, ball, (PRODUCT, ZONOTOPE, CENTRE))[1]
    monkeypatch.setattr(where, attribute, instead)
    point = near(net, 1e-10)[1]
    exact = float(np.linalg.norm(jacobian(net, matrices(network), x), 2))
    broken = at_input(network, ball, (PRODUCT, ZONOTOPE, CENTRE))[1], at_input(network, point, (PRODUCT, CENTRE))[1]
    assert best > broken[0] or exact > broken[1]


# ------------------------------------------------------------------------------------------------------------ tightness and work


@pytest.mark.parametrize(("name", "most"), [("its zonotope, centre", 1.05), ("its centre", 1.25)])
def test_sigmoid_chain_by_the_quick_domains(name: str, most: float) -> None:
    """5 x 64 at l-infinity radius 0.01, of which 1.5 is asked for: over the gain at the centre."""
    net = Net("sigmoid", 64, 5)
    network, where, x = near(net, 0.01)
    exact = np.linalg.norm(jacobian(net, matrices(network), x), 2)
    assert exact <= at_input(network, where, QUICK[name])[1] <= most * exact


def test_the_centre_alone_makes_no_ellipsoid(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is quick because of what is never computed."""

    def refuse(*args: Any) -> Any:
        raise AssertionError("an ellipsoid is made")

    for name in ("_sigma", "_shape", "extent"):
        monkeypatch.setattr(latents.Latents, name, refuse)
    network, where, _ = near(Net("tanh", 8, 4), 0.01)
    at_input(network, where, (PRODUCT, ZONOTOPE, CENTRE))
    with pytest.raises(AssertionError, match="ellipsoid"):
        at_input(network, where, (PRODUCT, ELLIPSOID))


def test_no_decomposition_for_what_is_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6)) @ np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 1e-7])
    least, most = np.linalg.svd(matrix, compute_uv=False)[[-1, 0]]
    known = norms.singular_extremes(matrix)
    assert 0.0 < known[0] <= least
    assert norms.singular_extremes(matrix, 1e-9 * most) == known
    monkeypatch.setattr(np.linalg, "svd", lambda *args, **kwargs: pytest.fail("a decomposition is made"))
    assert norms.singular_extremes(matrix, 0.01 * most) == (0.0, known[1])


@pytest.mark.parametrize("n", [1, 5, 47, 48, 64, 127])
@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1.0, 1e150])
def test_the_greatest_eigenvalue_of_any_size(n: int, scale: float) -> None:
    """By the Rayleigh quotient of its own vector, whatever squares of entries do."""
    a = np.random.default_rng(n).normal(size=(n, max(n // 2, 1)))
    gram = a @ a.T
    values, vectors = np.linalg.eigh(gram)
    most = max(values[-1], float(vectors[:, -1] @ gram @ vectors[:, -1]))
    assert most * scale * (1.0 - 1e-13) <= norms.largest_eigenvalue(gram * scale) <= most * scale * (1.0 + 1e-10)
    assert norms.largest_eigenvalue(0.0 * gram) == 0.0
    assert norms.largest_eigenvalue(gram * math.nan) == norms.largest_eigenvalue(gram * math.inf) == math.inf


def test_what_is_kept_of_a_case_is_its_own() -> None:
    """A case with other ranges asks anew."""
    row = lookup("Tanh", "")
    assert row is not None
    narrow = Case(ranges=(interval([0.5], [0.6]),), shapes=((1,),), outputs=((1,),))
    wide = replace(narrow, ranges=(interval([-3.0], [3.0]),))
    first = slopes(row, narrow, 0, 0.0)
    assert slopes(row, narrow, 0, 0.0) is first
    later = replace(narrow, ranges=wide.ranges)
    for found in (slopes(row, wide, 0, 0.0), slopes(row, later, 0, 0.0)):
        assert found.lo < first.lo
        assert found.hi > first.hi
