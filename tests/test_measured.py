"""The measured tier against NumPy: four numbers of an adjoint, on any scale, whatever the graph did to its shape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

import vgcompile
from vgcompile.analysis import Analysis, Options, document
from vgcompile.analysis.instrument import EXACT, QUICK, instrument
from vgcompile.analysis.result import Elements
from vgcompile.graph.load import load
from vgcompile.graph.network import Network
from vgcompile.ops import OPS
from vgcompile.render.labels import elements_text

Array = np.ndarray[Any, Any]
MODELS = Path(__file__).parent.parent / "models"
HEADER = '<ir_version: 10, opset_import: ["": 21]> g '
REARRANGING = [row for row in OPS.values() if row.rearranges]


def network(folder: Path, text: str) -> Network:
    onnx.save(onnx.parser.parse_model(HEADER + text), folder / "g.onnx")
    return load(folder / "g.onnx")


def measured(folder: Path, text: str, given: Array, **arrays: Array) -> Analysis:
    """All statistics of a graph with the output y, whose adjoint is given."""
    np.savez(folder / "data.npz", **{"adj.y": given}, **arrays)
    options = Options(data=str(folder / "data.npz"), tiers=("measured",), seed_input=True, statistics="all")
    return vgcompile.analyze(network(folder, text), options)


def heavy(shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Elements over many orders of magnitude, a fifth of them zeros."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape) ** 3 * scale
    x[rng.random(shape) < 0.2] = 0.0
    return x.astype(np.float32)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shape", [(4, 3, 8), (64, 16, 1024)])
def test_four_numbers(tmp_path: Path, shape: tuple[int, ...], scale: float) -> None:
    """Sums of squares to six digits and the rest exactly, also where squares die in float32."""
    g = heavy(shape, scale)
    x = np.zeros(shape, np.float32)
    dims = ",".join(map(str, shape[1:]))
    analysis = measured(tmp_path, f"(float[N,{dims}] x) => (float[N,{dims}] y) {{ t = Neg(x) y = Identity(t) }}", g, x=x)
    for edge in analysis.edges:
        assert edge.gain.measured == pytest.approx(0.0, abs=1e-6)
        assert edge.elements is not None and edge.elements.peak is not None
        assert 10**edge.elements.peak == pytest.approx(float(np.abs(g).max()), rel=1e-6)
        assert edge.elements.zeros == pytest.approx(float((g == 0).mean()), abs=1e-12)
        assert edge.elements.undefined == 0.0
    norm = float(np.linalg.norm(g.astype(np.float64)))
    assert analysis.provenance["adjoint_norm"] == pytest.approx(math.log10(norm), abs=1e-6)
    jsonschema.validate(document.to_json(analysis), document.json_schema())


def test_what_is_not_finite_is_counted(tmp_path: Path) -> None:
    """A root's slope at 0 is infinite, and of that times 0 nothing is known."""
    g, x = np.ones((8, 100), np.float32), np.ones((8, 100), np.float32)
    x[0, :7] = x[1, 3] = g[0, 0] = 0.0
    analysis = measured(tmp_path, "(float[N,100] x) => (float[N,100] y) { y = Sqrt(x) }", g, x=x)
    (edge,) = analysis.edges
    assert edge.gain.why["measured"] == "undefined"
    assert edge.elements is not None
    assert edge.elements.undefined == pytest.approx(8 / 800)
    assert edge.elements.peak is None
    assert elements_text([edge.elements]).endswith("not finite 1%")


def test_a_dead_edge_is_all_zeros(tmp_path: Path) -> None:
    g = heavy((8, 100))
    analysis = measured(tmp_path, "(float[N,100] x) => (float[N,100] y) { y = Relu(x) }", g, x=-np.ones_like(g))
    (edge,) = analysis.edges
    assert edge.gain.why["measured"] == "zero"
    assert edge.elements == Elements(None, 1.0, 0.0)


@pytest.mark.parametrize("row", REARRANGING, ids=lambda row: row.name)
def test_what_rearranges_keeps_every_element(row: Any) -> None:
    """The fact that adjoints of the same elements are read once: a row that states it has a value of its input's elements."""
    for given in row.samples:
        shapes = [
            s if s is None or isinstance(s, np.ndarray) else [d if isinstance(d, int) else 3 for d in s] for s in given.shapes
        ]
        x = np.arange(math.prod(shapes[0]), dtype=np.float32).reshape(shapes[0])
        inputs = [x, *shapes[1:]]
        names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
        node = onnx.helper.make_node(row.name, names, ["y"], **given.attributes)
        (y,) = onnx.reference.ReferenceEvaluator(node).run(None, {n: a for n, a in zip(names, inputs, strict=True) if n})
        assert sorted(y.ravel()) == sorted(x.ravel())


def test_rearranged_adjoints_are_read_once(tmp_path: Path) -> None:
    text = (
        "(float[N,2,6] x) => (float[N,12] y) <int64[2] flat = {-1,12}, int64[3] back = {-1,6,2}> "
        "{ a = Transpose<perm = [0, 2, 1]>(x) b = Reshape(a, flat) y = Neg(b) }"
    )
    instrumented = instrument(network(tmp_path, text))
    slots = {instrumented.slots[name] for name in (*instrumented.parts.values(), *instrumented.totals.values())}
    assert len(slots) == 2  # of y, and of b, a and x together


@pytest.mark.parametrize("statistics", ["squares", "all"])
def test_quick_and_exact_say_the_same(statistics: Any) -> None:
    """On a network of several kinds of layers, part by part."""
    opened = vgcompile.open_network(MODELS / "lenet.yaml")
    from vgcompile.analysis.measured import Meter
    from vgcompile.runtime.data import batch

    feeds = batch(opened, size=32)
    meter = Meter(opened, "cpu", (), statistics, feeds)
    quick, exact = meter.measure(feeds), meter.measure(feeds, exact=True)
    assert {r.reading for r in QUICK[statistics]} <= {r.reading for r in EXACT[statistics]}
    assert quick.parts == pytest.approx(exact.parts, rel=1e-6)
    assert quick.spreads == exact.spreads
