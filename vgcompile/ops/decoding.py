"""What decoders put around attention: rotated positions, caches that are written in place, convolutions that carry a state."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.ops import flops
from vgcompile.ops.cutting import LAST, bound_of
from vgcompile.ops.gates import swish_slope
from vgcompile.ops.moments import Turned
from vgcompile.ops.normalization import added, adjoints_of
from vgcompile.ops.op import Case, Dim, Op, sample
from vgcompile.ops.shape import added_up, extents, full_shape, shaped, zeros_like


def _rows_added(op: Any, x: Any, places: Any, rows: Any) -> Any:
    """Rows added up where positions name them, in the shape of ``x``."""
    return added_up(op, rows, lambda rows: op.ScatterND(zeros_like(op, x), places, rows, reduction="add"))


def _rotary_vjp(op: Any, g: Any, y: Any, x: Any, cos: Any, sin: Any, ids: Any = None, **attributes: Any) -> tuple[Any, ...]:
    """The adjoint of a rotation turns back. With (a, b) a pair of x and (c, d) the same of g, dcos = ca + db and dsin = da - cb,
    summed over the heads and put where the positions name them."""
    dx = shaped(op.RotaryEmbedding(g, cos, op.Neg(sin), ids, **attributes), x)
    heads = 1
    if len(x.shape) == 3:
        apart, heads = [0, 0, int(attributes["num_heads"]), -1], 2
        x, g = op.Reshape(x, apart), op.Reshape(g, apart)
    half = _half(extents(x)[-1], extents(cos)[-1], attributes["rotary_embedding_dim"])
    (a, b), (c, d) = (_pairs(op, value, half, bool(attributes["interleaved"])) for value in (x, g))
    found = [op.ReduceSum(turned, [heads], keepdims=0) for turned in (c * a + d * b, d * a - c * b)]
    if ids is not None:
        places = op.Unsqueeze(ids, [-1])
        found = [_rows_added(op, cache, places, rows) for cache, rows in zip((cos, sin), found, strict=True)]
    return (
        dx,
        *(shaped(adjoint, cache) if ids is not None else adjoint for adjoint, cache in zip(found, (cos, sin), strict=True)),
        None,
    )


def _half(size: Dim, cached: Dim, rotated: int) -> int:
    """How many pairs are rotated."""
    return rotated // 2 if rotated else int(cached) if isinstance(cached, int) else int(size) // 2


def _pairs(op: Any, x: Any, half: int, interleaved: bool) -> tuple[Any, Any]:
    """The first and the second members of the pairs: neighbours, or a half apart."""
    if interleaved:
        return op.Slice(x, [0], [2 * half], [-1], [2]), op.Slice(x, [1], [2 * half], [-1], [2])
    return op.Slice(x, [0], [half], [-1]), op.Slice(x, [half], [2 * half], [-1])


def _unknown_pairs(case: Case) -> str:
    x, cos = case.shapes[0] or ("",), case.shapes[1] or ("",)
    known = case.attributes["rotary_embedding_dim"] or isinstance(cos[-1], int) or (len(x) == 4 and isinstance(x[-1], int))
    return "" if known else "the number of rotated entries is a symbol; export the caches with a fixed width"


_IDS = np.array([[0, 2, 2], [1, 3, 0]])

RotaryEmbedding = Op(
    "RotaryEmbedding",
    "Pairs of entries rotated by angles that depend on the position, the same in every head.",
    flops=flops.made(3.0),
    vjp=_rotary_vjp,
    moments=Turned(),
    refuses=_unknown_pairs,
    samples=(
        sample(("N", 2, "T", 4), ("N", "T", 2), ("N", "T", 2)),
        sample(("N", "T", 8), ("N", "T", 1), ("N", "T", 1), num_heads=2, rotary_embedding_dim=2, interleaved=1),
        sample((2, 2, 3, 6), (4, 2), (4, 2), _IDS, rotary_embedding_dim=4),
        sample((2, 3, 8), (4, 2), (4, 2), np.minimum(_IDS, 0), num_heads=2, interleaved=1),
    ),
)


# ---- caches


def _along(rank: int, axis: int) -> list[int]:
    return [other for other in range(rank) if other != axis]


def _tensor_scatter_vjp(
    op: Any, g: Any, y: Any, past: Any, update: Any, starts: Any = None, *, axis: int, mode: str
) -> tuple[Any, ...]:
    """What was overwritten gets nothing; the update gets the adjoint of the places it went to."""
    rank = len(past.shape)
    axis %= rank
    dpast = shaped(op.TensorScatter(g, zeros_like(op, update), starts, axis=axis, mode=mode), past)
    length = extents(update)[axis]
    if starts is None:
        end = [length] if isinstance(length, int) else op.Shape(update, start=axis, end=axis + 1)
        return dpast, shaped(op.Slice(g, [0], end, [axis]), update)
    steps = (
        np.arange(length).reshape([-1 if i == axis else 1 for i in range(rank)])
        if isinstance(length, int)
        else op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(update, start=axis, end=axis + 1), [0]), 1), _along(rank, axis))
    )
    places = op.Add(op.Unsqueeze(starts, _along(rank, 0)), steps)
    if mode == "circular":
        limit = extents(past)[axis]
        size = np.array([limit]) if isinstance(limit, int) else op.Shape(past, start=axis, end=axis + 1)
        places = op.Sub(places, op.Mul(op.Div(places, size), size))
    return dpast, shaped(op.GatherElements(g, op.Expand(places, full_shape(op, update)), axis=axis), update), None


TensorScatter = Op(
    "TensorScatter",
    "A cache with an update written over it, in each sample from a place of its own on.",
    unpredicted="where its slices go, only a run tells",
    flops=flops.none,
    vjp=_tensor_scatter_vjp,
    range=lambda case: bound_of(case, 0).scalar().hull(bound_of(case, 1).scalar()),
    norms=lambda case, position: (0.0, 1.0),
    samples=(
        sample((2, 3, 5, 2), (2, 3, 2, 2), np.array([1, 3])),
        sample((2, 5, "D"), (2, 3, "D"), np.array([4, 7]), mode="circular"),
        sample(("N", 6, 2), ("N", "T", 2), axis=1),
    ),
)


# ---- causal convolution


def _causal_vjp(
    op: Any, g: Any, y: Any, x: Any, w: Any, bias: Any = None, past: Any = None, *, activation: str
) -> tuple[Any, ...]:
    """Each channel by itself, over the line [past, x]; the line's last elements are the state."""
    g, dstate = adjoints_of(g, 2)
    channels, _, taps = (int(dim) for dim in extents(w))
    line = x if past is None else op.Concat(past, x, axis=2)
    missing = taps - 1 if past is None else 0
    shape = {"group": channels, "strides": [1], "dilations": [1], "pads": [missing, 0]}
    dline = dw = db = None
    if g is not None:
        if activation != "none":
            z = op.Conv(line, w, bias, **shape)
            g = g * swish_slope(op, z, op.Swish(z))
        dline, dw = op.ConvInputGradient(g, w, line, **shape), _kernel_adjoint(op, g, line, w, missing)
        db = None if bias is None else op.ReduceSum(g, [0, 2], keepdims=0)
    if dstate is not None and taps > 1:
        dline = added([dline, shaped(_at_the_end(op, dstate, x, missing), line)])
    if past is None:
        return dline, dw, db, None
    if dline is None:
        return None, dw, db, None
    dpast, dx = op.Slice(dline, [0], [taps - 1], [2]), op.Slice(dline, [taps - 1], [LAST], [2])
    return shaped(dx, x), dw, db, shaped(dpast, past)


