"""VG8: what an analysis finds of a model's gradients. A rule's grade says how it is known: proved, predicted, observed.

``KINDS`` groups the codes by what is wrong, whatever the grade: the words that --fail-on takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vgcompile.rules.rule import Rule, finding

PROVED = {"tiers": ("sound",)}
PREDICTED = {"tiers": ("expected",), "batch": 16}
OBSERVED = {"tiers": ("measured",), "batch": 16}

_HEAD = "inputs: {x: {shape: [batch, 8], range: [0, 1]}, t: {shape: [batch, 2], range: [0, 1]}}\n"
_LOSS = "loss: {kind: mse, target: t}\n"
_CHAIN = "  - {kind: block, name: hidden, repeat: %d, layers: [{kind: dense, units: 8, activation: %s}]}\n"


def _deep(depth: int, activation: str, weight: str) -> str:
    return (
        f"{_HEAD}init: {{weight: {weight}}}\nlayers:\n{_CHAIN % (depth, activation)}"
        f"  - {{kind: dense, name: out, units: 2}}\n{_LOSS}"
    )


def _shallow(activation: str, init: str, behind: str = "") -> str:
    return (
        f"{_HEAD}init: {init}\nlayers:\n  - {{kind: dense, name: hidden, units: 8, activation: {activation}}}\n"
        f"{behind}  - {{kind: dense, name: out, units: 2}}\n{_LOSS}"
    )


_VANISHING = _deep(12, "sigmoid", "pytorch_default")
_ORTHOGONAL = _deep(12, "tanh", "orthogonal")
_LEAKY = "{kind: leaky_relu, alpha: 0.5}"
_EXPLODING = _deep(12, _LEAKY, "{kind: orthogonal, gain: 6}")
_STEADY = _deep(12, _LEAKY, "{kind: orthogonal, gain: 1.3}")

CERTIFIED_VANISHING = finding(
    "VG801",
    "certified-vanishing",
    "No input of the stated set gets more than the preset's least share of the last hidden layer's gradient to this layer: the "
    "upper bound proves it (Bengio, Simard and Frasconi 1994; here from certified norms and true slope extrema).",
    _VANISHING,
    _ORTHOGONAL,
    PROVED,
)

PREDICTED_VANISHING = finding(
    "VG802",
    "predicted-vanishing",
    "Over initializations the layer's gradient is expected to be below the preset's least share of the last hidden layer's: the "
    "product of chi = sigma_w^2 E[phi'^2] over the layers between (Schoenholz et al. 2017).",
    _VANISHING,
    _ORTHOGONAL,
    PREDICTED,
)

OBSERVED_VANISHING = finding(
    "VG803",
    "observed-vanishing",
    "One batch through the compiled graph sent less than the preset's least share of the last hidden layer's gradient to this "
    "layer, which will hardly learn.",
    _VANISHING,
    _ORTHOGONAL,
    OBSERVED,
)

CERTIFIED_EXPLODING = finding(
    "VG804",
    "certified-exploding",
    "Every input of the stated set gets more than the preset's greatest share of the last hidden layer's gradient to this layer: "
    "the lower bound, from least singular values and least slopes, proves it.",
    _EXPLODING,
    _STEADY,
    PROVED,
)

PREDICTED_EXPLODING = finding(
    "VG805",
    "predicted-exploding",
    "Over initializations the layer's gradient is expected to be above the preset's greatest share of the last hidden layer's: "
    "chi is above 1 on the way (Schoenholz et al. 2017; of batch normalization without skips Yang et al. 2019).",
    _EXPLODING,
    _STEADY,
    PREDICTED,
)

OBSERVED_EXPLODING = finding(
    "VG806",
    "observed-exploding",
    "One batch through the compiled graph sent more than the preset's greatest share of the last hidden layer's gradient to this "
    "layer. A step that suits the last layers throws this one about.",
    _EXPLODING,
    _STEADY,
    OBSERVED,
)

SATURATED = finding(
    "VG807",
    "saturated",
    "More than half of the units are expected to sit where the activation's slope is below a tenth of its greatest (Glorot and "
    "Bengio 2010). An activation that is flat by design on half of the line, as a rectifier, is selective and not saturated.",
    _shallow("tanh", "{weight: {kind: normal, sd: 5}}"),
    _shallow("tanh", "{weight: glorot_normal}"),
    PREDICTED,
)

DEAD = finding(
    "VG808",
    "dead",
    "No gradient arrives: certified where the slope of the activation is identically zero over the stated set, for the whole "
    "layer or for most of its units (dying rectifiers, Lu et al. 2020), observed where a batch sent none.",
    _shallow("relu", "{weight: he_normal, bias: {kind: constant, value: -9}}"),
    _shallow("relu", "{weight: he_normal}"),
    PROVED,
)

BLOCKED = finding(
    "VG809",
    "blocked",
    "A parameter gets no gradient whatever the numbers are: no way leads from it to the loss, or each is cut by a stopped "
    "gradient, by an operator of whole numbers or of steps, or by one that has no gradient rule.",
    _shallow("tanh", "{weight: glorot_normal}", "  - {kind: stop_gradient}\n"),
    _shallow("tanh", "{weight: glorot_normal}"),
    PREDICTED,
)


def _attending(bias: str) -> str:
    return (
        "inputs: {x: {shape: [batch, 6, 8]}, t: {shape: [batch, 6, 8]}}\nlayers:\n"
        f"  - {{kind: dense, name: tokens, units: 8, init: {{bias: {bias}}}}}\n"
        f"  - {{kind: attention, heads: 2}}\n{_LOSS}"
    )


COLLAPSED = finding(
    "VG810",
    "rank-collapsed-attention",
    "The values that attention averages are almost the same at all positions: a mean of them is the same whatever the weights "
    "are, and queries and keys get no gradient (Dong, Cordonnier and Loukas 2021; Noci et al. 2022). The residual is "
    "||X - 1 mean(X)|| / ||X|| over positions.",
    _attending("{kind: normal, sd: 1000}"),
    _attending("zeros"),
    OBSERVED,
)


def _merging(factor: float) -> str:
    return (
        f"{_HEAD}layers:\n"
        "  - {kind: dense, name: hidden, units: 8, activation: tanh}\n  - {kind: dense, name: branch, units: 8}\n"
        f"  - {{kind: expression, name: both, from: branch, formula: x - {factor} * x}}\n"
        f"  - {{kind: dense, name: out, units: 2}}\n{_LOSS}"
    )


CANCELLING = finding(
    "VG811",
    "cancellation",
    "The gradients that the consumers of a value send back almost cancel: their sum is below a tenth of the root of the sum of "
    "their squares. What is left is small, and made of rounding errors in part.",
    _merging(0.98),
    _merging(0.2),
    OBSERVED,
)


def _weighted(weight: str) -> str:
    return _shallow("tanh", "{weight: glorot_normal}").replace("target: t}", f"target: t, weight: {weight}}}")


UNDERFLOW = finding(
    "VG812",
    "gradient-underflow",
    "More than a tenth of a layer's gradient rounds to zero in the floating-point type that it is to be trained in: elements are "
    "taken to be Gaussian, of the predicted (log-normal) or the measured size. Loss scaling moves them up (Micikevicius et al. "
    "2018).",
    _weighted("1e-6"),
    _weighted("1"),
    {**OBSERVED, "dtype": "float16"},
)

LOST_UPDATES = finding(
    "VG813",
    "lost-updates",
    "With the given learning rate more than half of the layer's updates are below half a unit in the last place of their "
    "weights, lr |g| < 2^-p |w|, and change nothing when they are rounded (Goldberg 1991). A wider type for the weights alone "
    "mends it.",
    _weighted("1e-5"),
    _weighted("1"),
    {**OBSERVED, "learning_rate": 1e-3},
)


def _recurrent(activation: str, init: str) -> str:
    return (
        "inputs: {x: {shape: [batch, 40, 4], distribution: normal}, t: {shape: [batch, 2], range: [0, 1]}}\n"
        f"layers:\n  - {{kind: rnn, name: memory, units: 16, activation: {activation}, output: last, init: {init}}}\n"
        f"  - {{kind: dense, name: out, units: 2}}\n{_LOSS}"
    )


VANISHING_OVER_TIME = finding(
    "VG814",
    "vanishing-over-time",
    "The first step of a recurrence gets less than the preset's least share of the last one's gradient: each step multiplies it "
    "by the recurrent weights and by the activation's slope (Hochreiter 1991; Bengio, Simard and Frasconi 1994). What lies that "
    "far back is not learned from.",
    _recurrent("tanh", "{recurrent_weight: pytorch_default, weight: pytorch_default}"),
    _recurrent("tanh", "{recurrent_weight: identity, weight: {kind: normal, sd: 0.01}, bias: zeros}"),
    OBSERVED,
)

EXPLODING_OVER_TIME = finding(
    "VG815",
    "exploding-over-time",
    "The first step of a recurrence gets more than the preset's greatest multiple of the last one's gradient: the recurrent "
    "weights make it grow from step to step, and one step of training moves them far (Pascanu, Mikolov and Bengio 2013). "
    "Clipping the norm holds it in check, initial weights that keep lengths mend it.",
    _recurrent("tanh", "{recurrent_weight: {kind: orthogonal, gain: 1.5}, weight: {kind: normal, sd: 1e-12}, bias: zeros}"),
    _recurrent("tanh", "{recurrent_weight: orthogonal, weight: {kind: normal, sd: 0.01}, bias: zeros}"),
    OBSERVED,
)

RULES = (
    CERTIFIED_VANISHING,
    PREDICTED_VANISHING,
    OBSERVED_VANISHING,
    CERTIFIED_EXPLODING,
    PREDICTED_EXPLODING,
    OBSERVED_EXPLODING,
    SATURATED,
    DEAD,
    BLOCKED,
    COLLAPSED,
    CANCELLING,
    UNDERFLOW,
    LOST_UPDATES,
    VANISHING_OVER_TIME,
    EXPLODING_OVER_TIME,
)

KINDS: Mapping[str, Sequence[Rule]] = {
    "vanishing": (CERTIFIED_VANISHING, PREDICTED_VANISHING, OBSERVED_VANISHING, VANISHING_OVER_TIME),
    "exploding": (CERTIFIED_EXPLODING, PREDICTED_EXPLODING, OBSERVED_EXPLODING, EXPLODING_OVER_TIME),
    "saturated": (SATURATED,),
    "dead": (DEAD,),
    "blocked": (BLOCKED,),
    "collapsed": (COLLAPSED,),
    "cancelling": (CANCELLING,),
    "underflow": (UNDERFLOW,),
    "lost": (LOST_UPDATES,),
}
