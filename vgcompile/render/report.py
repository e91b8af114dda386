"""The report: one HTML file that works offline, from a double click, as an attachment, in light and dark, by keyboard.

Everything is in the file: pictures as inline SVG, the few scripts, the analysis itself. A content security policy forbids
everything else, so that opening the report asks the network for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import Literal
from xml.etree import ElementTree

import jinja2
from markupsafe import Markup

from vgcompile.analysis.findings.wording import budgets, listed, reasons, together, worst
from vgcompile.analysis.result import Analysis, Finding, Layer, Path, Verdict
from vgcompile.graph.network import Network
from vgcompile.render import folding
from vgcompile.render.butterfly import butterfly_dot
from vgcompile.render.diagram import forward_dot
from vgcompile.render.engine import layout
from vgcompile.render.labels import best, shape_text, tiers_text
from vgcompile.render.layergraph import layer_graph
from vgcompile.render.pictures import CHARTS, views_of
from vgcompile.render.style import FONT

COLUMNS = ("gain", "relative", "through_time", "update")  # quantities of a layer that the table shows
UNFOLDED = 150  # nodes of the unfolded butterfly, at most, for it to be in the report
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Picture:
    """A graph picture: inline SVG, and its DOT text as a data URI to take away under the name ``stem``.gv."""

    name: str
    caption: str
    stem: str
    svg: Markup
    dot: str


@dataclass(frozen=True)
class Crossing:
    """The steps of the worst path within one layer, taken together; ``sum`` is the log10 that is left after them."""

    layer: str
    line: int | None
    factor: str
    merge: str
    sum: str


@dataclass(frozen=True)
class SourceLine:
    number: int
    text: str
    kind: str  # the verdict on what stands there, or ""
    remark: str


def render(network: Network, analysis: Analysis, json_text: str, engine: str | None = None) -> str:
    """The report as text. ``json_text`` is the analysis document, which the report carries; ``engine`` is as in :func:`layout`.

    Raises EngineError where the pictures cannot be drawn.
    """
    style, scripts = _read("templates", "report.css"), [_read("vendor", "panzoom.min.js"), _read("templates", "report.js")]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_read("templates", "report.html"))
    path = analysis.verdict.worst_path
    crossings = list(_crossings(path))
    return template.render(
        analysis=analysis,
        verdict=analysis.verdict.text,
        policy=_policy(style, scripts),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        butterflies=list(_butterflies(network, analysis, engine)),
        forward=_picture("forward", "Forward diagram", forward_dot(network, analysis), analysis, engine),
        charts={view: _image(CHARTS[view](analysis, "svg")) for view in views_of(analysis) if view in CHARTS},
        crossings=crossings,
        steepest=(max if path is not None and path.gain > 0 else min)(crossings, key=lambda c: float(c.factor), default=None),
        path=path,
        columns=[column for column in COLUMNS if any(getattr(layer, column) for layer in analysis.layers)],
        layers=[_row(layer) for layer in analysis.layers],
        findings=[_said(group) for group in together(analysis.findings)],
        budgets=budgets(analysis.budgets),
        orders={vertex.name: vertex.order for vertex in layer_graph(network, analysis).vertices},
        source=_source(network.text, analysis),
        json=Markup(json_text.replace("<", "\\u003c")),
        inputs=[(given.name, shape_text(given.shape), given.role) for given in network.inputs.values()],
    )


def _read(folder: Literal["templates", "vendor"], name: str) -> str:
    return resources.files("vgcompile.render").joinpath(folder, name).read_text(encoding="utf-8")


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Nothing may load; our style and scripts are known by their hashes, images by standing in the file itself."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {hashes}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _butterflies(network: Network, analysis: Analysis, engine: str | None) -> Iterator[Picture]:
    """The folded picture, and the unfolded one where it differs and is not too big to read."""
    graph = layer_graph(network, analysis)
    folded, unfolded = folding.fold(graph), folding.fold(graph, wanted=False)
    yield _picture(
        "butterfly", "Folded" if folded != unfolded else "Butterfly", butterfly_dot(network, analysis), analysis, engine
    )
    if folded != unfolded and 2 * len(unfolded.boxes) <= UNFOLDED:
        yield _picture("butterfly-unfolded", "Unfolded", butterfly_dot(network, analysis, fold=False), analysis, engine)


def _picture(name: str, caption: str, dot: str, analysis: Analysis, engine: str | None) -> Picture:
    svg = layout(dot, "svg", engine)
    stem = f"{analysis.model}.{name}"
    summary = f"{name} of {analysis.model}: {analysis.verdict.text}. {analysis.verdict.why}"
    return Picture(name, caption, stem, Markup(inline_svg(svg, name, summary)), _data_uri("text/vnd.graphviz", dot.encode()))


def inline_svg(svg: bytes, name: str, summary: str) -> str:
    """An engine's SVG made fit for a page: no outside links, no scripts, identifiers of its own, a title and a description."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for element in list(root.iter()):
        _defuse(element)
        _titled(element)
        element.attrib.pop("font-family", None)  # said once, below
        if "id" in element.attrib:
            element.set("id", f"{name}.{element.get('id')}")
    title, description = (ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}.{tag}"}) for tag in ("title", "desc"))
    title.text, description.text = name, summary
    root[:0] = [title, description]
    root.set("font-family", f"{FONT}, Arial, sans-serif")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}.title {name}.desc")
    return ElementTree.tostring(root, encoding="unicode")


