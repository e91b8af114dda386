"""VG2: what is wrong with names and wires."""

from __future__ import annotations

from vgcompile.rules.rule import error

UNKNOWN_LAYER = error(
    "VG201",
    "unknown-layer",
    "A name is looked up among the layers beside it, then outward block by block, then among the inputs; "
    "`block/2/name` goes down.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: encoder, units: 10}
      - {kind: relu, from: encodr}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: encoder, units: 10}
      - {kind: relu, from: encoder}
    """,
)

UNKNOWN_INPUT = error(
    "VG202",
    "unknown-input",
    "The target of a loss, and the names under `arrays:`, are inputs of the model.",
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 4]}}
    layers: [{kind: tanh}]
    loss: {kind: mse, target: z}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 4]}}
    layers: [{kind: tanh}]
    loss: {kind: mse, target: y}
    """,
)

TAKEN_NAME = error(
    "VG203",
    "taken-name",
    "Two layers of one list, or a layer and an input, have one name; or the name is one that the language keeps for itself.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: hidden, units: 10, activation: relu}
      - {kind: dense, name: hidden, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: hidden, units: 10, activation: relu}
      - {kind: dense, name: last, units: 10}
    """,
)

NUMBER_OF_INPUTS = error(
    "VG204",
    "number-of-inputs",
    "The layer takes another number of inputs than it gets.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: left, units: 10}
      - {kind: dense, name: right, from: x, units: 10}
      - {kind: relu, from: [left, right]}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: left, units: 10}
      - {kind: dense, name: right, from: x, units: 10}
      - {kind: add, from: [left, right], activation: relu}
    """,
)

CIRCLE = error(
    "VG205",
    "circle",
    "A layer reads, by way of others, itself. A static graph runs once from its inputs to its outputs.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: add, name: state, from: [x, step]}
      - {kind: tanh, name: step}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: tanh, name: step}
      - {kind: add, name: state, from: [x, step]}
    """,
)

DEAD_LAYER = error(
    "VG206",
    "dead-layer",
    "What the layer computes never reaches the loss: as a rule a `from:` that passes it by.",
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 8]}}
    layers:
      - {kind: dense, name: hidden, units: 8, activation: relu}
      - {kind: dense, name: last, from: x, units: 8}
    loss: {kind: mse, target: y}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 8]}}
    layers:
      - {kind: dense, name: hidden, units: 8, activation: relu}
      - {kind: dense, name: last, units: 8}
    loss: {kind: mse, target: y}
    """,
)

UNUSED_INPUT = error(
    "VG207",
    "unused-input",
    "No layer reads the input, and no loss compares with it. The first input feeds the first layer, others are named "
    "in a `from:`.",
    """
    inputs: {x: {shape: [batch, 4]}, side: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 8}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, side: {shape: [batch, 4]}}
    layers:
      - {kind: concat, from: [x, side]}
      - {kind: dense, units: 8}
    """,
)

NOTHING_TO_SHARE = error(
    "VG208",
    "nothing-to-share",
    "`share:` names a layer of the same kind, whose parameters are used in place of one's own.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: first, units: 4, activation: tanh}
      - {kind: dense, units: 4, share: x}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, name: first, units: 4, activation: tanh}
      - {kind: dense, units: 4, share: first}
    """,
)

TOO_MANY_LAYERS = error(
    "VG209",
    "too-many-layers",
    "Blocks and repeats open into more layers than any machine holds.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: block, repeat: 1000000, layers: [{kind: dense, units: 4, activation: tanh}]}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: block, repeat: 10, layers: [{kind: dense, units: 4, activation: tanh}]}
    """,
)

MISSING_ARRAY = error(
    "VG210",
    "missing-array",
    "`arrays:` names an array for each input, or is left out where inputs and arrays have the same names.",
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 4]}}
    layers: [{kind: tanh}]
    loss: {kind: mse, target: y}
    data: {file: data.npz, arrays: {x: images}}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 4]}}
    layers: [{kind: tanh}]
    loss: {kind: mse, target: y}
    data: {file: data.npz, arrays: {x: images, y: targets}}
    """,
)

UNFIT_FEED = error(
    "VG211",
    "unfit-feed",
    "What is said of an input's data does not suit its numbers: class numbers are not normalized, and no teacher reads them.",
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 3}}
    layers: [{kind: dense, units: 3}]
    loss: {kind: cross_entropy, target: label}
    data: {file: data.npz, normalize: {label: {mean: 1, sd: 1}}}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 3}}
    layers: [{kind: dense, units: 3}]
    loss: {kind: cross_entropy, target: label}
    data: {file: data.npz, normalize: {x: {mean: 1, sd: 1}}}
    """,
)

RULES = (
    UNKNOWN_LAYER,
    UNKNOWN_INPUT,
    TAKEN_NAME,
    NUMBER_OF_INPUTS,
    CIRCLE,
    DEAD_LAYER,
    UNUSED_INPUT,
    NOTHING_TO_SHARE,
    TOO_MANY_LAYERS,
    MISSING_ARRAY,
    UNFIT_FEED,
)
