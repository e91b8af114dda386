"""Sequences of tensors and optional values: they hold what has a gradient, and have none themselves yet.

A value that is no tensor has no shape and no adjoint. A model may hold such values wherever no gradient is asked for; a way
from the loss that leads through one is refused.
"""

from __future__ import annotations

from vgcompile.ops.families import blocked, uncovered
from vgcompile.ops.op import Case, Op, sample

SEQUENCE = "a sequence of tensors has no adjoint yet; join and cut tensors with Concat and Split, or stack them and use Gather"
OPTIONAL = "an optional value has no adjoint yet; hand the tensor itself on"

SequenceConstruct = uncovered("SequenceConstruct", "A sequence of tensors.", SEQUENCE)
SequenceInsert = uncovered("SequenceInsert", "A sequence with one tensor more.", SEQUENCE)
SequenceErase = uncovered("SequenceErase", "A sequence with one tensor less.", SEQUENCE)
SequenceAt = uncovered("SequenceAt", "One tensor of a sequence.", SEQUENCE)
SequenceMap = uncovered("SequenceMap", "A body run on each tensor of a sequence.", SEQUENCE)
SplitToSequence = uncovered("SplitToSequence", "A tensor cut into a sequence of pieces.", SEQUENCE)
ConcatFromSequence = uncovered("ConcatFromSequence", "The tensors of a sequence, joined or stacked.", SEQUENCE)
SequenceEmpty = blocked("SequenceEmpty", "A sequence without tensors.", "it holds no value")
SequenceLength = blocked(
    "SequenceLength", "The number of tensors in a sequence.", "a number of tensors does not change with their values"
)

Optional = uncovered("Optional", "A value that may be absent.", OPTIONAL)


def _refuses(case: Case) -> str:
    return OPTIONAL if case.shapes[0] is None else ""


OptionalGetElement = Op(
    "OptionalGetElement",
    "The tensor that an optional value holds, or x itself where x is a tensor.",
    unpredicted="whether there is an element, only a run tells",
    vjp=lambda op, g, y, x: (g,),
    refuses=_refuses,
    samples=(sample(("N", 3)),),
)
OptionalHasElement = blocked(
    "OptionalHasElement", "Whether a value is there.", "its output is a truth value", samples=(sample((2, 3)),)
)

ROWS = (
    *(SequenceConstruct, SequenceInsert, SequenceErase, SequenceAt, SequenceMap, SplitToSequence, ConcatFromSequence),
    *(SequenceEmpty, SequenceLength, Optional, OptionalGetElement, OptionalHasElement),
)
