"""The remedies that are tried: what each changes, and whose finding it is that it helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vgcompile.fixing import edits
from vgcompile.fixing.edits import PER_DEPTH, Edit
from vgcompile.fixing.sheet import Sheet

REZERO = {"learned": 0.0}
GAINS = (0.05, 40.0)  # between which one is solved for


@dataclass(frozen=True)
class Remedy:
    """``forms`` are ways to write it, of which the first that the model takes is kept; each is all of its edits."""

    name: str
    why: str
    forms: Sequence[Sequence[Edit]]


@dataclass(frozen=True)
class Search:
    """A remedy with a number in it, that is looked for between ``low`` and ``high``."""

    name: str
    why: str
    of: Callable[[float], Sequence[Edit]]
    low: float
    high: float


def remedies(sheet: Sheet) -> list[Remedy]:
    """All that may be tried on a model."""
    own = edits.main_activation(sheet)
    return [*_functions(), *_initial_values(own), *_ways_around(), *_norms(), *_recurrent(), *_branches()]


def searches() -> list[Search]:
    """Those with a number in them: a gain, solved for the gradient to keep its size at the worst layer."""
    return [
        _solved(
            "gain of the initial weights, solved",
            "the one number that sets sigma_w sqrt(E[f'^2]) to 1 (Schoenholz et al. 2017)",
            "lecun_normal",
        ),
        _solved(
            "orthogonal weights, their gain solved",
            "all directions keep their length, not their mean alone (Saxe et al. 2013, Pennington et al. 2017)",
            "orthogonal",
        ),
    ]


def _solved(name: str, why: str, kind: str) -> Search:
    return Search(name, why, lambda gain: [edits.weights({"kind": kind, "gain": gain})], *GAINS)


def _alone(name: str, why: str, *steps: Edit) -> Remedy:
    return Remedy(name, why, [steps])


def _functions() -> list[Remedy]:
    found = [
        _alone(
            "relu alone",
            "a slope of 1 on half of the line, but initial values made for another function",
            edits.activations("relu"),
        )
    ]
    for kind, init, why in (
        ("relu", "he_normal", "slope 1 where it is open, and twice the variance for the half that is not (He et al. 2015)"),
        ("leaky_relu", {"kind": "lecun_normal", "gain": "leaky_relu"}, "as ReLU, and no unit is ever dead"),
        ("gelu", {"kind": "lecun_normal", "gain": "gelu"}, "a smooth ReLU, and its own gain"),
        ("silu", {"kind": "lecun_normal", "gain": "silu"}, "a smooth ReLU, and its own gain"),
        ("selu", "lecun_normal", "pre-activations return to variance 1 by themselves (Klambauer et al. 2017)"),
        ("tanh", {"kind": "lecun_normal"}, "slope 1 at 0, at its critical initial values"),
    ):
        label = init if isinstance(init, str) else init["kind"]
        gain = "" if isinstance(init, str) or "gain" not in init else f", gain {init['gain']}"
        found.append(_alone(f"{kind}, {label}{gain}", why, edits.activations(kind), edits.weights(init)))
    return found


def _initial_values(own: str | None) -> list[Remedy]:
    found = [
        _alone(
            "glorot_normal", "variance between what both directions need (Glorot and Bengio 2010)", edits.weights("glorot_normal")
        ),
        _alone("he_normal", "variance 2 / fan_in (He et al. 2015)", edits.weights("he_normal")),
    ]
    if own is None:
        return [_alone("lecun_normal", "variance 1 / fan_in", edits.weights("lecun_normal")), *found]
    values: dict[str, Any] = {"kind": "lecun_normal", "gain": own}
    slopes = {"kind": "orthogonal", "gain": {"activation": own, "keep": "slopes"}}
    return [
        *found,
        _alone(f"lecun_normal, gain {own}", "pre-activations keep their mean square", edits.weights(values)),
        _alone(f"orthogonal, gain of {own}'s slopes", "gradients keep their mean square", edits.weights(slopes)),
    ]


def _ways_around() -> list[Remedy]:
    def around(name: str, why: str, scale: Any, *before: Edit) -> Remedy:
        forms = [[*before, edits.residual(behind_first=first, scale=scale)] for first in (False, True)]
        return Remedy(name, why, forms)

    return [
        around("residual", "the gradient has a way around each layer (He et al. 2016)", None),
        around("residual, scale 1/sqrt(depth)", "a way around each layer, and a sum that does not grow with depth", PER_DEPTH),
        around("residual, scale learned from 0", "begins as the identity (Bachlechner et al. 2020, De and Smith 2020)", REZERO),
        around("residual, batch_norm", "batch normalization inside, a way around it", None, edits.normalized("batch_norm")),
        around("residual, layer_norm", "layer normalization inside, a way around it", None, edits.normalized("layer_norm")),
        around(
            "residual, batch_norm, scale 1/sqrt(depth)",
            "batch normalization inside, a way around it, and a sum that does not grow",
            PER_DEPTH,
            edits.normalized("batch_norm"),
        ),
        Remedy(
            "highway layers, gates at -2",
            "each layer carries most of its input at first (Srivastava et al. 2015)",
            [[edits.highway(-2.0, behind_first=first)] for first in (False, True)],
        ),
    ]


def _norms() -> list[Remedy]:
    return [
        _alone(
            "batch_norm, no way around",
            "each layer's scale is kept, forward; backward it explodes (Yang et al. 2019)",
            edits.normalized("batch_norm"),
        ),
        _alone("layer_norm, no way around", "each sample's scale is kept, forward", edits.normalized("layer_norm")),
        _alone("norm: pre", "a way from the loss to each block that no norm divides (Xiong et al. 2020)", edits.pre_norm),
    ]


def _branches() -> list[Remedy]:
    return [
        _alone("branches at 1/sqrt(number)", "the sum of all branches is as large as one", edits.scaled_branches(PER_DEPTH)),
        _alone("branches learned from 0", "begins as the identity (ReZero, SkipInit)", edits.scaled_branches(REZERO)),
        _alone(
            "branches learned from 0.1",
            "small branches that learn from the first step (LayerScale)",
            edits.scaled_branches({"learned": 0.1}),
        ),
        _alone("branches unscaled", "every branch counts in full", edits.scaled_branches(None)),
        _alone("gates begin shut (bias -4)", "each layer carries its input at first (Srivastava et al. 2015)", edits.gates(-4.0)),
    ]


def _recurrent() -> list[Remedy]:
    small = {"weight": {"kind": "normal", "sd": 0.01}, "bias": "zeros"}

    def weights(*kinds: str, **init: Any) -> Edit:
        return edits.recurrent_init(init, *kinds)

    return [
        _alone(
            "orthogonal recurrent weights",
            "no direction of the state is shortened by the weights",
            weights("rnn", "gru", "lstm", recurrent_weight="orthogonal"),
        ),
        _alone(
            "orthogonal recurrent weights, small others",
            "the state stays where tanh's slope is 1",
            weights("rnn", recurrent_weight="orthogonal", **small),
        ),
        _alone(
            "identity recurrent weights, small others",
            "the state stays as it is, and where the slope is 1 (after Le et al. 2015)",
            weights("rnn", recurrent_weight="identity", **small),
        ),
        _alone("gru", "a gated cell carries its state over the steps (Cho et al. 2014)", edits.recurrent("gru")),
        _alone(
            "lstm",
            "a gated cell carries its state over the steps (Hochreiter and Schmidhuber 1997)",
            edits.recurrent("lstm"),
        ),
        _alone("the mean over the steps", "each step's gradient comes from its own place", edits.every_step),
    ]
