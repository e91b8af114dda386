"""VG1: what is wrong with a field: its name, its type, its value."""

from __future__ import annotations

from vgcompile.rules.rule import error

UNKNOWN_FIELD = error(
    "VG101",
    "unknown-field",
    "No such field belongs here. It would change nothing, so it is refused rather than passed over.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activaton: relu}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: relu}
    """,
)

MISSING_FIELD = error(
    "VG102",
    "missing-field",
    "A field without a default has to be stated.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

UNKNOWN_KIND = error(
    "VG103",
    "unknown-kind",
    "There is no layer, activation, loss or distribution of that kind.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: linear, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

WRONG_TYPE = error(
    "VG104",
    "wrong-type",
    "The value is of another type, or out of the range, of what the field takes. Nothing is converted: a string is no "
    "number, and "
    "`no` is a string in YAML 1.2.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: "10", bias: no}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, bias: false}
    """,
)

WRONG_VALUE = error(
    "VG105",
    "wrong-value",
    "Each value is of the right type, and together they make no sense.",
    """
    inputs: {x: {shape: [batch, 4], range: [1, 0]}}
    layers:
      - {kind: dense, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4], range: [0, 1]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

BAD_NAME = error(
    "VG106",
    "bad-name",
    "Names become those of operators and files: letters, digits, `_`, `-` and `.`, with a letter or `_` first.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: the last one, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: the_last_one, units: 10}
    """,
)

RULES = (UNKNOWN_FIELD, MISSING_FIELD, UNKNOWN_KIND, WRONG_TYPE, WRONG_VALUE, BAD_NAME)
