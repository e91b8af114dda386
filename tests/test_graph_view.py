"""The annotated graph as NetworkX sees it: what docs/graph-api.md says of it, ways through it against brute force, files."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest

import vgcompile
from vgcompile.analysis import Analysis, Options, routes, view
from vgcompile.errors import UserError

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
MANUAL = (ROOT / "docs" / "graph-api.md").read_text()
QUICK = Options(tiers=("expected", "measured"), batch=8, statistics="all")
DIAMOND = (
    '<ir_version: 10, opset_import: ["": 21]> g (float[N,4] x) => (float[N,4] y) '
    "{ s = Sigmoid(x) a = Tanh(s) b = Relu(s) c = Neg(s) d = Mul(b, b) e = Add(a, d) f = Add(e, c) y = Sigmoid(f) }"
)


@pytest.fixture(scope="module")
def residual() -> Analysis:
    return vgcompile.analyze(MODELS / "deep_residual.yaml", QUICK)


@pytest.fixture(scope="module")
def diamond() -> nx.MultiDiGraph:
    """A model in memory: Tanh, both operands of a square, and a Neg between two sigmoids."""
    return vgcompile.analyze(onnx.parser.parse_model(DIAMOND), Options(batch=4)).graph


def operator(graph: nx.MultiDiGraph, kind: str, last: bool = False) -> str:
    return [node for node, data in graph.nodes(data=True) if data.get("type") == kind][-1 if last else 0]


def test_attributes_are_flat_typed_and_documented(residual: Analysis) -> None:
    """Every flat attribute has a line in the manual, with its type; the typed ones are the analysis' own data."""
    graph = residual.graph
    assert isinstance(graph, nx.MultiDiGraph)
    stated = dict(re.findall(r"^\| `([a-z]+)` \| (str|int|float|bool) \|", MANUAL, re.MULTILINE))
    tiers = {"measured", "expected", "sd", "lo", "hi", "confidence"}
    types = {"str": str, "int": int, "float": float, "bool": bool}
    for data in itertools.chain((d for _, d in graph.nodes(data=True)), (d for _, _, d in graph.edges(data=True))):
        for name, value in data.items():
            if name in view.TYPED:
                continue
            quantity, _, field = name.partition("_")
            if quantity in ("gain", "local", "total"):
                kind = str if field.endswith("_why") or field == "confidence" else float
                assert field.removesuffix("_why") in tiers
            else:
                kind = types[stated[name]]
            assert type(value) is kind, name
    assert {edge.id: edge for edge in residual.edges} == {key: edge for _, _, key, edge in graph.edges(keys=True, data="edge")}
    assert [d["operator"] for _, d in graph.nodes(data=True) if d["kind"] == "operator"] == list(residual.operators)


def test_a_view_is_made_fresh(residual: Analysis) -> None:
    residual.graph.clear()
    assert residual.graph.number_of_edges() == len(residual.edges)


def test_bottlenecks_are_what_cuts_the_way(diamond: nx.MultiDiGraph, residual: Analysis) -> None:
    """Those edges, and no other, without which no way from the output is left."""
    for graph, node in ((diamond, "x"), (diamond, operator(diamond, "Relu")), (residual.graph, residual.edges[4].target)):
        ways = routes.backward(graph)
        cutting = set()
        for step in [node for node in ways if isinstance(node, tuple)]:
            without = ways.copy()
            without.remove_node(step)
            if not nx.has_path(without, routes.ROOT, node):
                cutting.add(step[2])
        assert {edge.id for edge in routes.bottlenecks(graph, node)} == cutting


def test_disjoint_routes(diamond: nx.MultiDiGraph) -> None:
    """None has a common edge: one way where all cross the last operand, as many as a sum has operands, and of a square two."""
    source = operator(diamond, "Sigmoid")
    found = routes.disjoint_routes(diamond, source)
    assert len(found) == 1  # the last sigmoid's one operand is crossed by all
    join = operator(diamond, "Add", last=True)
    diamond = diamond.copy()
    nx.set_node_attributes(diamond, {node: node == join for node in diamond}, "output")
    found = routes.disjoint_routes(diamond, source)
    assert len(found) == 2
    ids = [edge.id for way in found for edge in way]
    assert len(ids) == len(set(ids))
    assert all(way[0].target == join and way[-1].source == source for way in found)
    assert len(routes.disjoint_routes(diamond, operator(diamond, "Relu"))) == 1
    product = operator(diamond, "Mul")
    nx.set_node_attributes(diamond, {node: node == product for node in diamond}, "output")
    assert len(routes.disjoint_routes(diamond, operator(diamond, "Relu"))) == 2


