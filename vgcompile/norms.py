"""Certified norms of linear maps: what is said here is true of the given numbers, rounding included.

Upper bounds of the largest singular value come from Gram iteration (Delattre et al. 2023, arXiv:2305.16173), which, unlike the
power method, never stays below the truth, and for large matrices from a guess that a Cholesky factorization proves. Lower bounds
of the smallest come from a singular value decomposition less its backward error. Everything is float64; float32 parameters
convert exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

UNIT = float(np.finfo(np.float64).eps) / 2  # unit roundoff
SMALLEST = 2.0**-1074  # what a product below the normal doubles is rounded by, at most
ITERATIONS = 5
FACTORED = 128  # the shorter side from which a guess and its proof cost less than Gram steps
GUESSES = (1e-5, 2e-3, 0.02, 0.2)  # by how much a guess of the greatest eigenvalue is raised until it is proved
TOLERANCE = 1e-4  # of the guess, whose error is about its square
BISECTED = 48  # the side from which one or two eigenvalues cost less than all of them
BLOCK = 32  # columns that are brought to tridiagonal form at once
BY_NUMBER = 2  # LAPACK's word for eigenvalues from one number to another
STEPS = 8  # of the power method, where a guess is not to be proved
LARGEST_DECOMPOSED = 2048  # beyond this a decomposition takes seconds and the smallest singular value is taken as 0
GRID = 12  # samples of a transfer function for each degree of its polynomial
HIDDEN = 1e-8  # of the largest eigenvalue of a Gram matrix: below it the smallest has lost too many digits
LARGEST_TRANSFER = 5e8  # multiply-adds of one Gram step over all samples; beyond this a matricization bounds the norm


def smallest_singular_value(matrix: Array) -> float:
    """A lower bound of the smallest of the min(m, n) singular values of a matrix [m, n], floored at 0.

    LAPACK's singular values are exact for a matrix within p(m, n) u ||A|| of the given one (Higham 2002, section 18 and its
    notes; LAPACK Users' Guide 4.9.1, p a "modestly growing function"), and singular values move by no more than the matrix does
    (Weyl). p = 16 (m + n) is an order of magnitude beyond what is observed.
    """
    m, n = matrix.shape
    if min(m, n) > LARGEST_DECOMPOSED or not np.isfinite(matrix).all():
        return 0.0
    values = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    return max(float(values[-1] - 16.0 * (m + n) * UNIT * values[0]), 0.0)


def singular_extremes(matrix: Array, beneath: float = 0.0) -> tuple[float, float]:
    """A lower bound of the smallest and an upper bound of the largest of the min(m, n) singular values of a matrix [m, n].

    Both are roots of eigenvalues of the smaller Gram matrix, at less than half of a decomposition's cost. Its product is off by
    k u ||A||_F^2 in norm (Higham 2002, eq. 3.13) and its eigenvalues by p(n) u ||A||^2; where that hides the smallest, a
    decomposition is made after all. A smallest one of no more than ``beneath`` is of no use to the caller, and may be given as 0.
    """
    a = np.asarray(matrix, np.float64)
    scale = max(float(a.max(initial=0.0)), -float(a.min(initial=0.0)))
    if not math.isfinite(scale):
        return (0.0, math.inf)
    if scale == 0.0:
        return (0.0, 0.0)
    if min(a.shape) > LARGEST_DECOMPOSED:
        return (0.0, float(spectral_norm(a)))
    a = a / scale
    tall = a if a.shape[0] >= a.shape[1] else a.T
    m, n = tall.shape
    least, greatest = _eigenvalues(tall.T @ tall, (1, n))
    error = 4.0 * (m + 8) * UNIT * float(np.linalg.norm(tall)) ** 2 + 32.0 * n * UNIT * greatest
    hi = math.sqrt(greatest + error) * scale * (1.0 + 4.0 * UNIT) + SMALLEST
    least -= error
    if least < HIDDEN * greatest:
        return (0.0 if math.sqrt(HIDDEN) * hi <= beneath else smallest_singular_value(matrix), hi)
    return (math.sqrt(least) * scale * (1.0 - 4.0 * UNIT), hi)


def _eigenvalues(gram: Array, places: Sequence[int]) -> list[float]:
    """The eigenvalues of a symmetric matrix G [n, n] at these places, 1 the least, n the greatest, off by p(n) u ||G|| at most.

    Of a large one, bisections of its tridiagonal form cost less than all eigenvalues; both steps are backward stable (LAPACK
    Users' Guide 4.7.1), of entries whose squares neither overflow nor underflow.
    """
    n = len(gram)
    if n < BISECTED:
        values = np.linalg.eigvalsh(gram)
        return [float(values[place - 1]) for place in places]
    from scipy.linalg import lapack  # slow to import

    _, diagonal, beside, _, _ = lapack.dsytrd(gram.T, lwork=BLOCK * n)
    ends = [lapack.dstebz(diagonal, beside, BY_NUMBER, 0.0, 0.0, k, k, 0.0, "E") for k in places]
    if any(failed for *_, failed in ends):
        raise np.linalg.LinAlgError("an eigenvalue was not found by bisection")
    return [float(found[0]) for _, found, *_ in ends]


def spectral_norm(stack: Array, iterations: int = ITERATIONS) -> Array:
    """An upper bound of the largest singular value of each matrix of a stack [..., m, n], real or complex.

    With G_0 = A and G_t+1 = G_t* G_t one has ||A|| = ||G_t||^(1/2^t), and any norm above ||G_t|| does at the end: the smaller
    of the Frobenius norm and the largest row sum, which is exact for orthogonal A. Each step is rescaled to Frobenius norm 1.
    A single large real matrix is bounded by :func:`factored_norm`, which is nearer to the truth.

    A computed product of inner dimension n is off by at most n' u ||G_t||_F^2 <= n' n u ||G_t||^2 in norm (n' = n + 4, twice
    that for complex numbers; Higham 2002, eq. 3.13), and the t-th step enters with the root 1/2^(t+1): all steps together by a
    factor below 1 + 8 (n + 8)^2 u, which has room for the logarithms.
    """
    a = np.asarray(stack)
    if not np.isfinite(a).all():
        return np.full(a.shape[:-2], np.inf)
    if math.prod(a.shape[:-2]) == 1 and min(a.shape[-2:]) >= FACTORED and not np.iscomplexobj(a):
        return np.full(a.shape[:-2], factored_norm(a.reshape(a.shape[-2:])))
    largest = np.abs(a).max(axis=(-2, -1), initial=0.0)
    a = a / np.where(largest > 0, largest, 1.0)[..., None, None]
    g = a if a.shape[-2] >= a.shape[-1] else np.conj(np.swapaxes(a, -1, -2))
    with np.errstate(divide="ignore"):
        log = np.log(largest)
    for step in range(iterations + 1):
        scale = np.sqrt((np.abs(g) ** 2).sum(axis=(-2, -1)))
        log += np.log(np.where(scale > 0, scale, 1.0)) / 2.0**step
        g = g / np.where(scale > 0, scale, 1.0)[..., None, None]
        if step < iterations:
            g = np.conj(np.swapaxes(g, -1, -2)) @ g
    rest = np.minimum(np.abs(g).sum(axis=-1).max(axis=-1), 1.0)
    with np.errstate(divide="ignore"):
        norm = np.exp(log + np.log(rest) / 2.0**iterations)
    inner = max(a.shape[-2:]) + 8
    return np.asarray(norm * (1.0 + 8.0 * inner * inner * UNIT))


def factored_norm(matrix: Array) -> float:
    """An upper bound of the largest singular value of a real matrix [m, n] of finite numbers.

    The root of the greatest eigenvalue of G = A^T A, which is :func:`_proved_eigenvalue` and what the computed G is off by, at
    most m' u ||A||_F^2 in norm (m' = m + 4; Higham 2002, eq. 3.13).
    """
    a = np.asarray(matrix, np.float64)
    a = a if a.shape[0] >= a.shape[1] else a.T
    largest = float(np.abs(a).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    a = a / largest
    m, n = a.shape
    slack = 4.0 * UNIT * (m + n + 8) * float((a * a).sum())
    return largest * math.sqrt(_proved_eigenvalue(a.T @ a) + slack) * (1.0 + 8.0 * UNIT)


def _proved_eigenvalue(gram: Array) -> float:
    """An upper bound of the greatest eigenvalue of a positive semidefinite matrix G [n, n] of finite numbers.

    It is guessed, c, and proved: where the Cholesky factorization of c I - G runs to its end, no eigenvalue is below
    -n' u tr(c I - G) (Demmel 1989; Rump 2006, "Verification of positive definiteness", n' = n + 2, with room). The largest row
    sum bounds it as well, and is exact where G is a multiple of I.
    """
    n = len(gram)
    guess, rows = _guessed_eigenvalue(gram), float(np.abs(gram).sum(axis=1).max(initial=0.0))
    c = next((c for raised in GUESSES if (c := guess * (1.0 + raised)) > rows or _proved(gram, c)), rows)
    return min(c, rows) * (1.0 + 4.0 * UNIT * (n + 8) * n)


def _proved(gram: Array, c: float) -> bool:
    """Whether no eigenvalue of a symmetric matrix is above c, up to rounding."""
    from scipy.linalg import lapack  # slow to import

    below = -gram
    below[np.diag_indices(len(gram))] += c
    _, failed = lapack.dpotrf(below.T, overwrite_a=True, clean=False)
    return bool(failed == 0)


def _guessed_eigenvalue(gram: Array) -> float:
    """The greatest eigenvalue of a positive semidefinite matrix, from below, near enough to be proved: Lanczos' method."""
    from scipy.sparse.linalg import ArpackError, eigsh  # slow to import

    start = np.random.default_rng(0).standard_normal(len(gram))
    try:
        return float(eigsh(gram, 1, v0=start, tol=TOLERANCE, return_eigenvectors=False)[0])
    except ArpackError:  # no convergence, or a matrix that Lanczos cannot start on
        return float(np.linalg.norm(gram @ start) / np.linalg.norm(start))


