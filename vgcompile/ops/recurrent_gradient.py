"""The gradients of RNN, GRU and LSTM in one direction: their factors, their step back in time, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vgcompile.ops.normalization import added
from vgcompile.ops.recurrence import Run, held, over_steps, weight_gradient
from vgcompile.ops.shape import full_shape, zeros_like


@dataclass(frozen=True)
class Parts:
    """One direction's adjoints."""

    x: Any
    w: Any
    r: Any
    b: Any
    h: Any
    c: Any = None
    p: Any = None


def rnn(run: Run, **_: Any) -> Parts:
    """h = f(z): dz = dh f', and dz R goes on."""
    op, (f,) = run.op, run.activations
    before = run.before(run.y)
    z = run.weighted((run.x, run.w), (before, run.r), bias=run.bias)
    slope = f.slope(op, z, run.y)
    factor = run.within(op.Expand(slope, full_shape(op, run.y)) if isinstance(slope, float) else slope)

    def step(op: Any, dh: Any, gy: Any, factor: Any, valid: Any) -> Any:
        dh = added([dh, gy])
        dz = dh * factor
        return [held(op, valid, op.MatMul(dz, run.r), dh)], [dz]

    dh, dz = run.scan(step, [run.or_zeros(run.gh)], [run.gy, factor, run.valid], kept=1, back=True)
    return _parts(run, dz, dz, weight_gradient(op, dz, before), dh)


def gru(run: Run, *, linear_before_reset: int, **_: Any) -> Parts:
    """h' = (1 - z) n + z h, n = g(W x + R (r h)), or g(W x + r (R h + b)) where the reset comes after the product."""
    return _gru_linear(run) if linear_before_reset else _gru_reset(run)


def _gru_reset(run: Run) -> Parts:
    """q = dn R_n is the adjoint of r h."""
    op, (f, g) = run.op, run.activations
    r_gates, r_new = op.Split(run.r, [2 * run.hidden, run.hidden], axis=0, outputs=2)
    before = run.before(run.y)
    x_gates, x_new = run.blocks(run.weighted((run.x, run.w), bias=run.bias), 2, 1)
    a_gates = x_gates + run.weighted((before, r_gates))
    gates = f.value(op, a_gates)
    z, r = run.blocks(gates, 1, 1)
    reset = r * before
    a_new = x_new + run.weighted((reset, r_new))
    new = g.value(op, a_new)
    k_gates = run.within(op.Concat(before - new, before, axis=-1) * f.slope(op, a_gates, gates))
    k_new = run.within((1.0 - z) * g.slope(op, a_new, new))

    def step(op: Any, dh: Any, gy: Any, k_gates: Any, k_new: Any, z: Any, r: Any) -> Any:
        dh = added([dh, gy])
        d_new = dh * k_new
        q = op.MatMul(d_new, r_new)
        d_gates = op.Concat(dh, q, axis=-1) * k_gates
        return [dh * z + q * r + op.MatMul(d_gates, r_gates)], [d_gates, d_new]

    slices = [run.gy, k_gates, k_new, run.within(z, 1.0), r]
    dh, d_gates, d_new = run.scan(step, [run.or_zeros(run.gh)], slices, kept=2, back=True)
    d = op.Concat(d_gates, d_new, axis=-1)
    dr = op.Concat(weight_gradient(op, d_gates, before), weight_gradient(op, d_new, reset), axis=0)
    return _parts(run, d, d, dr, dh)


def _gru_linear(run: Run) -> Parts:
    """All that R h is used for has adjoints that are multiples of dh'."""
    op, (f, g) = run.op, run.activations
    before = run.before(run.y)
    of_inputs, of_states = (None, None) if run.b is None else op.Split(run.b, axis=0, num_outputs=2, outputs=2)
    x_gates, x_new = run.blocks(run.weighted((run.x, run.w), bias=of_inputs), 2, 1)
    h_gates, h_new = run.blocks(run.weighted((before, run.r), bias=of_states), 2, 1)
    a_gates = x_gates + h_gates
    gates = f.value(op, a_gates)
    z, r = run.blocks(gates, 1, 1)
    a_new = x_new + r * h_new
    new = g.value(op, a_new)
    k_new = (1.0 - z) * g.slope(op, a_new, new)
    k_gates = op.Concat(before - new, k_new * h_new, axis=-1) * f.slope(op, a_gates, gates)
    k = run.within(op.Concat(k_gates, k_new * r, axis=-1))

    def step(op: Any, dh: Any, gy: Any, k: Any, z: Any) -> Any:
        dh = added([dh, gy])
        d = op.Concat(dh, dh, dh, axis=-1) * k
        return [op.MatMul(d, run.r) + dh * z], [d, dh]

    slices = [run.gy, k, run.within(z, 1.0)]
    dh, d, d_after = run.scan(step, [run.or_zeros(run.gh)], slices, kept=2, back=True)
    dx = op.Concat(run.blocks(d, 2, 1)[0], d_after * run.within(k_new), axis=-1)
    return _parts(run, dx, d, weight_gradient(op, d, before), dh)


