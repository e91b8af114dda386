"""The pictures: what is folded, what is said of it, and that the same network gives the same bytes.

The DOT texts in cases/render are goldens; ``VGCOMPILE_UPDATE_CASES=1 pytest tests/test_render.py`` writes them anew.
"""

from __future__ import annotations

import html
import os
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import synthetic
from vgcompile.analysis.result import Expected, Sound, Tiers
from vgcompile.errors import EngineError
from vgcompile.render import butterfly, diagram, engine, folding, labels, report, style
from vgcompile.render.activation_plot import activation_plot
from vgcompile.render.depth_chart import depth_chart
from vgcompile.render.layergraph import layer_graph

CASES = Path(__file__).parent / "cases" / "render"
SVG = "{http://www.w3.org/2000/svg}"

NETWORKS = {
    "chain_4": lambda: synthetic.chain(4),
    "chain_20": lambda: synthetic.chain(20),
    "chain_20_exploding": lambda: synthetic.chain(20, "Softplus"),
    "apart_100": lambda: synthetic.chain(100, apart=True),
    "residual_3": lambda: synthetic.residual(3),
    "residual_12": lambda: synthetic.residual(12),
}


def golden(name: str, text: str) -> None:
    path = CASES / name
    if os.environ.get("VGCOMPILE_UPDATE_CASES"):
        path.write_text(text)
    assert text == path.read_text(), f"{name} changed; look at the picture, then set VGCOMPILE_UPDATE_CASES=1"


@pytest.mark.parametrize("name", NETWORKS)
def test_butterfly_is_as_it_was(name: str) -> None:
    network = NETWORKS[name]()
    golden(f"{name}.butterfly.gv", butterfly.butterfly_dot(network, synthetic.analysis(network)))


@pytest.mark.parametrize("name", ["chain_4", "residual_12"])
def test_forward_diagram_is_as_it_was(name: str) -> None:
    network = NETWORKS[name]()
    golden(f"{name}.forward.gv", diagram.forward_dot(network, synthetic.analysis(network)))
    golden(f"{name}.structure.gv", diagram.forward_dot(network))


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_are_ascii(name: str) -> None:
    network = NETWORKS[name]()
    analysis = synthetic.analysis(network)
    worded = replace(analysis, model="Gr\u00f6\u00dfe", verdict=replace(analysis.verdict, why='<b>\u03c3 > 0</b> & "so"'))
    dot = butterfly.butterfly_dot(replace(network, name="Gr\u00f6\u00dfe"), worded)
    assert dot.isascii()
    assert "&lt;b&gt;" in dot
    ElementTree.fromstring(engine.layout(dot))


# Folding.


@given(st.text("ab", max_size=6), st.text("xyz", min_size=1, max_size=4), st.integers(3, 9), st.text("cd", max_size=6))
def test_every_repeat_is_one(before: str, block: str, copies: int, after: str) -> None:
    signatures = before + block * copies + after
    found = list(folding.repeats(signatures))
    for repeat in found:
        unit = signatures[repeat.start : repeat.start + repeat.period]
        assert signatures[repeat.start :].startswith(unit * repeat.copies)
    ends = [(repeat.start, repeat.start + repeat.period * repeat.copies) for repeat in found]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert any(start <= len(before) and end >= len(before) + len(block) * copies - len(block) for start, end in ends)


def test_every_layer_is_in_one_box() -> None:
    for build in NETWORKS.values():
        network = build()
        graph = layer_graph(network, synthetic.analysis(network))
        drawing = folding.fold(graph)
        assert sorted(vertex.order for box in drawing.boxes for vertex in box.members) == list(range(len(graph.vertices)))
        assert len(drawing.boxes) <= folding.BUDGET


def test_a_stack_has_one_class_of_gradient() -> None:
    network = synthetic.chain(100)
    drawing = folding.fold(layer_graph(network, synthetic.analysis(network)))
    stacks = [box for box in drawing.boxes if box.copies > 1]
    assert sum(box.copies for box in stacks) == 100
    for box in stacks:
        assert len({style.band(labels.best(vertex.found.relative)).name for vertex in box.members if vertex.found}) == 1
    assert folding.worst(stacks[0].members)[0].name == "hidden/1/dense"


def test_a_thousand_layers_fold_into_few_boxes() -> None:
    network = synthetic.chain(1000, apart=True)
    drawing = folding.fold(layer_graph(network, synthetic.analysis(network)))
    assert drawing.layers == 2004
    assert len(drawing.boxes) < 12


def test_without_names_the_structure_alone_folds() -> None:
    sketch = synthetic.Sketch("unnamed")
    x = sketch.input("x", "batch", 100)
    names = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    for name in names:
        x = sketch.layer(name, "dense", x, activation="Sigmoid")
    drawing = folding.fold(layer_graph(sketch.network(x)))
    assert len(drawing.boxes) < 8