def _defuse(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag in (f"{{{SVG}}}script", f"{{{SVG}}}foreignObject", f"{{{SVG}}}image"):
            element.remove(child)
    for attribute in list(element.attrib):
        link = attribute in ("href", f"{{{XLINK}}}href") and not element.attrib[attribute].startswith("#")
        if link or attribute.lower().startswith("on"):
            del element.attrib[attribute]


def _titled(element: ElementTree.Element) -> None:
    """Graphviz titles an element by its internal name; the tip beside it says more to a reader."""
    own = element.find(f"{{{SVG}}}title")
    tip = element.find(f"{{{SVG}}}g/{{{SVG}}}a")
    if own is not None and element.tag == f"{{{SVG}}}g":
        own.text = tip.attrib.pop(f"{{{XLINK}}}title", "") if tip is not None else ""


def _image(svg: bytes) -> Markup:
    return Markup(_data_uri("image/svg+xml", svg))


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _crossings(path: Path | None) -> Iterator[Crossing]:
    left = 0.0
    for (layer, line), steps in groupby(path.steps if path else (), key=lambda step: (step.layer, step.line)):
        crossed = list(steps)
        factor, merge = sum(step.factor for step in crossed), sum(step.merge for step in crossed)
        left += factor + merge
        yield Crossing(layer, line, f"{factor:+.2f}", f"{merge:+.2f}" if abs(merge) >= 0.005 else "", f"{left:.2f}")


def _row(layer: Layer) -> dict[str, object]:
    """One layer of the table; each number as text and as what it is sorted by."""
    known = {column: tiers for column in COLUMNS if (tiers := getattr(layer, column)) is not None}
    numbers = {column: (tiers_text([tiers]), _sortable(best(tiers))) for column, tiers in known.items()}
    verdict = layer.verdict
    return {
        "name": layer.name,
        "kind": layer.kind,
        "line": layer.line,
        "numbers": numbers,
        "verdict": verdict,
        "text": verdict.text,
    }


def _said(group: Sequence[Finding]) -> dict[str, object]:
    """Findings of one rule at one place: the worst of them in full, the others by name."""
    said = worst(group)
    others = [finding.layer for finding in group if finding is not said]
    return {"finding": said, "others": listed(others), "reasons": list(reasons(said))}


def _sortable(value: float | None) -> str:
    return "" if value is None else f"{max(value, -1e9):.6f}" if math.isfinite(value) or value < 0 else "1e9"


def _source(text: str, analysis: Analysis) -> list[SourceLine]:
    """The model's text by lines; a line is marked where a layer that is not healthy or a finding of the self-check comes from."""
    remarks: dict[int, tuple[str, str]] = {}
    for place, verdicts in _verdicts_by_line(analysis).items():
        kinds = [verdict.kind for _, verdict in verdicts]
        most = max(kinds, key=kinds.count)
        names = ", ".join(name for name, _ in verdicts[:3]) + (f" and {len(verdicts) - 3} more" if len(verdicts) > 3 else "")
        remarks[place] = (most, f"{most}: {names}")
    lines_of = {edge.id: edge.line for edge in analysis.edges}
    for finding in (*analysis.self_check.deviations, *analysis.self_check.violations):
        if (line := lines_of.get(finding.edge)) is not None:
            kind, remark = remarks.get(line, ("finding", ""))
            remarks[line] = (kind, f"{remark}; {finding.message}".strip("; "))
    return [SourceLine(n, written, *remarks.get(n, ("", ""))) for n, written in enumerate(text.splitlines(), 1)]


def _verdicts_by_line(analysis: Analysis) -> dict[int, list[tuple[str, Verdict]]]:
    found: dict[int, list[tuple[str, Verdict]]] = {}
    for layer in analysis.layers:
        if layer.line is not None and layer.verdict.ill:
            found.setdefault(layer.line, []).append((layer.name, layer.verdict))
    return found
