"""Gradients of random graphs against differences, one file at three sets of extents."""

from __future__ import annotations

import random
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx

import vgcompile
from tests import random_graphs
from tests.random_graphs import RUNS, Array, Graph
from tests.reference import evaluator, in_float64

STEP = 1e-5
LARGE = 1e6  # values beyond it leave differences without digits


def checked(g: Graph, profile: Any = "fast", seed: int = 0) -> list[str]:
    """The runs in which the gradient disagrees with the differences, in words; nothing where it agrees."""
    given = random_graphs.proto(g)
    onnx.checker.check_model(given)
    joint = vgcompile.grad(given, wrt="all" if g.weights else "inputs", seed_input=True, profile=profile)
    forward, backward = (in_float64(model).SerializeToString() for model in (given, joint))
    return [text for run in range(RUNS) if (text := _compared(g, forward, backward, run, seed))]


def _compared(g: Graph, forward: bytes, backward: bytes, run: int, seed: int) -> str:
    data = random_graphs.feeds(g, run, seed)
    learned = {name: array.astype(np.float64) for name, array in g.weights.items() if array.dtype.kind == "f"}
    asked = _names(backward)
    point = {**{name: array for name, array in learned.items() if f"grad.{name}" in asked}, **data}
    before = _run(forward, data, learned)
    rng = np.random.default_rng(seed + 1)
    adjoints = {name: rng.normal(size=y.shape) for name, y in before.items() if f"adj.{name}" in _inputs(backward)}
    if not all(np.isfinite(y).all() and np.abs(y).max(initial=0.0) < LARGE for y in before.values()):
        return ""
    found = _run(backward, {**data, **{f"adj.{name}": a for name, a in adjoints.items()}}, learned)
    for name, y in before.items():
        if not np.allclose(found[name], y, rtol=1e-6, atol=1e-6):  # the epsilon of what is recognized has float32's digits
            return f"run {run}: the joint graph gives out another {name}: {found[name]} for {y}"
    for name, at in point.items():
        gradient = found[f"grad.{name}"]
        if gradient.shape != at.shape:
            return f"run {run}: grad.{name} is {gradient.shape} for {at.shape}"
        v = rng.normal(size=at.shape)

        def loss(t: float, name: str = name, at: Array = at, v: Array = v) -> float:
            moved = {name: at + t * v}
            results = _run(forward, {**data, **(moved if name in data else {})}, {**learned, **({} if name in data else moved)})
            return sum(float(np.vdot(a, results[o])) for o, a in adjoints.items())

        here, up, down = loss(0.0), loss(STEP), loss(-STEP)
        slopes = (up - here) / STEP, (here - down) / STEP
        second = abs(slopes[0] - slopes[1])
        allowed = 1e-4 * (1.0 + max(map(abs, slopes)) + abs(here)) + 0.5 * second
        got = float(np.vdot(v, gradient))
        if not abs(got - sum(slopes) / 2) <= allowed:
            return f"run {run}: grad.{name} {got} lies outside of {slopes}"
    return ""


def _names(model: bytes) -> set[str]:
    return {o.name for o in onnx.load_from_string(model).graph.output}


def _inputs(model: bytes) -> set[str]:
    return {i.name for i in onnx.load_from_string(model).graph.input}


def _run(model: bytes, data: dict[str, Array], held: dict[str, Array]) -> dict[str, Array]:
    """``held`` override what the model holds: it is written over, for the evaluator prefers its own."""
    moved = evaluator(model)
    previous = {name: moved.rt_inits_[name] for name in held if name in moved.rt_inits_}
    moved.rt_inits_.update({name: held[name] for name in previous})
    try:
        with np.errstate(all="ignore"):
            return dict(zip(moved.output_names, moved.run(None, {**data, **_defaults(model, data, held)}), strict=True))
    finally:
        moved.rt_inits_.update(previous)


def _defaults(model: bytes, data: dict[str, Array], held: dict[str, Array]) -> dict[str, Array]:
    return {name: held[name] for name in _inputs(model) if name in held and name not in data}


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.integers(0, 2**32), st.sampled_from(["fast", "portable"]))
def test_gradients_of_random_graphs(seed: int, profile: str) -> None:
    assert checked(random_graphs.drawn(random.Random(seed)), profile) == []
