"""Certified norms against exact decompositions, dense matrices of small convolutions, and published ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vgcompile.norms import (
    Array,
    _matricizations,
    _proved,
    convolution_norm,
    largest_eigenvalue,
    singular_extremes,
    smallest_singular_value,
    spectral_norm,
)

CONVOLUTION = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


def spectral_norm_bounds(matrix: Array) -> tuple[float, float]:
    """Bounds of all singular values of a matrix [m, n], or of every matrix of a stack [..., m, n]."""
    stack = matrix.reshape(-1, *matrix.shape[-2:])
    return min(map(smallest_singular_value, stack)), float(spectral_norm(stack).max())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(-150, 150))
def test_bounds_enclose_the_singular_values(m: int, n: int, seed: int, exponent: int) -> None:
    """At every scale that float64 squares would not survive, and for nearly singular matrices."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, min(m, n) + 1))
    matrix = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) * 10.0**exponent
    values = np.linalg.svd(matrix, compute_uv=False)
    lo, hi = spectral_norm_bounds(matrix)
    assert 0.0 <= lo <= values[-1] + 1e-13 * values[0]
    assert values[0] <= hi <= 1.03 * values[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(-150, 150))
def test_both_extremes_at_once(m: int, n: int, seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, min(m, n) + 1))
    matrix = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) * 10.0**exponent
    values = np.linalg.svd(matrix, compute_uv=False)
    lo, hi = singular_extremes(matrix)
    assert 0.0 <= lo <= values[-1] + 1e-13 * values[0]
    assert values[0] * (1.0 - 1e-15) <= hi <= values[0] * (1.0 + 1e-11)
    assert lo >= values[-1] * (1.0 - 1e-5) - 1e-12 * values[0]


def test_exact_cases() -> None:
    """Orthogonal matrices, zero, a single number; not finite means unbounded."""
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    assert spectral_norm_bounds(q) == pytest.approx((1.0, 1.0), abs=1e-10)
    assert spectral_norm_bounds(np.zeros((3, 2))) == (0.0, 0.0)
    assert spectral_norm_bounds(np.array([[-3.0]])) == pytest.approx((3.0, 3.0), rel=1e-12)
    assert spectral_norm(np.array([[np.inf]])) == np.inf


def test_stack_is_bounded_as_a_whole() -> None:
    stack = np.random.default_rng(1).normal(size=(5, 4, 6, 3))
    values = np.linalg.svd(stack, compute_uv=False)
    lo, hi = spectral_norm_bounds(stack)
    assert lo == pytest.approx(values.min(), rel=1e-9)
    assert values.max() <= hi < 1.01 * values.max()


@pytest.mark.parametrize(("iterations", "published"), [(3, 1.123), (4, 1.033), (5, 1.0059), (6, 1.0004)])
def test_gram_iteration_is_as_tight_as_published(iterations: int, published: float) -> None:
    """Ratio to the truth for 256 x 256 Gaussian matrices: never below 1, never above the Frobenius form's known ratio."""
    rng = np.random.default_rng(2)
    stack = rng.normal(size=(4, 256, 256))  # of one matrix alone there is a tighter bound
    ratios = spectral_norm(stack, iterations) / np.linalg.norm(stack, 2, axis=(1, 2))
    assert min(ratios) >= 1.0
    assert np.mean(ratios) <= published + 0.005


LARGE = {
    "Gaussian": lambda rng: rng.normal(size=(300, 200)),
    "wide": lambda rng: rng.normal(size=(130, 900)),
    "orthogonal": lambda rng: np.linalg.qr(rng.normal(size=(200, 200)))[0],
    "of rank 1": lambda rng: np.outer(rng.normal(size=150), rng.normal(size=300)),
    "heavy tails": lambda rng: rng.normal(size=(200, 200)) ** 7,
    "all alike": lambda rng: np.ones((200, 300)),
    "decaying": lambda rng: np.diag(1.0 / np.arange(1, 200)),
}


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("name", LARGE)
def test_large_matrices(name: str, scale: float) -> None:
    """What a factorization proves: never below the truth, and within 0.2 % of it."""
    matrix = LARGE[name](np.random.default_rng(3)) * scale
    truth = np.linalg.svd(matrix, compute_uv=False)[0]
    assert (1.0 - 1e-13) * truth <= spectral_norm(matrix) <= 1.002 * truth


