"""VG6: what is wrong with what is written out before a model is read: blocks, parameters, expressions, includes, variants."""

from __future__ import annotations

from vgcompile.rules.rule import error

BAD_INCLUDE = error(
    "VG601",
    "bad-include",
    "`include:` names files beside the model by a relative path, no addresses, none that includes itself.",
    """
    include: /etc/blocks.yaml
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: relu}]
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: relu}]
    """,
)

BAD_DECLARATION = error(
    "VG602",
    "bad-declaration",
    "A block has the name of a kind, a parameter that of a field of every layer; or a declaration says what none can.",
    """
    blocks:
      dense: {layers: [{kind: relu}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: dense, units: 4}]
    """,
    """
    blocks:
      rectified: {layers: [{kind: relu}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: rectified}]
    """,
)

MISSING_PARAMETER = error(
    "VG603",
    "missing-parameter",
    "A parameter without a default needs a value: a block's where the block is used, the model's by --set or a variant.",
    """
    blocks:
      wide: {params: {width: int}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide}]
    """,
    """
    blocks:
      wide: {params: {width: int}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide, width: 10}]
    """,
)

UNKNOWN_PARAMETER = error(
    "VG604",
    "unknown-parameter",
    "The block has no parameter of that name.",
    """
    blocks:
      wide: {params: {width: 8}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide, widht: 10}]
    """,
    """
    blocks:
      wide: {params: {width: 8}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide, width: 10}]
    """,
)

PARAMETER_VALUE = error(
    "VG605",
    "parameter-value",
    "The value is not of the parameter's type, which is that of its default where none is stated, or none of its choices.",
    """
    blocks:
      wide: {params: {width: int}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide, width: ten}]
    """,
    """
    blocks:
      wide: {params: {width: int}, layers: [{kind: dense, units: "${width}"}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: wide, width: 10}]
    """,
)

BLOCK_CIRCLE = error(
    "VG606",
    "block-circle",
    "A block holds, by way of others, itself: written out it would have no end.",
    """
    blocks:
      inner: {layers: [{kind: outer}]}
      outer: {layers: [{kind: inner}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: outer}]
    """,
    """
    blocks:
      inner: {layers: [{kind: tanh}]}
      outer: {layers: [{kind: inner}]}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: outer}]
    """,
)

BAD_EXPRESSION = error(
    "VG607",
    "bad-expression",
    "An expression is arithmetic over parameters and the numbers of copies: + - * / // % **, comparisons, `a if c else b`, and "
    "a few functions. Nothing else of Python means anything there.",
    """
    params: {width: 8}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: dense, units: "${widht * 2}", bias: "${width > 4}"}]
    """,
    """
    params: {width: 8}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: dense, units: "${width * 2}", bias: "${width > 4}"}]
    """,
)

BAD_OVERRIDE = error(
    "VG608",
    "bad-override",
    "What --set or a variant wants to replace is not there: they name a parameter, or lead down through fields: "
    "`init.weight.gain`.",
)

RULES = (
    BAD_INCLUDE,
    BAD_DECLARATION,
    MISSING_PARAMETER,
    UNKNOWN_PARAMETER,
    PARAMETER_VALUE,
    BLOCK_CIRCLE,
    BAD_EXPRESSION,
    BAD_OVERRIDE,
)
