"""The truth that a gradient is compared with: directional derivatives of a case's forward, by differences in float64.

Where the slopes of the two sides disagree (vgcompile/verification/slopes.py) the published data sit on a kink or a jump. Then the
gradient is judged where the inputs are moved off it by a small seeded perturbation, and at the published data it has to lie
between the one-sided slopes, output element by output element.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from benchmarks.conformance.cases import Case
from benchmarks.conformance.running import CannotRun, Runner
from vgcompile.reference import REAL, evaluator, retyped
from vgcompile.verification.slopes import DOUBLE, SINGLE, Precision, Slopes, size_of, slopes

Array = np.ndarray[Any, Any]
Forward = Callable[[Mapping[str, Array]], dict[str, Array]]

DIRECTIONS = 2  # random directions for each input
LARGE = 20_000  # numbers in and out of a case, beyond which the reference evaluator's loops take too long
MOVES = (0.03, 0.1, 0.3)  # of an input's own size: how far it is moved off a kink
# Real inputs that set how an operator samples, or count in whole numbers, and that no framework learns: their adjoint has to be
# finite, no more.
SETTINGS = {"Resize": (1, 2), "Upsample": (1,), "Dropout": (1,), "OneHot": (0, 1)}
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
    """Where a gradient is judged: inputs, adjoints of the outputs, and the slopes of each judged input.

    ``whole`` says that every output is finite there. Outputs that are not have the adjoint 0 and the slope 0.
    """

    where: str  # "published" or "moved"
    feeds: Mapping[str, Array]
    adjoints: Mapping[str, Array]
    directions: tuple[Direction, ...]
    whole: bool
    along: Callable[[str, Array], Slopes] | None = None  # the slopes in any direction of an input

    @property
    def smooth(self) -> bool:
        return all(direction.slopes.smooth for direction in self.directions)


@dataclass(frozen=True)
class Truth:
    precision: Precision
    points: tuple[Point, ...]


class NoTruth(Exception):
    """Nothing independent evaluates the case's forward well enough for differences."""


def truth(case: Case) -> Truth:
    """By the first way to evaluate the case that is faithful to what is published and smooth enough for differences.

    Raises NoTruth where there is none.
    """
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    if case.operator in INDEPENDENT or case.operator == MASKED:
        adjoints = {
            name: rng.standard_normal(y.shape).astype(y.dtype) for name in case.real_outputs for y in [case.expected[name]]
        }
        return Truth(SINGLE, (Point("published", case.feeds, adjoints, (), True),))
    reasons = []
    for make, precision in _ways(case):
        try:
            forward = make(case)
            _require_faithful(case, forward, precision)
            return Truth(precision, _points(case, forward, precision, rng))
        except NoTruth as error:
            reasons.append(f"{precision.name}: {error}")
    raise NoTruth("; ".join(dict.fromkeys(reasons)))


def _points(case: Case, forward: Forward, precision: Precision, rng: np.random.Generator) -> tuple[Point, ...]:
    first = point(case, forward, precision, "published", case.feeds, rng)
    if first.smooth and first.whole:
        return (first,)
    off = _off(case, forward, precision, first, rng)
    if off is not None:
        return (first, off)
    if first.smooth:
        return (first,)
    raise NoTruth("no smooth place was found near the published data")


def _settings(case: Case) -> tuple[str, ...]:
    node = case.model.graph.node[-1]
    positions = SETTINGS.get(case.operator, ())
    names = [node.input[i] for i in positions if i < len(node.input)] if node.op_type == case.operator else []
    return tuple(name for name in names if name in case.real_inputs)


def _off(case: Case, forward: Forward, precision: Precision, first: Point, rng: np.random.Generator) -> Point | None:
    """The first moved place where all slopes are smooth and the outputs have their published shapes; finite outputs go first."""
    held = set(_settings(case))
    found = []
    for filled, amount, positive in itertools.product((False, True), MOVES, (False, True)):
        moved = {
            name: _moved(array, amount, positive, filled, rng) if name in case.real_inputs and name not in held else array
            for name, array in case.feeds.items()
        }
        try:
            place = point(case, forward, precision, "moved", moved, rng)
        except NoTruth:
            continue
        shapes = {name: g.shape for name, g in place.adjoints.items()}
        if place.smooth and shapes == {name: g.shape for name, g in first.adjoints.items()}:
            if place.whole:
                return place
            found.append(place)
    return found[0] if found else None