def test_worst_path_is_the_strongest_of_all(diamond: nx.MultiDiGraph) -> None:
    def strength(path: list[object]) -> float:
        steps = [diamond.edges[step]["local_measured"] for step in path if isinstance(step, tuple)]
        return sum(steps)

    every = nx.all_simple_paths(routes.backward(diamond), routes.ROOT, "x")
    found = routes.worst_path(diamond, "x")
    assert sum(edge.local.measured or 0.0 for edge in found) == pytest.approx(max(map(strength, every)))
    assert found[-1].source == "x"


def test_worst_paths_are_those_of_the_verdicts(residual: Analysis) -> None:
    layer = residual.layers[3]
    assert layer.verdict.worst_path is not None
    made = next(edge.source for edge in residual.edges if edge.value == layer.value)
    path = routes.worst_path(residual.graph, made, layer.verdict.worst_path.tier)
    assert [edge.id for edge in path] == [step.edge for step in layer.verdict.worst_path.steps]


def test_layers_are_condensed() -> None:
    graph = vgcompile.analyze(MODELS / "deep_residual.yaml", Options(tiers=(), batch=4)).graph
    condensed = routes.condensed(graph)
    assert nx.is_directed_acyclic_graph(condensed)
    circle = graph.copy()
    ends = {layer: node for node, layer in graph.nodes(data="layer") if layer}
    first, last = next(iter(ends)), list(ends)[-2]
    circle.add_edge(ends[last], ends[first], key="back")
    (whole,) = [data["layers"] for _, data in routes.condensed(circle).nodes(data=True) if len(data["layers"]) > 1]
    assert whole[0] == first and last in whole


def test_an_unknown_node_is_named(diamond: nx.MultiDiGraph) -> None:
    with pytest.raises(UserError, match="has no node"):
        routes.bottlenecks(diamond, "nowhere")


def test_files_hold_the_flat_graph(residual: Analysis) -> None:
    graph = residual.graph
    read = nx.read_graphml(io.BytesIO(view.export(graph, "graphml").encode()), force_multigraph=True)
    assert dict(read.nodes(data=True)) == dict(view.flat(graph).nodes(data=True))
    assert {key: data for _, _, key, data in read.edges(keys=True, data=True)} == {
        key: data for _, _, key, data in view.flat(graph).edges(keys=True, data=True)
    }
    again = nx.node_link_graph(json.loads(view.export(graph, "json")), edges="edges")
    assert nx.utils.graphs_equal(again, view.flat(graph))


def test_same_bytes_whatever_the_hashes() -> None:
    """The order of what Python keeps in sets does not reach a file."""
    script = (
        "import vgcompile; from vgcompile.analysis.view import export; "
        f"graph = vgcompile.analyze({str(MODELS / 'lenet5.yaml')!r}, vgcompile.Options(tiers=('expected',))).graph; "
        "print(export(graph, 'graphml') + export(graph, 'json'))"
    )

    def written(seed: str) -> bytes:
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True
        )
        return run.stdout

    first = written("1")
    assert len(first) > 10_000
    assert first == written("2")


def test_a_path_a_network_and_a_model_in_memory(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(DIAMOND)
    before = model.SerializeToString()
    onnx.save(model, tmp_path / "model.onnx")
    given = (tmp_path / "model.onnx", vgcompile.open_network(tmp_path / "model.onnx"), model)
    gains = [[edge.gain.measured for edge in vgcompile.analyze(one, Options(batch=4)).edges] for one in given]
    assert gains[0] == gains[1] == gains[2]
    assert model.SerializeToString() == before


def test_readme_recipe_from_pytorch() -> None:
    """The five lines of the manual, run as they stand, against autograd on the same weights, batch and adjoint."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    recipe = re.search(r"```python\n(import torch.*?)```", MANUAL, re.DOTALL)
    assert recipe is not None
    assert recipe[1] in (ROOT / "README.md").read_text()
    assert len(recipe[1].split("\n")) - recipe[1].count("\n\n") - 1 == 5
    names: dict[str, object] = {}
    exec(recipe[1], names)
    analysis, module = names["analysis"], names["module"]
    assert isinstance(analysis, Analysis) and isinstance(module, torch.nn.Module)
    assert analysis.verdict.kind == "vanishing"
    from vgcompile.runtime.data import batch

    network = vgcompile.open_network(names["program"].model_proto)  # type: ignore[attr-defined]
    (x,) = (torch.tensor(array) for array in batch(network, seed=network.seed).values())
    adjoint = torch.tensor(np.random.default_rng(0).standard_normal((len(x), 64)).astype(np.float32))
    x.requires_grad_()
    module(x).backward(adjoint)
    edge = next(edge for edge in analysis.edges if edge.source in network.inputs)
    assert edge.gain.measured == pytest.approx(np.log10(float(x.grad.norm() / adjoint.norm())), abs=1e-4)