def convolution_norm(kernel: Array, strides: Sequence[int], dilations: Sequence[int], group: int = 1) -> float:
    """An upper bound of the norm of a zero-padded convolution with ``kernel`` [out, in / group, *taps], for every spatial size.

    Zero padding only drops rows and columns of the convolution on the infinite grid, whose norm is the largest spectral norm of
    its transfer matrix. That is a trigonometric polynomial of degree d = floor(k / 2) along each axis, so that its largest value
    exceeds the largest of n equidistant samples at most by the factor 1 / cos(pi d / n) an axis (M. Riesz's lemma).

    Where so many samples cost too much, the least of: sqrt(taps) times the norm of a matricization of the kernel (Singla and
    Feizi 2021), and Schur's test on its absolute values.
    """
    kernel = np.asarray(kernel, np.float64)
    grouped = _polyphase(kernel.reshape(group, kernel.shape[0] // group, *kernel.shape[1:]), strides, dilations)
    taps = grouped.shape[3:]
    samples = [1 if k == 1 else GRID * (k // 2) for k in taps]
    points, (inner, outer) = math.prod(samples), sorted(grouped.shape[1:3])
    if group * points * inner * inner * outer > LARGEST_TRANSFER:
        return _matricizations(grouped)
    axes = tuple(range(3, grouped.ndim))
    transfer = np.moveaxis(np.fft.rfftn(grouped, s=samples, axes=axes), (1, 2), (-2, -1))
    gap = math.prod(1.0 / math.cos(math.pi * (k // 2) / n) for k, n in zip(taps, samples, strict=True))
    # The transform's own error (Higham 2002, theorem 24.2, with room) moves a norm by no more than its Frobenius norm.
    error = (
        16.0 * math.log2(points + 1) * math.sqrt(points) * UNIT * np.linalg.norm(np.abs(grouped).sum(axis=axes), axis=(-2, -1))
    )
    return float((spectral_norm(transfer).max() + error.max()) * gap)


def _polyphase(grouped: Array, strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """The kernel [group, out, in, *taps] of the same map with stride and dilation 1.

    Output o reads the elements o s + t d. With t d = s q + r the remainder r is one of s phases of the input, each a channel of
    its own, that is read at o + q. What s and d have in common only separates the input into maps that do not meet.
    """
    common = [math.gcd(s, d) for s, d in zip(strides, dilations, strict=True)]
    steps = [s // c for s, c in zip(strides, common, strict=True)]
    if set(steps) == {1}:
        return grouped
    spread = [d // c if s > 1 else 1 for d, c, s in zip(dilations, common, steps, strict=True)]
    taps = grouped.shape[3:]
    extent = [(k - 1) * d // s + 1 for k, d, s in zip(taps, spread, steps, strict=True)]
    phases = np.zeros((*grouped.shape[:3], *steps, *extent))
    for tap in np.ndindex(*taps):
        place = [divmod(t * d, s) for t, d, s in zip(tap, spread, steps, strict=True)]
        phases[(..., *(r for _, r in place), *(q for q, _ in place))] = grouped[(..., *tap)]
    return phases.reshape(*grouped.shape[:2], -1, *extent)


def _matricizations(grouped: Array) -> float:
    group, out, into, *taps = grouped.shape
    root = math.sqrt(math.prod(taps))
    rows = float(np.sqrt(np.abs(grouped).sum(axis=tuple(range(2, grouped.ndim))).max()))
    columns = float(np.sqrt(np.abs(grouped).sum(axis=(1, *range(3, grouped.ndim))).max()))
    by_input = np.moveaxis(grouped, 2, 1).reshape(group, into, -1)
    stacks = [grouped.reshape(group, out, -1), by_input]
    if len(taps) == 2:
        mixed = (grouped.transpose(order) for order in ((0, 1, 3, 2, 4), (0, 1, 4, 2, 3)))
        stacks += [matrix.reshape(group, out * matrix.shape[2], -1) for matrix in mixed]
    if group == 1:  # only the one that promises most is proved
        stacks = [min(stacks, key=lambda stack: _guessed_norm(stack[0]))]
    bounds = [root * float(spectral_norm(stack).max()) for stack in stacks]
    return float(min([rows * columns * (1.0 + 8.0 * grouped[0].size * UNIT), *bounds]))


def _guessed_norm(matrix: Array) -> float:
    """The largest singular value, by a few steps of the power method: from below, and near enough to choose by."""
    x = np.random.default_rng(0).standard_normal(matrix.shape[1])
    for _ in range(STEPS):
        x = matrix.T @ (matrix @ (x / (np.linalg.norm(x) or 1.0)))
    return math.sqrt(float(np.linalg.norm(x)))


def largest_eigenvalue(matrix: Array) -> float:
    """An upper bound of the largest eigenvalue of a symmetric positive matrix [n, n], inf where it is not finite.

    LAPACK's eigenvalues are exact for a matrix within p(n) u ||A|| of the given one (LAPACK Users' Guide 4.7.1); see
    :func:`smallest_singular_value` for p. That of a large one is guessed and proved.
    """
    n, scale = len(matrix), float(np.abs(matrix).max(initial=0.0))
    if not math.isfinite(scale):
        return math.inf
    if n >= FACTORED or scale == 0.0:
        return _proved_eigenvalue(matrix) if scale > 0.0 else 0.0
    return scale * max(_eigenvalues(matrix / scale, [n])[0], 0.0) * (1.0 + 32.0 * n * UNIT) + SMALLEST
