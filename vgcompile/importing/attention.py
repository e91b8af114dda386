"""The attention layer around a ScaledDotProductAttention: projections in front and behind, heads, positions, mask.

    x -> MatMul, Add, Reshape, Transpose -> q ---.
    x -> ... -> k, v ----------------- ScaledDotProductAttention -> Transpose, Reshape, MatMul, Add -> y

Exporters pack three projections into one, turn the time to the front and back, fold scales into weights. So what leads to q is
not read but run: it is a projection where each vector of q is an affine map of the vector of x at that position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims, is_real
from vgcompile.importing.finding import Composite, Found, Reading, Unlike, short
from vgcompile.importing.projection import Affine, affine, alike, rotation
from vgcompile.importing.trial import Array, Trial
from vgcompile.layers.attention import QK_EPSILON

_TRIED = 3  # values that might be the input of a projection
_TIME = 5  # positions of a trial
_HIDDEN = -1e4  # a number this low, added to a score, hides it
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum"})


def attention(node: ir.Node, reading: Reading) -> Composite:
    """Raises Unlike where the layer cannot say what the nodes around do."""
    return _Attention(node, reading).composite()


@dataclass(frozen=True)
class _Projected:
    """A projection of ``base`` [batch, time, features] to ``value``, [batch, ... heads, time, head size]."""

    value: ir.Value
    base: ir.Value
    nodes: tuple[ir.Node, ...]
    map: Affine  # to [heads * head size]
    heads: int
    rotary: Mapping[str, Any] | None = None
    norm: ir.Node | None = None
    factor: float = 1.0  # that stands beside the projection


@dataclass(frozen=True)
class _Attention:
    node: ir.Node
    reading: Reading

    def composite(self) -> Composite:
        q, k, v = (self._projected(place, part) for place, part in enumerate(("queries", "keys", "values")))
        y, behind, out = self._output(q)
        if k.base is not v.base:
            raise Unlike("its keys and its values are projections of two different things")
        if q.rotary != k.rotary or v.rotary is not None:
            raise Unlike("queries and keys are turned by different rotary positions")
        if (q.norm is None) != (k.norm is None) or v.norm is not None:
            raise Unlike("a norm stands on queries or on keys alone")
        kv_heads = self._kv_heads(q, k, v)
        size = out.weight.shape[0] // q.heads
        if q.map.weight.shape[1] != q.heads * size:
            raise Unlike("its values are of another size than its queries")
        features, memory = q.map.weight.shape[0], [] if k.base is q.base else [k.base]
        biased, output_biased = (any(self._biased(part.nodes) for part in (q, k, v)), self._biased(behind))
        given = attributes_of(self.node)
        if given.get("softcap"):
            raise Unlike("its scores are capped (softcap), which the layer attention does not do")
        mask, causal = self._mask(q, k)
        scale = float(given.get("scale") or 1.0) * q.factor * k.factor
        fields = {
            "heads": q.heads,
            **({"kv_heads": kv_heads} if kv_heads != q.heads else {}),
            **({"head_size": size} if size * q.heads != features else {}),
            **({"units": out.weight.shape[1]} if out.weight.shape[1] != features else {}),
            "causal": causal,
            "bias": biased,
            **({"output_bias": output_biased} if output_biased != biased else {}),
            "dropout": self.reading.rate(self.node),
            **({"rotary": dict(q.rotary) or True} if q.rotary is not None else {}),
            "qk_norm": q.norm is not None,
            **({"scale": short(scale)} if not math.isclose(scale, size**-0.5, rel_tol=1e-6) else {}),
        }
        weights: dict[str, Array] = {}
        for name, part, heads in (("query", q, q.heads), ("key", k, kv_heads), ("value", v, kv_heads)):
            weights |= _parameters(name, _of_heads(part, heads, size), bias=biased)
            if part.norm is not None:
                weights[f"{name}/scale"] = self.reading.array(part.norm.inputs[1])  # type: ignore[assignment]
        weights |= _parameters("output", out, bias=output_biased)
        found = Found("attention", [q.base, *(memory or ([k.base] if mask else [])), *mask], y, fields, weights)
        inside = dict.fromkeys((*q.nodes, *k.nodes, *v.nodes, self.node, *behind))
        return Composite(self.node, (found,), frozenset(inside))

    def _projected(self, place: int, part: str) -> _Projected:
        value = self.node.inputs[place]
        assert value is not None
        tried, norm = 0, None
        for base, nodes in self.reading.region.passed([value]):
            if nodes and nodes[0].op_type == "RMSNormalization" and not _multiplies(nodes[1:]) and norm is None:
                norm = nodes[0]
            if len(dims(base)) == 3 and _multiplies(nodes) and isinstance(dims(base)[2], int):
                found = self._map(value, base, nodes, norm)
                if found is not None:
                    return found
                tried += 1
            if tried == _TRIED:
                break
        raise Unlike(f"its {part} are no projection of one input [batch, time, features] to heads")

    def _map(self, value: ir.Value, base: ir.Value, nodes: tuple[ir.Node, ...], norm: ir.Node | None) -> _Projected | None:
        path = _Path(self.reading, value, base, norm)
        factor = path.without_factors(nodes) if norm is None and value is not self.node.inputs[2] else 1.0
        found = affine(path.still, int(dims(base)[2]))
        if found is None or not path.heads:
            return None
        draws = np.random.default_rng(1).normal(size=(4, found.weight.shape[0]))
        moving = path.moving(draws)
        if moving is None:
            return None
        rows = found(draws)
        still = np.broadcast_to(rows.reshape(1, -1, rows.shape[1] // path.heads), (len(moving), *moving.shape[1:]))
        rotary = None
        if not alike(moving, still, 1e-6):
            rotary = rotation(np.ascontiguousarray(still), moving)
            if rotary is None:
                return None
        if norm is not None:
            self._require_norm(norm, path.size)
        return _Projected(value, base, nodes, found, path.heads, rotary, norm, factor)

    def _require_norm(self, norm: ir.Node, size: int) -> None:
        given = attributes_of(norm)
        rank = len(dims(norm.outputs[0]))
        if int(given["axis"]) % rank != rank - 1 or dims(norm.outputs[0])[-1] != size:
            raise Unlike("the norm on its queries and keys is not over the entries of a head")
        if not math.isclose(float(given["epsilon"]), QK_EPSILON, rel_tol=1e-5):
            raise Unlike(f"the norm on its queries and keys has epsilon {given['epsilon']:g}; that of qk_norm is {QK_EPSILON:g}")

    def _output(self, q: _Projected) -> tuple[ir.Value, tuple[ir.Node, ...], Affine]:
        """The value behind the last projection, the nodes on the way, and the map of all heads, side by side."""
        start = self.node.outputs[0]
        value, nodes = start, list[ir.Node]()
        found: tuple[ir.Value, tuple[ir.Node, ...], Affine] | None = None
        while (node := self.reading.only_user(value)) is not None and len(self.reading.region.operands(node)) == 1:
            value = node.outputs[0]
            nodes.append(node)
            if found is not None and not _adds_vector(node, self.reading):
                break
            if len(dims(value)) == 3 and _multiplies(nodes) and dims(value)[:2] == dims(q.base)[:2]:
                made = _Path(self.reading, value, q.base, None).behind(start, q.heads)
                if made is not None:
                    found = (value, tuple(nodes), made)
            if found is not None and found[0] is not value:
                break
        if found is None:
            raise Unlike("no projection of all heads stands behind it")
        return found

    def _kv_heads(self, q: _Projected, k: _Projected, v: _Projected) -> int:
        """How many heads of keys and values there are, each repeated for the queries that read it."""
        if k.heads != v.heads or q.heads % k.heads:
            raise Unlike(f"{q.heads} heads of queries read {k.heads} of keys and {v.heads} of values")
        lead, shared = (dims(part.value)[1:-2] for part in (q, k))
        if k.heads != q.heads and len(shared) == len(lead) and shared[-1:] != (1,):
            raise Unlike("its queries share keys in another order than kv_heads has")
        repeats = math.gcd(*(_repeats(_Path(self.reading, p.value, p.base, p.norm), p.heads) for p in (k, v)))
        return k.heads // repeats

    def _biased(self, nodes: tuple[ir.Node, ...]) -> bool:
        return any(
            _adds_vector(node, self.reading) or (node.op_type in ("Gemm", "Conv") and len(node.inputs) > 2) for node in nodes
        )

    # masks

    def _hidden(self, q: _Projected, k: _Projected, given: Mapping[ir.Value, Array]) -> Array:
        """Where scores are hidden, [..., time, memory's time]. Raises Unlike for what is no mask."""
        trial = _trial(self.reading, q.base, k.base)
        bias, hidden = [*self.node.inputs[3:], None, None][:2]
        at: Array = np.zeros((1, 1), bool)
        for value, real in ((bias, True), (hidden, False)):
            if value is None:
                continue
            made = trial.run(value, given)
            if made is None:
                raise Unlike("what its mask is was not found out")
            if real and not np.all((made == 0.0) | (made <= _HIDDEN)):
                raise Unlike("numbers are added to its scores that are no mask")
            at = at | (made <= _HIDDEN if real else made)
        times = [trial.shape(part.base) for part in (q, k)]
        return np.broadcast_to(at, (*at.shape[:-2], *(shape[1] for shape in times if shape is not None)))

    def _mask(self, q: _Projected, k: _Projected) -> tuple[list[ir.Value], bool]:
        """The input that says what may be read, if there is one (class numbers, 0 for what is hidden), and whether what comes later
        is hidden too."""
        operands = [value for value in self.node.inputs[3:] if value is not None and self.reading.region.fed(value)]
        ends, given, expected = list[ir.Value](), dict[ir.Value, Array](), np.zeros((1, 1), bool)
        if operands:
            ends = [base for base, _ in self.reading.region.passed(operands) if base.producer() is None]
            shape = _trial(self.reading, q.base, k.base).shape(ends[0]) if ends and not is_real(ends[0]) else None
            if shape is None or len(shape) not in (2, 3):
                raise Unlike("its mask is no input of class numbers [batch, memory's time] or [batch, time, memory's time]")
            given[ends[0]] = np.random.default_rng(0).integers(0, 2, size=shape)
            seen = given[ends[0]].reshape(shape[0], 1, -1, shape[-1])
            expected = seen == 0
        hidden = self._hidden(q, k, given)
        late = np.triu(np.ones(hidden.shape[-2:], bool), 1)
        for causal in (False, True):
            if np.all(hidden == (expected | late if causal else expected)):
                return ends, causal
        if not ends:
            raise Unlike("its mask is neither causal nor an input")
        raise Unlike(f"the input {ends[0].name!r} is read by its mask otherwise than: 1 may be read, 0 is hidden")


@dataclass
class _Path:
    """Runs what leads from ``base`` [batch, time, features] to ``value``."""

    reading: Reading
    value: ir.Value
    base: ir.Value
    norm: ir.Node | None
    heads: int = 0
    size: int = 0
    ones: dict[ir.Value, Array] = field(default_factory=dict)  # in the place of factors

    def without_factors(self, nodes: Sequence[ir.Node]) -> float:
        """Leave out the numbers that all is multiplied by; returns their product."""
        trial, product = _trial(self.reading, self.base), 1.0
        for node in nodes:
            known = [value for value in node.inputs if value is not None and not self.reading.region.fed(value)]
            if (
                node.op_type not in ("Mul", "Div")
                or len(known) != 1
                or (known[0] is node.inputs[0] is not None and node.op_type == "Div")
            ):
                continue
            number = trial.run(known[0], {})
            if number is not None and number.size == 1 and number.reshape(-1)[0] > 0:
                product *= float(number.reshape(-1)[0]) ** (1 if node.op_type == "Mul" else -1)
                self.ones[known[0]] = np.ones_like(number)
        return product

    @cached_property
    def _time(self) -> int | str:
        return dims(self.base)[1]

    def _laid(self, rows: Array) -> Array:
        """Rows at the positions of as many samples as they fill, [batch, time, features]."""
        batch, time = dims(self.base)[0], 1 if isinstance(self._time, str) else self._time
        samples = -(-len(rows) // time)
        if isinstance(batch, int):
            samples = -(-samples // batch) * batch
        filled = np.zeros((samples * time, rows.shape[1]))
        filled[: len(rows)] = rows
        return filled.reshape(samples, time, -1)

    def _runs(self, x: Array, given: Mapping[ir.Value, Array]) -> Array | None:
        """[batch, time, heads, head size], over as many runs as a fixed batch takes."""
        batch = dims(self.base)[0]
        made = [self._run(part, given) for part in (np.split(x, len(x) // batch) if isinstance(batch, int) else [x])]
        return None if any(part is None for part in made) else np.concatenate(made)  # type: ignore[arg-type]

    def _run(self, x: Array, given: Mapping[ir.Value, Array]) -> Array | None:
        trial = Trial(self.reading.opset, {str(dim): size for dim, size in zip(dims(self.base), x.shape, strict=True)})
        known = {**self.ones, **given, self.base: x}
        if self.norm is not None and (source := self.norm.inputs[0]) is not None:
            before = trial.run(source, known)
            if before is None:
                return None
            known = {**self.ones, **given, self.norm.outputs[0]: before}
        y = trial.run(self.value, known)
        batch, time = x.shape[:2]
        if y is None or y.ndim < 3 or y.shape[-2] != time or y.size % (batch * time * y.shape[-1]) or y.shape[0] % batch:
            return None
        y = y.reshape(batch, -1, time, y.shape[-1]).swapaxes(1, 2)
        self.heads, self.size = y.shape[2:]
        return y

    def still(self, rows: Array) -> Array | None:
        """Rows -> their vectors of all heads, all at position 0."""
        made = self._runs(self._laid(rows), self._first_position())
        return None if made is None else made.reshape(-1, self.heads * self.size)[: len(rows)]

    def moving(self, rows: Array) -> Array | None:
        """The vectors [time, rows * heads, head size] of rows that stand at every position."""
        time = _TIME if isinstance(self._time, str) else self._time
        x = np.repeat(rows[:, None], time, axis=1)
        batch = dims(self.base)[0]
        if isinstance(batch, int):
            x = np.resize(x, (-(-len(x) // batch) * batch, *x.shape[1:]))
        made = self._runs(x, {})
        return None if made is None else made[: len(rows)].transpose(1, 0, 2, 3).reshape(time, -1, self.size)

    def _first_position(self) -> dict[ir.Value, Array]:
        """Tables of positions, with their first row in each: what is at position 0, of a fixed time."""
        if isinstance(self._time, str):
            return {}
        given = {}
        for node in next((nodes for base, nodes in self.reading.region.passed([self.value]) if base is self.base), ()):
            for value in node.inputs:
                if value is None or self.reading.region.fed(value) or not is_real(value) or node.op_type in _PRODUCTS:
                    continue
                table = self.reading.array(value)
                axis = next((axis for axis in (-2, -3) if table is not None and _extent(table, axis) == self._time), None)
                if table is not None and axis is not None:
                    given[value] = np.repeat(np.take(table, [0], axis), self._time, axis)
        return given

    def behind(self, start: ir.Value, heads: int) -> Affine | None:
        """The map from the vectors of all heads, at ``start``, to ``value`` [batch, time, units]."""
        size = dims(start)[-1]
        if not isinstance(size, int):
            return None

        def run(rows: Array) -> Array | None:
            x = self._laid(rows)
            batch, made = dims(self.base)[0], []
            for part in np.split(x, len(x) // batch) if isinstance(batch, int) else [x]:
                trial = Trial(
                    self.reading.opset, {str(dim): size for dim, size in zip(dims(self.base), part.shape, strict=False)}
                )
                shape = _shape_of(trial, start, part.shape)
                split = part.reshape(*part.shape[:2], heads, -1).swapaxes(1, 2)
                y = None if shape is None else trial.run(self.value, {start: split.reshape(shape)})
                if y is None or y.shape[:2] != part.shape[:2]:
                    return None
                made.append(y)
            return np.concatenate(made).reshape(-1, made[0].shape[-1])[: len(rows)]

        return affine(run, heads * size)


def _shape_of(trial: Trial, start: ir.Value, laid: tuple[int, ...]) -> list[int] | None:
    """That of the vectors of all heads; the first axis may hold the batch and its heads."""
    known = [dim if isinstance(dim, int) else trial.extents.get(dim, -1) for dim in dims(start)]
    return known if known.count(-1) <= 1 else None


def _trial(reading: Reading, *bases: ir.Value) -> Trial:
    """One where the batch is 2 and every other symbol as many positions."""
    symbols = {dim for value in (*bases, *reading.inputs) for dim in dims(value) if isinstance(dim, str)}
    batches = {str(dims(value)[0]) for value in (*bases, *reading.inputs) if dims(value)}
    return Trial(reading.opset, {name: 2 if name in batches else _TIME for name in symbols})


def _multiplies(nodes: list[ir.Node] | tuple[ir.Node, ...]) -> bool:
    return any(node.op_type in _PRODUCTS for node in nodes)


def _adds_vector(node: ir.Node, reading: Reading) -> bool:
    others = [value for value in node.inputs if not reading.region.fed(value)]
    return node.op_type == "Add" and len(others) == 1 and others[0] is not None and reading.learned(others[0])


def _extent(array: Array, axis: int) -> int:
    return array.shape[axis] if array.ndim >= -axis else 0


def _repeats(path: _Path, heads: int) -> int:
    """How many heads in a row are one and the same, whatever the parameters are."""
    draws, trial = np.random.default_rng(2), Trial(path.reading.opset, {})
    given = {value: draws.normal(size=trial.shape(value)) for value in path.reading.parameters_above(path.value, path.base)}
    time = _TIME if isinstance(dims(path.base)[1], str) else dims(path.base)[1]
    batch = dims(path.base)[0] if isinstance(dims(path.base)[0], int) else 1
    made = path._run(draws.normal(size=(int(batch), int(time), int(dims(path.base)[2]))), given)
    if made is None:
        return 1
    same = [np.array_equal(made[:, :, head], made[:, :, head - 1]) for head in range(1, heads)]
    first = same.index(False) + 1 if False in same else heads
    rows = made.reshape(*made.shape[:2], -1, first, made.shape[-1]) if heads % first == 0 else None
    return first if rows is not None and np.array_equal(rows, np.broadcast_to(rows[:, :, :, :1], rows.shape)) else 1


def _of_heads(part: _Projected, heads: int, size: int) -> Affine:
    """The map to the first one of heads that are all the same."""
    features = part.map.weight.shape[0]
    if part.heads == heads:
        return part.map
    each = part.heads // heads
    weight = part.map.weight.reshape(features, heads, each, size)[:, :, 0].reshape(features, -1)
    return Affine(weight, part.map.bias.reshape(heads, each, size)[:, 0].reshape(-1))


def _parameters(name: str, part: Affine, *, bias: bool) -> dict[str, Array]:
    held = {f"{name}/weight": part.weight.astype(np.float32)}
    return {**held, f"{name}/bias": part.bias.astype(np.float32)} if bias else held
