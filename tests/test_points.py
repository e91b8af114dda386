"""Values that are followed as points: what a radius holds, and which balls the rows behind a point are read in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.test_bounds import matrices
from vgcompile import spec
from vgcompile.analysis.bounds import enclosure, points, region
from vgcompile.analysis.bounds.points import Points
from vgcompile.analysis.bounds.zonotope import Step
from vgcompile.analysis.sound import sound
from vgcompile.build import build
from vgcompile.graph.load import load
from vgcompile.graph.network import Network
from vgcompile.interval import WHOLE, Array, Interval
from vgcompile.ops.maps import IDENTITY
from vgcompile.ops.op import Case, Tangent

NORMS, RADII, OFF = (1.0, 2.0), (2e-10, 3e-10), 1e-10


def test_a_radius_holds_what_every_operand_brings_and_what_the_centre_is_off() -> None:
    a, b, made = (ir.Value(name=name) for name in ("a", "b", "made"))
    case = Case(shapes=((3,), (3,)), outputs=((3,),), ranges=(WHOLE, WHOLE))

    def sums(at: Case) -> Interval:
        (x, y) = (bound.lo for bound in at.ranges if bound is not None)
        return Interval(x + y - OFF, x + y + OFF)

    step = Step(made, 3, {0: a, 1: b}, case, sums, lambda position: Tangent(IDENTITY))
    followed = Points({a: (np.zeros(3), RADII[0]), b: (np.ones(3), RADII[1])})
    narrow = followed.step(step, lambda: WHOLE, lambda position: NORMS[position])
    reach = NORMS[0] * RADII[0] + NORMS[1] * RADII[1] + OFF * np.sqrt(3.0)
    centre, radius = followed.known[made]
    assert narrow is not None
    assert centre == pytest.approx(np.ones(3), abs=1e-15)
    assert reach <= radius <= reach * (1.0 + 1e-6)
    assert (narrow.lo <= 1.0 - reach).all() and (1.0 + reach <= narrow.hi).all()


def behind(layer: str, depth: int = 25) -> Network:
    """A layer behind a chain that has contracted to a point."""
    lines = [
        *(f"{{kind: dense, name: d{k}, units: 6, activation: tanh}}" for k in range(depth)),
        layer,
        "{kind: dense, units: 3}",
    ]
    body = "\n".join(f"  - {line}" for line in lines)
    init = "{weight: {kind: normal, sd: 0.15}, bias: {kind: normal, sd: 0.5}}"
    return build(spec.loads(f"name: n\ninputs:\n  x: {{shape: [batch, 6], range: [-1, 1]}}\ninit: {init}\nlayers:\n{body}\n"))


def named(network: Network, op_type: str, place: int = -1) -> ir.Node:
    return [node for node in network.model.graph if node.op_type == op_type][place]


def test_a_normalization_behind_a_point_is_known() -> None:
    """By its Jacobian there, and not by half of a projection."""
    network = behind("{kind: layer_norm, epsilon: 0.001}")
    value = named(network, "Tanh").outputs[0]
    tier = sound(network, "range")
    at = 0.5 * (tier.ranges[value].lo + tier.ranges[value].hi).ravel()
    u = at - at.mean()
    s = np.sqrt((u @ u) / 6.0 + np.float32(0.001))
    z = u / s
    jacobian = (np.eye(6) - 1.0 / 6.0 - np.outer(z, z) / 6.0) / s @ matrices(network)[-1]
    assert 10.0 ** tier.total[value][1] == pytest.approx(np.linalg.norm(jacobian, 2), rel=1e-6)


@pytest.mark.parametrize("layer", ["{kind: layer_norm}", "{kind: rms_norm}"])
@pytest.mark.parametrize("depth", range(4, 20, 3))
def test_what_is_asked_at_a_point_is_asked_in_its_ball(layer: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts of a ball say nothing of a segment that begins outside of it. Earlier points make the balls large."""
    asked: list[float] = []
    evaluated = Step.at_centre

    def watched(step: Step, centres: Mapping[int, Array]) -> Any:
        for position, centre in centres.items():
            ball = step.case.balls[position] if step.case.balls else None
            if ball is not None:
                asked.append(float(np.linalg.norm(centre - ball[0])) / ball[1])
        return evaluated(step, centres)

    monkeypatch.setattr(points.is_certain, "__defaults__", (0.03,))
    monkeypatch.setattr(points, "KEPT", 0.3)
    monkeypatch.setattr(Step, "at_centre", watched)
    sound(behind(layer, depth), "range")
    assert asked
    assert max(asked) <= 1.0


def test_pieces_of_which_one_is_not_followed() -> None:
    """Outputs that nothing reads have a range only where a node is not followed: they have none of the whole region."""
    kinks = [onnx.helper.make_node("Relu", [f"x{k}"], [f"x{k + 1}"]) for k in range(2 * enclosure.MOST_UNTOLD)]
    last = onnx.helper.make_node("LayerNormalization", [f"x{len(kinks)}", "scale"], ["y", "mean", "inverse"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2]) for name in ("x0", "y")]
    scale = onnx.numpy_helper.from_array(np.ones(2, np.float32), "scale")
    graph = onnx.helper.make_graph([*kinks, last], "n", ends[:1], ends[1:], [scale])
    network = load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    samples = np.array([[0.0, 0.0], [5.0, 3.0]], np.float32)
    ranges = [sound(network, region.region(network, "ball:0.1", {"x0": x})).ranges for x in (samples, samples[::-1])]
    y = network.model.graph.outputs[0]
    assert all(found[y].bounded for found in ranges)


@pytest.mark.parametrize(("activation", "slope"), [("{kind: leaky_relu, alpha: 0.1}", 0.1), ("hard_sigmoid", 1.0 / 6.0)])
def test_attributes_are_taken_as_they_are_stored(activation: str, slope: float) -> None:
    """0.1 in float32 is more: a bound of 0.1 is none of what a run computes."""
    network = build(
        spec.loads(
            "name: n\ninputs:\n  x: {shape: [batch, 1], range: [-1, -0.5]}\n"
            f"layers:\n  - {activation if activation[0] == '{' else '{kind: ' + activation + '}'}\n"
        )
    )
    (x,) = network.model.graph.inputs
    assert np.float64(np.float32(slope)) > slope
    assert 10.0 ** sound(network, "range").total[x][1] >= float(np.float32(slope))
