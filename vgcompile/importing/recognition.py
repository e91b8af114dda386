"""The table of recognition: which layer an operator is, with which fields and which weights.

    Gemm(x, W, b)  ->  dense, {units: 10}, {weight: W, bias: b}, reads x, gives y

One rule an operator, ``(operator, reading) -> Found``, in the room of its family; it raises Unlike where no layer is like it. A
rule may take in nodes behind its own (a bias), and may name kinds and fields that the language does not have: whoever calls it
checks. An operator without a rule that bears the name of an activation is that activation. What many nodes make is found around
one of them: ``COMPOSITES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from vgcompile.importing import arranging, pointwise, recurrence, weighted
from vgcompile.importing.attention import attention
from vgcompile.importing.finding import Composite, Found, Reading, Rule

RULES: Mapping[str, Rule] = {**weighted.RULES, **arranging.RULES, **pointwise.RULES}
LAYOUTS = frozenset(arranging.RULES)
COMPOSITES: Mapping[str, Callable[[ir.Node, Reading], Composite | None]] = {
    **dict.fromkeys(recurrence.KINDS, recurrence.recurrent),
    "ScaledDotProductAttention": attention,
    "Gemm": weighted.rowwise,  # last: one that is a part of an attention is none of its own
}


def recognized(node: ir.Node, reading: Reading) -> Sequence[Found]:
    """The layers that a node is. Raises Unlike."""
    found = RULES.get(node.op_type, pointwise.function)(node, reading)
    return [found] if isinstance(found, Found) else found