def test_a_skip_and_its_branch_are_two_gradient_edges() -> None:
    network = synthetic.residual(12)
    drawing = folding.fold(layer_graph(network, synthetic.analysis(network)))
    names = {box.number: box.name for box in drawing.boxes}
    flows = {(names[flow.source], names[flow.target]): flow for flow in drawing.flows}
    skip, branch = flows["stem", "block/1/add"], flows["stem", "block/1/dense"]
    assert skip.skips
    assert not branch.skips
    assert len(skip.gains) == len(branch.gains) == 12
    assert max(map(labels.best, branch.gains)) < min(map(labels.best, skip.gains)) - 1.0


# Words and classes.


def test_tiers_are_told_apart() -> None:
    tiers = Tiers(Sound(-11.2, -3.1, False), Expected(-8.4, 0.1, "high"), -8.5)
    assert labels.tiers_text([tiers]) == "S [-11.2, -3.1]  E -8.4+-0.1  M -8.5"
    other = Tiers(Sound(None, 1.0, False), Expected(-2.0, 0.1, "low"), -2.04)
    assert labels.tiers_text([tiers, other]) == "S [-inf, 1.0]  E -8.4..-2.0?  M -8.5..-2.0"
    assert labels.tiers_text([Tiers(why={"sound.hi": "unbounded", "measured": "underflow"})]) == "S unbounded  M underflow"
    assert labels.tiers_text([Tiers(why={"sound.hi": "not_run", "expected": "not_run", "measured": "not_run"})]) == ""


def test_what_is_shown_is_the_best_known() -> None:
    expected, sound = Expected(-2.0, 0.1, "high"), Sound(-9.0, -1.0, False)
    assert labels.best(Tiers(sound, expected, -3.0)) == -3.0
    assert labels.best(Tiers(sound, expected)) == -2.0
    assert labels.best(Tiers(sound)) == -1.0
    assert labels.best(Tiers(Sound(-9.0, 40.0, True))) is None
    assert labels.best(Tiers(sound, why={"measured": "zero"})) == float("-inf")


@given(st.floats(allow_nan=False))
def test_every_number_has_its_class(value: float) -> None:
    band = style.band(value)
    assert band.lo <= value <= band.hi


def test_classes_can_be_told_without_colour() -> None:
    widths = [band.width for band in style.BANDS]
    assert widths == sorted(widths)
    assert len(set(widths)) == len(widths)


# Engines.


