"""Comparisons, logic and bits: steps, through which nothing flows."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.interval import interval
from vgcompile.ops.arithmetic import PAIRS
from vgcompile.ops.families import blocked
from vgcompile.ops.op import Array, Op, Rule, sample

TRUTH = "a truth value is a step: its slope is 0 wherever it has one"
BITS = "it works on the bits of whole numbers"


def _truth(name: str, doc: str, f: Rule, *operands: Array) -> Op:
    return blocked(
        name,
        doc,
        TRUTH,
        numpy=f,
        range=lambda case: interval(0.0, 1.0),
        samples=(sample(*operands),) if operands else PAIRS,
    )


_YES_AND_NO = np.array([[True], [False]]), np.array([True, False])

Greater = _truth("Greater", "Whether a > b.", np.greater)
Less = _truth("Less", "Whether a < b.", np.less)
GreaterOrEqual = _truth("GreaterOrEqual", "Whether a >= b.", np.greater_equal)
LessOrEqual = _truth("LessOrEqual", "Whether a <= b.", np.less_equal)
Equal = _truth("Equal", "Whether a = b.", np.equal)
And = _truth("And", "Whether a and b hold.", np.logical_and, *_YES_AND_NO)
Or = _truth("Or", "Whether a or b holds.", np.logical_or, *_YES_AND_NO)
Xor = _truth("Xor", "Whether just one of a and b holds.", np.logical_xor, *_YES_AND_NO)
Not = _truth("Not", "Whether x does not hold.", np.logical_not, _YES_AND_NO[0])

_A, _B = np.array([[1], [6]], np.uint8), np.array([3, 5], np.uint8)


def _bitwise(name: str, doc: str, f: Rule, *operands: Array, **attributes: Any) -> Op:
    return blocked(name, doc, BITS, numpy=f, samples=(sample(*operands, **attributes),))


BitwiseAnd = _bitwise("BitwiseAnd", "The bits that are set in a and in b.", np.bitwise_and, _A, _B)
BitwiseOr = _bitwise("BitwiseOr", "The bits that are set in a or in b.", np.bitwise_or, _A, _B)
BitwiseXor = _bitwise("BitwiseXor", "The bits that are set in just one of a and b.", np.bitwise_xor, _A, _B)
BitwiseNot = _bitwise("BitwiseNot", "The bits that are not set.", np.bitwise_not, _A)
BitShift = _bitwise(
    "BitShift",
    "The bits of a, moved by b places.",
    lambda a, b, *, direction: a << b if direction == "LEFT" else a >> b,
    _A,
    _B,
    direction="LEFT",
)
BitCast = blocked(
    "BitCast", "The same bits, read as another type.", "a pattern of bits, read as another type, is no function with a slope"
)

ROWS = (
    *(Greater, Less, GreaterOrEqual, LessOrEqual, Equal, And, Or, Xor, Not),
    *(BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift, BitCast),
)