def lstm(run: Run, *, input_forget: int, **_: Any) -> Parts:
    """c' = f c + i n, h' = o last(c'); gates in the order i, o, f, c.

    With u = o last' and v = f (and what the peepholes add to them): dc' = dc + dh' u, dz = [dc', dh', dc', dc'] k, and dz R and
    dc' v go on.
    """
    op, (f, g, last) = run.op, run.activations
    last = replace(last, clip=None)
    before = run.before(run.y)
    a_gates, a_new = run.blocks(run.weighted((run.x, run.w), (before, run.r), bias=run.bias), 3, 1)
    new = g.value(op, a_new)
    c_before, c = _cells(run, a_gates, new, input_forget)
    peeped = None if run.p is None else op.Concat(c_before, c, c_before, axis=-1)
    a_gates = a_gates if peeped is None else a_gates + peeped * run.p
    gates = f.value(op, a_gates)
    i, o, forget = run.blocks(gates, 1, 1, 1)
    final = last.value(op, c)
    factors = [new - c_before, final, zeros_like(op, c)] if input_forget else [new, final, c_before]
    k_gates = op.Concat(*factors, axis=-1) * f.slope(op, a_gates, gates)
    u, v = o * last.slope(op, c, final), 1.0 - i if input_forget else forget
    if run.p is not None:
        k_i, k_o, k_f = run.blocks(k_gates * run.p, 1, 1, 1)
        u, v = u + k_o, v + k_i + k_f
    k = run.within(op.Concat(k_gates, i * g.slope(op, a_new, new), axis=-1))

    def step(op: Any, dh: Any, dc: Any, gy: Any, k: Any, u: Any, v: Any, valid: Any) -> Any:
        dh = added([dh, gy])
        dc = dc + dh * u
        d = op.Concat(dc, dh, dc, dc, axis=-1) * k
        return [held(op, valid, op.MatMul(d, run.r), dh), dc * v], [d]

    slices = [run.gy, k, run.within(u), run.within(v, 1.0), run.valid]
    dh, dc, d = run.scan(step, [run.or_zeros(run.gh), run.or_zeros(run.gc)], slices, kept=1, back=True)
    dp = None if peeped is None else over_steps(op, run.blocks(d, 3, 1)[0] * peeped)
    return replace(_parts(run, d, d, weight_gradient(op, d, before), dh), c=dc, p=dp)


def _cells(run: Run, a_gates: Any, new: Any, input_forget: int) -> tuple[Any, Any]:
    """The cells before and after each step, by a Scan over elementwise operations: the operator gives out the last ones only."""
    op, f = run.op, run.activations[0]
    start = run.or_zeros(run.c)

    def open_step(op: Any, c: Any, forget: Any, fresh: Any) -> Any:
        return [forget * c + fresh], [c]

    def peeping_step(op: Any, c: Any, a_i: Any, a_f: Any, new: Any, valid: Any) -> Any:
        i = f.value(op, a_i + c * p_i)
        forget = 1.0 - i if input_forget else f.value(op, a_f + c * p_f)
        return [held(op, valid, forget * c + i * new, c)], [c]

    if run.p is None:
        i, _, forget = run.blocks(f.value(op, a_gates), 1, 1, 1)
        slices = [run.within(1.0 - i if input_forget else forget, 1.0), run.within(i * new)]
        end, c_before = run.scan(open_step, [start], slices, kept=1, back=False)
    else:
        p_i, _, p_f = run.blocks(run.p, 1, 1, 1)
        a_i, _, a_f = run.blocks(a_gates, 1, 1, 1)
        end, c_before = run.scan(peeping_step, [start], [a_i, a_f, new, run.valid], kept=1, back=False)
    return c_before, run.after(c_before, end)


def _parts(run: Run, d_inputs: Any, d_states: Any, dr: Any, dh: Any) -> Parts:
    """What follows from the adjoints [T, B, G H] of W x + b and of R h + b; that of R itself is given."""
    op = run.op
    sums = [over_steps(op, d) for d in (d_inputs, d_states)]
    dw = weight_gradient(op, d_inputs, run.x)
    return Parts(op.MatMul(d_inputs, run.w), dw, dr, op.Concat(*sums, axis=0), dh)
