"""The truth that a gradient is compared with: directional derivatives of a case's forward, by differences in float64.

Where the slopes of the two sides disagree (vgcompile/verification/slopes.py) the published data sit on a kink or a jump. Then the
gradient is judged where the inputs are moved off it by a small seeded perturbation, and at the published data it has to lie
between the one-sided slopes, output element by output element.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from benchmarks.conformance.cases import Case
from benchmarks.conformance.running import CannotRun, Runner
from tests.reference import evaluator
from vgcompile.reference import REAL, retyped
from vgcompile.verification.slopes import DOUBLE, SINGLE, Precision, Slopes, size_of, slopes

Array = np.ndarray[Any, Any]
Forward = Callable[[Mapping[str, Array]], dict[str, Array]]

DIRECTIONS = 2  # random directions for each input
LARGE = 20_000  # numbers in and out of a case, beyond which the reference evaluator's loops take too long
MOVES = (0.03, 0.1, 0.3)  # of an input's own size: how far it is moved off a kink
# Real inputs that set how an operator samples and that no framework learns: their adjoint has to be finite, no more.
SETTINGS = {"Resize": (1, 2), "Upsample": (1,), "Dropout": (1,)}
# Operators whose real output does not depend on the values of their real input, or only through a draw.
INDEPENDENT = {"Bernoulli", "RandomNormalLike", "RandomUniformLike"}
MASKED = "Dropout"  # its derivative is its own output over its input: the mask that the same run drew


@dataclass(frozen=True)
class Direction:
    """One direction ``v`` of one input, and the slopes of the outputs along it, in the order of the outputs."""

    name: str
    v: Array
    slopes: Slopes


@dataclass(frozen=True)
class Point:
    """Where a gradient is judged: inputs, adjoints of the outputs, and the slopes of each judged input."""

    where: str  # "published" or "moved"
    feeds: Mapping[str, Array]
    adjoints: Mapping[str, Array]
    directions: tuple[Direction, ...]
    finite: bool  # whether the forward is finite there

    @property
    def smooth(self) -> bool:
        return self.finite and all(direction.slopes.smooth for direction in self.directions)


@dataclass(frozen=True)
class Truth:
    precision: Precision
    points: tuple[Point, ...]


class NoTruth(Exception):
    """Nothing independent evaluates the case's forward well enough for differences."""