def _kernel_adjoint(op: Any, g: Any, line: Any, w: Any, missing: int) -> Any:
    """What each tap sees of the line, [B, C, taps, length], times g: one product for each channel of each sample."""
    taps = int(extents(w)[2])
    whole = op.Pad(line, [0, 0, missing, 0, 0, 0]) if missing else line
    ends = [tap - taps + 1 or LAST for tap in range(taps)]
    seen = [op.Unsqueeze(op.Slice(whole, [tap], [end], [2]), [2]) for tap, end in enumerate(ends)]
    products = op.MatMul(op.Concat(*seen, axis=2), op.Unsqueeze(g, [3]))
    return op.Reshape(op.ReduceSum(products, [0], keepdims=0), list(extents(w)))


def _at_the_end(op: Any, dstate: Any, x: Any, cut: int) -> Any:
    """The state's adjoint behind zeros, as long as x, of which ``cut`` fell before its begin (fewer than none cut it)."""
    length = extents(x)[2]
    if isinstance(length, int):
        return op.Pad(dstate, [0, 0, length - cut, 0, 0, 0])
    return op.Pad(dstate, op.Concat([0, 0], op.Sub(op.Shape(x, start=2), np.array([cut])), [0, 0, 0], axis=0))


def _unknown_kernel(case: Case) -> str:
    known = all(isinstance(dim, int) for dim in case.shapes[1] or ("",))
    return "" if known else "the extents of its kernel are symbols; export it with fixed ones"


CausalConvWithState = Op(
    "CausalConvWithState",
    "Each channel convolved with a kernel of its own over the present and the past, which it hands on.",
    unpredicted="its state carries positions of another call",
    vjp=_causal_vjp,
    refuses=_unknown_kernel,
    samples=(
        sample(("N", 2, "T"), (2, 1, 3), outputs=2),
        sample(("N", 2, 4), (2, 1, 3), (2,), ("N", 2, 2), activation="silu", outputs=2),
        sample((2, 3, "T"), (3, 1, 2), None, (2, 3, 1), activation="swish", outputs=2),
        sample((1, 2, 2), (2, 1, 4), (2,), outputs=2),
    ),
)

ROWS = (RotaryEmbedding, TensorScatter, CausalConvWithState)
