"""VG5: designs that compile, and are known not to do what their author meant."""

from __future__ import annotations

from vgcompile.rules.rule import warning

BIAS_BEFORE_NORM = warning(
    "VG501",
    "bias-before-batch-norm",
    "The normalization subtracts each channel's mean, and the bias with it: its gradient is 0, and the normalization "
    "has a bias of "
    "its own (Ioffe and Szegedy 2015, section 3.2).",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
      - {kind: batch_norm, activation: relu}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, bias: false}
      - {kind: batch_norm, activation: relu}
    """,
)

SQUASHED_LOGITS = warning(
    "VG502",
    "squashed-logits",
    "Losses that take logits apply softmax or sigmoid themselves. Squashed before that, the logits differ by 1 at "
    "most, no class can "
    "be told from the rest with certainty, and the gradient is flattened twice.",
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 3}}
    layers:
      - {kind: dense, name: logits, units: 3, activation: sigmoid}
    loss: {kind: cross_entropy, target: label}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 3}}
    layers:
      - {kind: dense, name: logits, units: 3}
    loss: {kind: cross_entropy, target: label}
    """,
)

DROPOUT_BEFORE_NORM = warning(
    "VG503",
    "dropout-before-batch-norm",
    "Dropout changes the variance in training alone, so that the running variance is wrong at inference (Li, Chen, Hu "
    "and Yang 2019).",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dropout, rate: 0.5}
      - {kind: batch_norm}
      - {kind: dense, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: batch_norm}
      - {kind: dropout, rate: 0.5}
      - {kind: dense, units: 10}
    """,
)

HE_BEFORE_SATURATION = warning(
    "VG504",
    "he-before-saturation",
    "He's variance 2 / fan_in makes up for the half that a rectifier drops (He et al. 2015). A function that "
    "saturates drops nothing, "
    "and is driven into its flat ends.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: sigmoid, init: {weight: he_normal}}
      - {kind: dense, units: 1}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: sigmoid, init: {weight: glorot_normal}}
      - {kind: dense, units: 1}
    """,
)

CONSTANT_WEIGHTS = warning(
    "VG505",
    "constant-weights",
    "Weights that are all alike give every unit the same value and the same gradient for ever; where they are zeros, "
    "nothing flows "
    "back at all. At the end of a residual branch zeros are sound, for the sum hands on the gradient (Zhang et al. "
    "2019, Fixup).",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: tanh, init: {weight: zeros}}
      - {kind: dense, units: 1}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: tanh, init: {weight: glorot_normal}}
      - {kind: dense, units: 1}
    """,
)

LINEAR_STACK = warning(
    "VG506",
    "linear-stack",
    "Two dense layers with nothing between them are one linear map, and the first is no narrower than the second: "
    "they can do no more "
    "than the second alone. As a rule an activation was forgotten.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10}
      - {kind: dense, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: relu}
      - {kind: dense, units: 10}
    """,
)

REPEATED_ACTIVATION = warning(
    "VG507",
    "repeated-activation",
    "An activation directly behind itself: written both as a field and as a layer, or copied. A rectifier changes "
    "nothing the "
    "second time; a function that saturates squashes what is squashed already.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: relu}
      - {kind: relu}
      - {kind: dense, units: 1}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dense, units: 10, activation: relu}
      - {kind: dense, units: 1}
    """,
)

DROPOUT_BEFORE_LOSS = warning(
    "VG508",
    "dropout-before-loss",
    "Dropout of the output zeroes predictions, not features: the loss compares the target with zeros.",
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 2]}}
    layers:
      - {kind: dense, units: 2}
      - {kind: dropout, rate: 0.5}
    loss: {kind: mse, target: y}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, y: {shape: [batch, 2]}}
    layers:
      - {kind: dropout, rate: 0.5}
      - {kind: dense, units: 2}
    loss: {kind: mse, target: y}
    """,
)

NO_EFFECT = warning(
    "VG509",
    "no-effect",
    "With these fields the layer hands on its input as it is.",
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dropout, rate: 0}
      - {kind: dense, units: 10}
    """,
    """
    inputs: {x: {shape: [batch, 4]}}
    layers:
      - {kind: dropout, rate: 0.2}
      - {kind: dense, units: 10}
    """,
)

ONE_CLASS = warning(
    "VG510",
    "one-class",
    "The softmax of a single logit is 1: the cross-entropy over one class is 0 whatever the network says, and so is "
    "its gradient.",
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 1}}
    layers: [{kind: dense, units: 1}]
    loss: {kind: cross_entropy, target: label}
    """,
    """
    inputs: {x: {shape: [batch, 4]}, label: {shape: [batch], type: int64, classes: 2}}
    layers: [{kind: dense, units: 2}]
    loss: {kind: cross_entropy, target: label}
    """,
)

RULES = (
    BIAS_BEFORE_NORM,
    SQUASHED_LOGITS,
    DROPOUT_BEFORE_NORM,
    HE_BEFORE_SATURATION,
    CONSTANT_WEIGHTS,
    LINEAR_STACK,
    REPEATED_ACTIVATION,
    DROPOUT_BEFORE_LOSS,
    NO_EFFECT,
    ONE_CLASS,
)
