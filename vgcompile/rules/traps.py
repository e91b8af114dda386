"""VG4: what is read otherwise than it looks, and what is written for nothing."""

from __future__ import annotations

from vgcompile.rules.rule import warning

TRUTH_WORD = warning(
    "VG401",
    "truth-word",
    "`no`, `on`, `yes` and their like are strings in YAML 1.2, which we read, and truth values in YAML 1.1, which "
    "many tools read. "
    "In quotes both read the same.",
    """
    inputs: {on: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
    """
    inputs: {"on": {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

OCTAL = warning(
    "VG402",
    "octal-like",
    "A number with a leading zero is decimal in YAML 1.2, which we read, and octal in YAML 1.1: `010` is ten here and "
    "eight there.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 010}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

EMPTY_VALUE = warning(
    "VG403",
    "empty-value",
    "A key with nothing behind it has the value null, which means the field's default: as a rule something was to be filled in.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - kind: dense
        units: 10
        activation:
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - kind: dense
        units: 10
        activation: relu
    """,
)

UNUSED_ANCHOR = warning(
    "VG404",
    "unused-anchor",
    "No alias stands for the value that the anchor marks: the alias was forgotten, or the anchor is left over.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - &hidden {kind: dense, units: 4, activation: relu}
      - {kind: dense, units: 4}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - &hidden {kind: dense, units: 4, activation: relu}
      - *hidden
    """,
)

UNUSED_IGNORE = warning(
    "VG405",
    "unused-ignore",
    "A comment `# vgcompile: ignore CODE` on a line that has no such warning. Errors cannot be ignored.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}  # vgcompile: ignore VG402
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 010}  # vgcompile: ignore VG402
    """,
)

UNUSED_DEFINITION = warning(
    "VG406",
    "unused-definition",
    "A block or a parameter is declared, and nothing in the model uses it.",
    """
    params: {width: 8}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: dense, units: 10}]
    """,
    """
    params: {width: 8}
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: dense, units: "${width}"}]
    """,
)

RULES = (TRUTH_WORD, OCTAL, EMPTY_VALUE, UNUSED_ANCHOR, UNUSED_IGNORE, UNUSED_DEFINITION)
