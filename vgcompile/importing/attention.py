"""The attention layer around a ScaledDotProductAttention: projections in front and behind, heads, positions, mask.

    x -> MatMul, Add, Reshape, Transpose -> q ---.
    x -> ... -> k, v ----------------- ScaledDotProductAttention -> Transpose, Reshape, MatMul, Add -> y

Exporters pack three projections into one, turn the time to the front and back, fold scales into weights. So what leads to q is
not read but run: it is a projection where each vector of q is an affine map of the vector of x at that position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims, is_real
from vgcompile.importing.finding import Composite, Found, Reading, Unlike, short
from vgcompile.importing.heads import Path, imagined, multiplies, repeated
from vgcompile.importing.projection import Affine, affine, alike, rotation
from vgcompile.importing.trial import Array
from vgcompile.layers.attention import QK_EPSILON

_TRIED = 3  # values that might be the input of a projection
_HIDDEN = -1e4  # a number this low, added to a score, hides it


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
            if nodes and nodes[0].op_type == "RMSNormalization" and not multiplies(nodes[1:]) and norm is None:
                norm = nodes[0]
            if len(dims(base)) == 3 and multiplies(nodes) and isinstance(dims(base)[2], int):
                found = self._map(value, base, nodes, norm)
                if found is not None:
                    return found
                tried += 1
            if tried == _TRIED:
                break
        raise Unlike(f"its {part} are no projection of one input [batch, time, features] to heads")

    def _map(self, value: ir.Value, base: ir.Value, nodes: tuple[ir.Node, ...], norm: ir.Node | None) -> _Projected | None:
        path = Path(self.reading, value, base, norm)
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
            if len(dims(value)) == 3 and multiplies(nodes) and dims(value)[:2] == dims(q.base)[:2]:
                made = Path(self.reading, value, q.base, None).behind(start, q.heads)
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
        repeats = math.gcd(*(repeated(Path(self.reading, p.value, p.base, p.norm), p.heads) for p in (k, v)))
        return k.heads // repeats

    def _biased(self, nodes: tuple[ir.Node, ...]) -> bool:
        return any(
            _adds_vector(node, self.reading) or (node.op_type in ("Gemm", "Conv") and len(node.inputs) > 2) for node in nodes
        )

    # masks

    def _hidden(self, q: _Projected, k: _Projected, given: Mapping[ir.Value, Array]) -> Array:
        """Where scores are hidden, [..., time, memory's time]. Raises Unlike for what is no mask."""
        trial = imagined(self.reading, q.base, k.base)
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
        """The input that says what may be read, if there is one (class numbers, 0 for what is hidden), and whether what comes
        later is hidden too."""
        operands = [value for value in self.node.inputs[3:] if value is not None and self.reading.region.fed(value)]
        ends, given, expected = list[ir.Value](), dict[ir.Value, Array](), np.zeros((1, 1), bool)
        if operands:
            ends = [base for base, _ in self.reading.region.passed(operands) if base.producer() is None]
            shape = imagined(self.reading, q.base, k.base).shape(ends[0]) if ends and not is_real(ends[0]) else None
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


def _adds_vector(node: ir.Node, reading: Reading) -> bool:
    others = [value for value in node.inputs if not reading.region.fed(value)]
    return node.op_type == "Add" and len(others) == 1 and others[0] is not None and reading.learned(others[0])


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