def fake_engine(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_drawing_twice_gives_the_same_bytes() -> None:
    network = synthetic.residual(12)
    analysis = synthetic.analysis(network)
    dot = butterfly.butterfly_dot(network, analysis)
    assert dot == butterfly.butterfly_dot(network, synthetic.analysis(network))
    assert engine.layout(dot) == engine.layout(dot)
    for draw in (depth_chart, activation_plot):
        svg = draw(analysis)
        assert svg == draw(analysis)
        assert b"dc:date" not in svg


def test_a_named_engine_is_used_and_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = fake_engine(tmp_path / "mydot", 'cat > /dev/null; echo "drawn $1"')
    assert engine.layout("graph {}", "svg", named) == b"drawn -Tsvg\n"
    monkeypatch.setenv("VGCOMPILE_DOT", named)
    assert engine.layout("graph {}", "png") == b"drawn -Tpng\n"
    monkeypatch.setenv("VGCOMPILE_DOT", str(tmp_path / "absent"))
    with pytest.raises(EngineError, match=r"VGCOMPILE_DOT names .*absent"):
        engine.layout("graph {}")
    with pytest.raises(EngineError, match="--engine names"):
        engine.layout("graph {}", engine=str(tmp_path / "absent"))


def test_an_engine_that_fails_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = fake_engine(tmp_path / "broken", "echo 'syntax error in line 1' >&2; exit 1")
    with pytest.raises(EngineError, match="syntax error in line 1"):
        engine.layout("graph {}", "svg", broken)
    slow = fake_engine(tmp_path / "slow", "sleep 5")
    monkeypatch.setattr(engine, "TIMEOUT", 0.1)
    with pytest.raises(EngineError, match="longer than"):
        engine.layout("graph {}", "svg", slow)


def test_no_engine_and_no_pdf_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VGCOMPILE_DOT", raising=False)
    monkeypatch.setattr(engine.shutil, "which", lambda name, path=None: None)
    with pytest.raises(EngineError, match="pip install graphviz-pure"):
        engine.layout("graph {}")
    monkeypatch.setattr(engine.shutil, "which", lambda name, path=None: "/x/graphviz-pure" if name == engine.EMBEDDED else None)
    with pytest.raises(EngineError, match="writes no PDF: draw SVG or PNG"):
        engine.layout("graph {}", "pdf")


def test_the_engine_says_who_it_is() -> None:
    assert "version" in engine.engine_version()


# Pictures and charts.


def test_each_gradient_lies_beside_its_layer() -> None:
    network = synthetic.residual(3)
    root = ElementTree.fromstring(engine.layout(butterfly.butterfly_dot(network, synthetic.analysis(network))))
    places = {group.get("id"): _middle(group) for group in root.iter(f"{SVG}g") if "node" in group.get("class", "")}
    pairs = [(places[f"butterfly-f{n}"], places[f"butterfly-g{n}"]) for n in range(30) if f"butterfly-g{n}" in places]
    assert len(pairs) == 13
    for (forward_x, forward_y), (gradient_x, gradient_y) in pairs:
        assert gradient_x > forward_x + 100
        assert gradient_y == pytest.approx(forward_y, abs=1.0)


def _middle(group: ElementTree.Element) -> tuple[float, float]:
    shape = next(element for element in group.iter() if element.tag.removeprefix(SVG) in ("path", "ellipse", "polygon"))
    if shape.tag == f"{SVG}ellipse":
        return float(shape.attrib["cx"]), float(shape.attrib["cy"])
    numbers = [float(text) for text in re.findall(r"-?\d+\.?\d*", shape.get("d") or shape.get("points") or "")]
    return (min(numbers[::2]) + max(numbers[::2])) / 2, (min(numbers[1::2]) + max(numbers[1::2])) / 2


@pytest.mark.parametrize("format", ["svg", "png", "pdf"])
def test_charts_come_in_every_format(format: str) -> None:
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    analysis = synthetic.analysis(synthetic.chain(20))
    assert depth_chart(analysis, format).startswith(starts[format])
    assert activation_plot(analysis, format).startswith(starts[format])


def test_charts_hold_with_hardly_anything_known() -> None:
    analysis = synthetic.analysis(synthetic.chain(3))
    unknown = Tiers(why={"measured": "not_run"})
    bare = replace(analysis, layers=tuple(replace(layer, relative=unknown) for layer in analysis.layers), activations=())
    dead = replace(analysis, layers=tuple(replace(layer, relative=Tiers(why={"measured": "zero"})) for layer in analysis.layers))
    for thin in (bare, dead, replace(analysis, layers=(), worst=None)):
        assert depth_chart(thin).startswith(b"<?xml")
        assert activation_plot(thin).startswith(b"<?xml")


def test_the_depth_chart_names_the_worst_layer_and_the_limits() -> None:
    text = depth_chart(synthetic.analysis(synthetic.chain(1000))).decode()
    assert "worst: hidden/1/dense" in text
    assert "vanishing below 1e-3" in text
    assert "exploding above 1e3" in text


def test_the_green_region_is_where_the_slope_is_above_a_tenth() -> None:
    text = activation_plot(synthetic.analysis(synthetic.chain(3))).decode()
    assert "derivative above 10% of its greatest" in text
    assert "at most 0.25" in text


# The report.


class Page(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.links.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)


@pytest.fixture(scope="module")
def page() -> tuple[str, Page]:
    network = replace(synthetic.chain(20, apart=True), text="layers:\n  # <script>alert(1)</script>\n" + "  - x\n" * 60)
    text = report.render(network, synthetic.analysis(network), '{"schema": 1, "name": "</script><script>alert(2)"}')
    return text, Page(text)


def test_the_report_asks_for_nothing(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert all(value.startswith(("#", "data:")) for _, _, value in parsed.links)
    assert "default-src 'none'" in html.unescape(text)
    assert "@import" not in text
    assert "url(" not in text
    assert not parsed.handlers


def test_the_report_escapes_what_it_is_given(page: tuple[str, Page]) -> None:
    text, _ = page
    assert "<script>alert" not in text
    assert "\\u003c/script>\\u003cscript>alert(2)" in text


def test_the_report_is_one_consistent_page(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert len(set(parsed.ids)) == len(parsed.ids)
    anchors = {value[1:] for tag, _, value in parsed.links if value.startswith("#") and tag == "a"}
    assert anchors <= set(parsed.ids)
    assert len(text) < 1_000_000
    assert text.count("<svg") == 3  # folded and unfolded butterfly, forward diagram
    assert "Unfolded" in text


def test_the_policy_knows_the_scripts_by_their_hashes(page: tuple[str, Page]) -> None:
    text, _ = page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1))
    scripts = [body for kind, body in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.S) if "json" not in kind]
    assert len(scripts) == 2
    for body in scripts:
        assert report._hash(body) in policy
    assert "unsafe" not in policy


def test_a_deep_report_leaves_the_unfolded_picture_out() -> None:
    network = synthetic.chain(200)
    text = report.render(network, synthetic.analysis(network), "{}")
    assert text.count("<svg") == 2
    assert text == report.render(network, synthetic.analysis(network), "{}")


def test_foreign_links_and_scripts_leave_the_picture() -> None:
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><script>x</script>'
        b'<a xlink:href="javascript:x"><text onclick="x">t</text></a><a xlink:href="#here"/></svg>'
    )
    text = report.inline_svg(svg, "name", "what it shows")
    assert "script" not in text
    assert "onclick" not in text
    assert 'xlink:href="#here"' in text
    assert "<desc" in text
