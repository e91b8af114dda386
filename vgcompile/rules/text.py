"""VG0: what is wrong with a file as a YAML text."""

from __future__ import annotations

from vgcompile.rules.rule import error

UNCLASSIFIED = error("VG000", "unclassified", "A fault without a rule of its own: its message says all there is.")

UNREADABLE = error("VG001", "unreadable-file", "The file is not there, is a folder, or may not be read.")

NOT_TEXT = error(
    "VG002",
    "not-text",
    "The file holds bytes that are not UTF-8, or characters that no YAML text may hold: as a rule it is another kind of file.",
)

SYNTAX = error(
    "VG003",
    "yaml-syntax",
    "The text is not YAML: a bracket or a quote that is not closed, an indentation that fits nothing, a tab.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10
      - {kind: relu}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
      - {kind: relu}
    """,
)

DUPLICATE_KEY = error(
    "VG004",
    "duplicate-key",
    "A mapping has one value for each key. Other readers keep the last one and drop the first without a word.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, units: 20}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 20}
    """,
)

KEY_TYPE = error(
    "VG005",
    "key-not-a-string",
    "Fields and names are strings. A number, a truth value or a list as a key is a typing error as a rule.",
    """
    inputs: {1: {shape: [batch, 4]}}
    layers:
      - {kind: relu}
    """,
    """
    inputs: {x_1: {shape: [batch, 4]}}
    layers:
      - {kind: relu}
    """,
)

MERGE_KEY = error(
    "VG006",
    "merge-key",
    "`<<` was an extension of YAML 1.1 and is not in YAML 1.2. An alias of a whole value is.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - &wide {kind: dense, units: 10}
      - {<<: *wide, bias: false}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - &wide {kind: dense, units: 10, activation: relu}
      - *wide
    """,
)

TAG = error(
    "VG007",
    "yaml-tag",
    "Explicit tags (`!!int`, `!name`) have no meaning in a model. They are refused for they run code in some readers.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: !!int "10"}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

SECOND_DOCUMENT = error(
    "VG008",
    "second-document",
    "A line `---` begins another document. One file holds one model.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: relu}]
    ---
    inputs: {x: {shape: [batch, 8]}}
    layers: [{kind: tanh}]
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: relu}]
    """,
)

UNKNOWN_ANCHOR = error(
    "VG009",
    "unknown-anchor",
    "An alias `*name` stands for the value that an anchor `&name` marked before it.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 8, activation: relu, init: *drawn}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 8, activation: relu, init: &drawn {weight: he_normal}}
      - {kind: dense, units: 8, init: *drawn}
    """,
)

RECURSION = error(
    "VG010",
    "recursive-anchor",
    "A value that contains its own alias has no end.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers: &layers
      - {kind: block, layers: *layers}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: block, repeat: 3, layers: [{kind: dense, units: 4, activation: relu}]}
    """,
)

TOO_LARGE = error(
    "VG011",
    "too-large",
    "The text, its aliases expanded, is larger than any model: more than 200,000 values, 64 levels, or a number of 4,000 digits.",
    f"""
    inputs: {{x: {{shape: [batch, 4]}}}}
    layers: {"[" * 70}{"]" * 70}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers: [{kind: relu}]
    """,
)

NO_MODEL = error(
    "VG012",
    "no-model",
    "A model is a mapping with `inputs:` and `layers:`. This is an empty text, a list, or one value.",
    """
    - {kind: dense, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
    """,
)

RULES = (
    UNCLASSIFIED,
    UNREADABLE,
    NOT_TEXT,
    SYNTAX,
    DUPLICATE_KEY,
    KEY_TYPE,
    MERGE_KEY,
    TAG,
    SECOND_DOCUMENT,
    UNKNOWN_ANCHOR,
    RECURSION,
    TOO_LARGE,
    NO_MODEL,
)
