"""Linear attention: a matrix that each token writes to and reads from, S [key size, value size] for each head.

    D = a S      e = v - k D      w = beta e      S' = D + k^T w      o = scale q S'          (rows; a = exp(decay))

Without a decay a = 1, without the delta rule w = v. Backwards, with G the adjoint of S', from o and from the next step:

    dw = k G     de = beta dw     dD = G - k^T de     dS = a dD
    dv = de      dk = w G^T - de D^T      dq = scale do S'^T      dbeta = <dw, e>      ddecay = a <dD, S>

Only S and dS go from step to step: a scan runs the states again, another the adjoints from the end on, and each of the other
terms is one product for all steps. Values are by time inside: [time, batch, heads, rows, columns].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgcompile.ops.normalization import adjoints_of, in_type, stage_type
from vgcompile.ops.op import Case, Dim, Op, sample
from vgcompile.ops.shape import extents, shaped

MATRIX_SWAPPED = [0, 1, 3, 2]
SWAPPED = [0, 1, 2, 4, 3]
BY_TIME = [1, 0, 2, 3, 4]  # its own inverse


@dataclass(frozen=True)
class Tokens:
    """What a step reads, by time: keys and values as rows, the decay (a) and beta where the rule has them."""

    key: Any
    value: Any
    decay: Any
    beta: Any

    @property
    def coupling(self) -> list[Any]:
        """What one state's part in the next depends on."""
        return [operand for operand in (self.key, self.decay, self.beta) if operand is not None]

    def step(self, coupling: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Key, decay and beta of one step, from its slices."""
        key, *rest = coupling
        decay = None if self.decay is None else rest.pop(0)
        return key, decay, rest.pop(0) if rest else None


def _states(op: Any, start: Any, dims: Sequence[Dim], tokens: Tokens) -> tuple[Any, Any]:
    """The state before and after each step."""
    scanned = [tokens.value, *tokens.coupling]
    with op.body((start.dtype, dims), *map(_slice, scanned)) as (inner, (state, value, *coupling)):
        key, decay, beta = tokens.step(coupling)
        held = state if decay is None else state * decay
        written = value if beta is None else (value - inner.MatMul(key, held)) * beta
        after = held + inner.MatMul(inner.Transpose(key, perm=MATRIX_SWAPPED), written)
        inner.graph.outputs.extend([after, inner.Identity(state), inner.Identity(after)])
    _, before, behind = op.Scan(start, *scanned, body=inner.graph, num_scan_inputs=len(scanned), outputs=3)
    return before, behind


def _state_adjoints(op: Any, end: Any, dims: Sequence[Dim], reads: Any, tokens: Tokens) -> tuple[Any, Any]:
    """The adjoint of the first state, and of the state after each step; ``reads`` is what the output adds to the latter."""
    scanned = [*([] if reads is None else [reads]), *tokens.coupling]
    with op.body((end.dtype, dims), *map(_slice, scanned)) as (inner, (state, *slices)):
        total = inner.Identity(state) if reads is None else state + slices.pop(0)
        key, decay, beta = tokens.step(slices)
        held = total
        if beta is not None:
            held = total - inner.MatMul(inner.Transpose(key, perm=MATRIX_SWAPPED), inner.MatMul(key, total) * beta)
        before = inner.Identity(held) if decay is None else held * decay
        inner.graph.outputs.extend([before, inner.Identity(total)])
    backwards = [1] * len(scanned)
    made = op.Scan(
        end,
        *scanned,
        body=inner.graph,
        num_scan_inputs=len(scanned),
        scan_input_directions=backwards,
        scan_output_directions=[1],
        outputs=2,
    )
    return made[0], made[1]


def _slice(value: Any) -> tuple[Any, Sequence[Dim]]:
    return value.dtype, extents(value)[1:]


def _linear_attention_vjp(
    op: Any,
    g: Any,
    y: Any,
    query: Any,
    key: Any,
    value: Any,
    past: Any = None,
    decay: Any = None,
    beta: Any = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float,
    update_rule: str,
    **_: Any,
) -> tuple[Any, ...]:
    g, dpresent = adjoints_of(g, 2)
    stage, share = stage_type(query, 1), q_num_heads // kv_num_heads
    size, width = int(extents(query)[2]) // q_num_heads, int(extents(value)[2]) // kv_num_heads
    gated, delta = "gated" in update_rule, "delta" in update_rule

    def by_time(x: Any, heads: int, rows: int, columns: int) -> Any:
        return op.Transpose(op.Reshape(in_type(op, x, stage), [0, 0, heads, rows, columns]), perm=BY_TIME)

    def back(x: Any, like: Any) -> Any:
        joined = op.Reshape(op.Transpose(x, perm=BY_TIME), [0, 0, extents(like)[2]])
        return shaped(in_type(op, joined, like.dtype), like)

    batch = extents(query)[0]
    dims = [batch, kv_num_heads, size, width]
    shape = dims if isinstance(batch, int) else op.Concat(op.Shape(query, start=0, end=1), dims[1:], axis=0)
    start, end = (
        op.Expand(op.Cast(0.0, to=int(stage)), shape) if state is None else in_type(op, state, stage)
        for state in (past, dpresent)
    )
    tokens = Tokens(
        by_time(key, kv_num_heads, 1, size),
        by_time(value, kv_num_heads, 1, width),
        op.Exp(by_time(decay, kv_num_heads, int(extents(decay)[2]) // kv_num_heads, 1)) if gated else None,
        by_time(beta, int(extents(beta)[2]), 1, 1) if delta else None,
    )
    before, after = _states(op, start, dims, tokens)
    reads = dq = None
    if g is not None:
        dy = by_time(g, kv_num_heads, share, width) * (float(scale) or size**-0.5)
        reads = op.MatMul(op.Transpose(by_time(query, kv_num_heads, share, size), perm=SWAPPED), dy)
        dq = back(op.MatMul(dy, op.Transpose(after, perm=SWAPPED)), query)
    dstart, dafter = _state_adjoints(op, end, dims, reads, tokens)
    dwritten = op.MatMul(tokens.key, dafter)
    back_again = op.Transpose(dafter, perm=SWAPPED)
    dvalue, dheld, dbeta, ddecay = dwritten, dafter, None, None
    if delta:
        held = before * tokens.decay if gated else before
        error = tokens.value - op.MatMul(tokens.key, held)
        dvalue = dwritten * tokens.beta
        dheld = dafter - op.MatMul(op.Transpose(tokens.key, perm=SWAPPED), dvalue)
        over = [2, 4] if extents(beta)[2] == 1 else [4]
        dbeta = back(op.ReduceSum(dwritten * error, over, keepdims=1), beta)
        dkey = op.MatMul(error * tokens.beta, back_again) - op.MatMul(dvalue, op.Transpose(held, perm=SWAPPED))
    else:
        dkey = op.MatMul(tokens.value, back_again)
    if gated:
        over = [3, 4] if extents(decay)[2] == kv_num_heads else [4]
        ddecay = back(op.ReduceSum(dheld * before, over, keepdims=1) * tokens.decay, decay)
    dpast = None if past is None else shaped(in_type(op, dstart, past.dtype), past)
    return dq, back(dkey, key), back(dvalue, value), dpast, ddecay, dbeta


def _unknown_widths(case: Case) -> str:
    widths = [dims[2] for place, dims in enumerate(case.shapes) if dims is not None and place != 3]
    return "" if all(isinstance(width, int) for width in widths) else "a width is a symbol; export it with fixed ones"


_ONE: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2}
_SHARED: dict[str, Any] = {"q_num_heads": 4, "kv_num_heads": 2}

LinearAttention = Op(
    "LinearAttention",
    "Each token writes to a state and reads from it; the state may decay, and be corrected by what it holds already.",
    unpredicted="its state is a product of keys and values over all steps, with gates that depend on the data",
    vjp=_linear_attention_vjp,
    refuses=_unknown_widths,
    samples=(
        sample(("N", "T", 4), ("N", "T", 4), ("N", "T", 6), outputs=2, update_rule="linear", **_ONE),
        sample((2, 3, 8), (2, 3, 4), (2, 3, 6), (2, 2, 2, 3), (2, 3, 2), outputs=2, update_rule="gated", scale=0.5, **_SHARED),
        sample(("N", 3, 4), ("N", 3, 4), ("N", 3, 2), None, None, ("N", 3, 2), outputs=2, update_rule="delta", **_ONE),
        sample(("N", "T", 8), ("N", "T", 4), ("N", "T", 4), ("N", 2, 2, 2), ("N", "T", 4), ("N", "T", 1), outputs=2, **_SHARED),
    ),
)

ROWS = (LinearAttention,)