def test_what_is_below_the_truth_is_not_proved() -> None:
    matrix = np.random.default_rng(4).normal(size=(200, 150))
    gram = matrix.T @ matrix
    truth = float(np.linalg.eigvalsh(gram)[-1])
    assert not _proved(gram, truth * (1.0 - 1e-6))
    assert _proved(gram, truth * (1.0 + 1e-6))


def test_zeros_have_no_norm() -> None:
    assert spectral_norm(np.zeros((200, 300))) == 0.0


def dense(kernel: np.ndarray, extent: int, stride: int, pad: int, dilation: int, group: int) -> np.ndarray:
    """The convolution's matrix, one row for each element of the input."""
    rank, channels = kernel.ndim - 2, kernel.shape[1] * group
    basis = torch.eye(channels * extent**rank, dtype=torch.float64).reshape(-1, channels, *[extent] * rank)
    image = CONVOLUTION[rank](basis, torch.from_numpy(kernel), None, stride, pad, dilation, group)
    return image.reshape(len(basis), -1).numpy()


CASES = [  # rank, out, in, group, kernel, stride, dilation, pad, extent, how loose the bound may be
    (2, 4, 3, 1, 3, 1, 1, 1, 12, 1.15),
    (2, 4, 4, 2, 3, 2, 1, 1, 13, 1.2),
    (2, 4, 4, 4, 3, 1, 2, 2, 12, 1.35),
    (2, 6, 3, 1, 4, 4, 1, 0, 8, 1.001),
    (2, 6, 3, 1, 1, 1, 1, 0, 5, 1.001),
    (1, 5, 3, 1, 4, 1, 1, 0, 20, 1.1),
    (1, 3, 3, 1, 5, 2, 2, 4, 21, 1.2),
    (1, 3, 2, 1, 3, 3, 2, 2, 18, 1.1),
    (1, 3, 2, 1, 5, 4, 6, 0, 61, 1.2),
    (2, 3, 2, 1, 5, 2, 1, 2, 15, 1.25),
    (3, 2, 2, 1, 3, 1, 1, 1, 5, 1.5),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution_norm_is_above_the_dense_norm(case: tuple[float, ...]) -> None:
    rank, out, into, group, k, stride, dilation, pad, extent = map(int, case[:9])
    rng = np.random.default_rng(3)
    for _ in range(2):
        kernel = rng.normal(size=(out, into // group, *[k] * rank))
        true = np.linalg.norm(dense(kernel, extent, stride, pad, dilation, group), 2)
        bound = convolution_norm(kernel, [stride] * rank, [dilation] * rank, group)
        assert true <= bound <= case[9] * true


def test_convolution_norm_of_constant_sign() -> None:
    """A kernel of ones has its largest gain at frequency 0, the sum of its taps; an extent of 20 comes close to it."""
    kernel = np.ones((1, 1, 3, 3))
    true = np.linalg.norm(dense(kernel, 20, 1, 1, 1, 1), 2)
    assert true < 9.0 <= convolution_norm(kernel, [1, 1], [1, 1]) <= 9.0 / math.cos(math.pi / 12) ** 2 * 1.000001


def test_matricizations_bound_the_same_norm() -> None:
    """What stands in where the transfer matrix would cost too much."""
    kernel = np.random.default_rng(4).normal(size=(3, 5, 3, 3))
    assert np.linalg.norm(dense(kernel, 10, 1, 1, 1, 1), 2) <= _matricizations(kernel[None])


@pytest.mark.parametrize("name", LARGE)
def test_both_extremes_of_large_matrices(name: str) -> None:
    """By two bisections: what is proved of a whole decomposition holds of them."""
    matrix = LARGE[name](np.random.default_rng(5))
    values = np.linalg.svd(matrix, compute_uv=False)
    lo, hi = singular_extremes(matrix)
    assert values[0] * (1.0 - 1e-14) <= hi <= values[0] * (1.0 + 1e-9)
    assert values[-1] * (1.0 - 1e-3) - 1e-12 * values[0] <= lo <= values[-1] + 1e-13 * values[0]


def test_what_is_below_the_normal_doubles_is_not_rounded_down() -> None:
    least = 2.0**-1074
    matrix = np.array([[4.0, 1.0], [1.0, 2.0]]) * least
    assert largest_eigenvalue(matrix) / least >= 3.0 + math.sqrt(2.0)
    assert singular_extremes(np.ones((1, 2)) * least)[1] / least >= math.sqrt(2.0)