def truth(case: Case) -> Truth:
    """Raises NoTruth where there is no faithful forward, or no smooth place near the published data."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    if case.operator in INDEPENDENT or case.operator == MASKED:
        adjoints = {
            name: rng.standard_normal(y.shape).astype(y.dtype) for name in case.real_outputs for y in [case.expected[name]]
        }
        return Truth(SINGLE, (Point("published", case.feeds, adjoints, (), True),))
    precision, forward = _forward(case)
    first = point(case, forward, precision, "published", case.feeds, rng)
    points = [first]
    if not first.smooth:
        points.append(_off(case, forward, precision, first, rng))
    return Truth(precision, tuple(points))


def _settings(case: Case) -> tuple[str, ...]:
    node = case.model.graph.node[-1]
    positions = SETTINGS.get(case.operator, ())
    names = [node.input[i] for i in positions if i < len(node.input)] if node.op_type == case.operator else []
    return tuple(name for name in names if name in case.real_inputs)


def _off(case: Case, forward: Forward, precision: Precision, first: Point, rng: np.random.Generator) -> Point:
    """The first moved place where all slopes are smooth and the outputs have their published shapes."""
    held = set(_settings(case))
    for amount in MOVES:
        for positive in (False, True):
            moved = dict(case.feeds)
            for name in case.real_inputs:
                if name not in held:
                    moved[name] = _moved(case.feeds[name], amount, positive, rng)
            try:
                found = point(case, forward, precision, "moved", moved, rng)
            except NoTruth:
                continue
            shapes = {name: g.shape for name, g in found.adjoints.items()}
            if found.smooth and shapes == {name: g.shape for name, g in first.adjoints.items()}:
                return found
    raise NoTruth("no smooth place was found near the published data")


def _moved(x: Array, amount: float, positive: bool, rng: np.random.Generator) -> Array:
    """Moved by ``amount`` of its size, and made positive where that is asked for; what is infinite stays, NaN is drawn."""
    exact = x.astype(np.float64)
    size = size_of(exact)
    noise = rng.standard_normal(x.shape) * amount * size
    moved = np.where(np.isnan(exact), rng.standard_normal(x.shape), exact + np.where(np.isfinite(exact), noise, 0.0))
    return np.asarray(np.abs(moved) if positive else moved).astype(x.dtype)


def point(
    case: Case, forward: Forward, precision: Precision, where: str, feeds: Mapping[str, Array], rng: np.random.Generator
) -> Point:
    """Raises NoTruth where the forward cannot be evaluated there."""
    exact = {name: array.astype(np.float64) if name in case.real_inputs else array for name, array in feeds.items()}
    base = _evaluated(forward, exact)
    kinds = {value.name: case.expected[value.name].dtype for value in case.model.graph.output}
    adjoints = {name: np.asarray(rng.standard_normal(base[name].shape)).astype(kinds[name]) for name in case.real_outputs}
    held = _settings(case)
    directions = tuple(
        _direction(case, forward, precision, exact, base, name, rng)
        for name in case.real_inputs
        if name not in held and feeds[name].size
        for _ in range(DIRECTIONS)
    )
    finite = all(np.isfinite(base[name]).all() for name in case.real_outputs)
    return Point(where, dict(feeds), adjoints, directions, finite)


def _evaluated(forward: Forward, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        return {name: np.asarray(array) for name, array in forward(feeds).items()}


def _direction(
    case: Case,
    forward: Forward,
    precision: Precision,
    feeds: Mapping[str, Array],
    base: Mapping[str, Array],
    name: str,
    rng: np.random.Generator,
) -> Direction:
    x = feeds[name]
    v = rng.standard_normal(x.shape)
    here = flat(base, case.real_outputs)

    def along(t: float) -> Array:
        if t == 0.0:
            return here
        try:
            there = _evaluated(forward, {**feeds, name: x + t * v})
        except NoTruth:
            return np.full(here.shape, np.nan)
        kept = all(there[y].shape == base[y].shape for y in case.real_outputs)
        return flat(there, case.real_outputs) if kept else np.full(here.shape, np.nan)

    return Direction(name, v, slopes(along, precision.step * size_of(x), precision))


def flat(arrays: Mapping[str, Array], names: Sequence[str]) -> Array:
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in names])


def _forward(case: Case) -> tuple[Precision, Forward]:
    """The first way to evaluate the case that keeps to what is published: the reference evaluator in float64, ONNX Runtime
    in float64, either in float32."""
    size = sum(array.size for array in (*case.feeds.values(), *case.expected.values()))
    reference, runtime = (_reference, DOUBLE), (_runtime(TensorProto.DOUBLE), DOUBLE)
    first = (runtime, reference) if size > LARGE else (reference, runtime)
    reasons = []
    for make, precision in (*first, (_runtime(TensorProto.FLOAT), SINGLE)):
        try:
            forward = make(case)
            _require_faithful(case, forward, precision)
        except NoTruth as error:
            reasons.append(f"{precision.name}: {error}")
            continue
        return precision, forward
    raise NoTruth("; ".join(reasons))


def _reference(case: Case) -> Forward:
    model = retyped(case.model, TensorProto.DOUBLE)
    try:
        session = evaluator(model.SerializeToString())
    except Exception as error:  # the evaluator has no family of errors
        raise NoTruth(f"reference evaluator: {_line(error)}") from None
    return lambda feeds: _by_reference(session, feeds)


def _by_reference(session: ReferenceEvaluator, feeds: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return dict(zip(session.output_names, session.run(None, dict(feeds)), strict=True))
    except Exception as error:
        raise NoTruth(f"reference evaluator: {_line(error)}") from None


def _runtime(kind: int) -> Callable[[Case], Forward]:
    def make(case: Case) -> Forward:
        model = retyped(case.model, kind)
        dtype = helper.tensor_dtype_to_np_dtype(kind)

        def forward(feeds: Mapping[str, Array]) -> dict[str, Array]:
            try:
                return runner({name: array.astype(dtype) if name in case.real_inputs else array for name, array in feeds.items()})
            except CannotRun as error:
                raise NoTruth(f"ONNX Runtime: {error}") from None

        try:
            runner = Runner(model, case.feeds)
        except CannotRun as error:
            raise NoTruth(f"ONNX Runtime: {error}") from None
        return forward

    return make


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {' '.join(str(error).split())[:120]}"


def _require_faithful(case: Case, forward: Forward, precision: Precision) -> None:
    """Raises NoTruth unless the forward gives the published outputs, in the precision that it claims."""
    exact = {name: array.astype(np.float64) if name in case.real_inputs else array for name, array in case.feeds.items()}
    found = _evaluated(forward, exact)
    for name in case.real_outputs:
        want, have = np.asarray(case.expected[name], np.float64), np.asarray(found[name], np.float64)
        loose = case_tolerance(case)
        if want.shape != have.shape:
            raise NoTruth(f"{name} is of shape {have.shape}, published {want.shape}")
        if want.size and not np.allclose(
            have, want, loose, loose * max(1e-3, float(np.nan_to_num(np.abs(want), posinf=0).max())), True
        ):
            raise NoTruth(f"{name} is not what is published")
    if precision is DOUBLE:
        rng, held = np.random.default_rng(0), _settings(case)
        shaken = {
            name: array * (1.0 + 1e-6 * rng.standard_normal(array.shape))
            if name in case.real_inputs and name not in held
            else array
            for name, array in exact.items()
        }
        try:
            numbers = flat(_evaluated(forward, shaken), case.real_outputs)
        except NoTruth:
            return
        if numbers.shape != flat(found, case.real_outputs).shape:
            return
        moved = numbers != flat(found, case.real_outputs)
        with np.errstate(over="ignore"):
            if moved.any() and (numbers.astype(np.float32).astype(np.float64) == numbers)[moved].all():
                raise NoTruth("its float64 is float32 inside")


def case_tolerance(case: Case) -> float:
    """How far a number of the case's narrowest real type may be from the truth, relatively."""
    kinds = {value.type.tensor_type.elem_type for value in (*case.model.graph.input, *case.model.graph.output)} & REAL
    if TensorProto.BFLOAT16 in kinds:
        return 5e-2
    return 1e-2 if TensorProto.FLOAT16 in kinds else 1e-3