def _moved(x: Array, amount: float, positive: bool, filled: bool, rng: np.random.Generator) -> Array:
    """Moved by ``amount`` of its size, made positive and its infinities drawn anew where that is asked for; NaN always is."""
    exact = x.astype(np.float64)
    noise = rng.standard_normal(x.shape)
    drawn = ~np.isfinite(exact) if filled else np.isnan(exact)
    step = np.where(np.isfinite(exact), noise * amount * size_of(exact), 0.0)
    moved = np.where(drawn, noise, exact + step)
    return np.asarray(np.abs(moved) if positive else moved).astype(x.dtype)


def point(
    case: Case, forward: Forward, precision: Precision, where: str, feeds: Mapping[str, Array], rng: np.random.Generator
) -> Point:
    """Raises NoTruth where the forward cannot be evaluated there."""
    exact = {name: array.astype(np.float64) if name in case.real_inputs else array for name, array in feeds.items()}
    base = _evaluated(forward, exact)
    finite = {name: np.isfinite(base[name]) for name in case.real_outputs}
    adjoints = {
        name: np.where(finite[name], rng.standard_normal(base[name].shape), 0.0).astype(case.expected[name].dtype)
        for name in case.real_outputs
    }
    held = _settings(case)

    def along(name: str, v: Array) -> Slopes:
        return _slopes(case, forward, precision, exact, base, name, v)

    directions = []
    for name in case.real_inputs:
        if name in held or not feeds[name].size:
            continue
        for _ in range(DIRECTIONS):
            v = rng.standard_normal(feeds[name].shape)
            directions.append(Direction(name, v, along(name, v)))
    whole = all(there.all() for there in finite.values())
    return Point(where, dict(feeds), adjoints, tuple(directions), whole, along)


def _evaluated(forward: Forward, feeds: Mapping[str, Array]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        return {name: np.asarray(array) for name, array in forward(feeds).items()}


def _slopes(
    case: Case,
    forward: Forward,
    precision: Precision,
    feeds: Mapping[str, Array],
    base: Mapping[str, Array],
    name: str,
    v: Array,
) -> Slopes:
    x = feeds[name]
    here = flat(base, case.real_outputs)
    finite = np.isfinite(here)
    here = np.where(finite, here, 0.0)

    def moved(t: float) -> Array:
        if t == 0.0:
            return here
        try:
            there = _evaluated(forward, {**feeds, name: x + t * v})
        except NoTruth:
            return np.full(here.shape, np.nan)
        kept = all(there[y].shape == base[y].shape for y in case.real_outputs)
        return np.where(finite, flat(there, case.real_outputs), 0.0) if kept else np.full(here.shape, np.nan)

    return slopes(moved, precision.step * size_of(x), precision)


def flat(arrays: Mapping[str, Array], names: Sequence[str]) -> Array:
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in names])


def _ways(case: Case) -> tuple[tuple[Callable[[Case], Forward], Precision], ...]:
    """The reference evaluator in float64, ONNX Runtime in float64, ONNX Runtime in float32; for large cases, whose windows the
    evaluator loops over, it comes last."""
    reference, double, single = (
        (_reference, DOUBLE),
        (_runtime(TensorProto.DOUBLE), DOUBLE),
        (_runtime(TensorProto.FLOAT), SINGLE),
    )
    size = sum(array.size for array in (*case.feeds.values(), *case.expected.values()))
    return (double, single, reference) if size > LARGE else (reference, double, single)


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


def agrees(case: Case, outputs: Mapping[str, Array]) -> bool:
    """Whether real outputs are the published ones, in the precision of the case's types."""
    loose = case_tolerance(case)
    for name in case.real_outputs:
        want, have = np.asarray(case.expected[name], np.float64), np.asarray(outputs[name], np.float64)
        if want.shape != have.shape:
            return False
        largest = float(np.abs(want[np.isfinite(want)]).max(initial=1e-3))
        if not np.allclose(have, want, loose, loose * largest, equal_nan=True):
            return False
    return True


def _require_faithful(case: Case, forward: Forward, precision: Precision) -> None:
    """Raises NoTruth unless the forward gives the published outputs, in the precision that it claims."""
    exact = {name: array.astype(np.float64) if name in case.real_inputs else array for name, array in case.feeds.items()}
    found = _evaluated(forward, exact)
    if not agrees(case, found):
        raise NoTruth("its outputs are not the published ones")
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
