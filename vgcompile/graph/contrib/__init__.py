"""ONNX Runtime's own operators (domain ``com.microsoft``) that its optimizer and its tools write into files: one formula each.

    (op, *inputs, **attributes) -> the outputs, None for one that is not written

`op` is the graph builder; equality with ONNX Runtime's kernels is tested row by row.
"""

from __future__ import annotations

from vgcompile.graph.contrib import attention, grouped, images, moving, norms, pointwise, products, quantized, rotary
from vgcompile.ops.op import Rule

DOMAIN = "com.microsoft"

FORMULAS: dict[str, Rule] = {
    **pointwise.FORMULAS,
    **products.FORMULAS,
    **quantized.FORMULAS,
    **norms.FORMULAS,
    **images.FORMULAS,
    **moving.FORMULAS,
    **attention.FORMULAS,
    **grouped.FORMULAS,
    **rotary.FORMULAS,
}

# ONNX gave these names to operators with other inputs.
HOMONYMS = frozenset({"Attention", "RotaryEmbedding"})
