"""What both graph pictures are made of, as DOT text: boxes for layers, the title with its verdict, the legend.

Every text is ASCII and quoted or escaped by the graphviz library and :mod:`html`; identifiers, order and attributes depend on the
drawing alone, so that the same network gives the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from textwrap import wrap

import graphviz

from vgcompile.analysis.result import Analysis
from vgcompile.render import style
from vgcompile.render.folding import Box, Drawing, Flow, title, worst
from vgcompile.render.labels import ascii_text, best, count_text, elements_text, extreme, markup, number, tiers_text
from vgcompile.render.style import Band, band


def digraph(name: str, heading: str, **attributes: str) -> graphviz.Digraph:
    """An empty top-down graph with the house's fonts; ``heading`` is an HTML-like label for its top."""
    graph = graphviz.Digraph(name)
    graph.attr(
        "graph",
        id=name,
        rankdir="TB",
        fontname=style.FONT,
        fontsize=str(style.LABEL_SIZE),
        bgcolor=style.PAPER,
        label=heading,
        labelloc="t",
        **attributes,
    )
    graph.attr(
        "node",
        fontname=style.FONT,
        fontsize=str(style.FONT_SIZE),
        color=style.FORWARD,
        fontcolor=style.INK,
        style="filled,rounded",
        fillcolor=style.PAPER,
        margin="0.12,0.05",
        height="0.3",
    )
    graph.attr("edge", fontname=style.FONT, fontsize=str(style.LABEL_SIZE), fontcolor=style.INK)
    return graph


def flow_band(flow: Flow) -> Band:
    """The class of the worst of the gains that a drawn edge stands for."""
    values = [value for gain in flow.gains if (value := best(gain)) is not None]
    return band(extreme(values) if values else None)


def flow_line(flow: Flow) -> str:
    """Solid; dashed without a certified bound; dotted without any number."""
    if all(best(gain) is None for gain in flow.gains):
        return style.ABSENT
    return style.VACUOUS if any(gain.sound.vacuous for gain in flow.gains) else "solid"


def gradient_line(flow: Flow, *further: str) -> dict[str, str]:
    """Colour, width, dashes and label of an edge that gradient flows along; ``further`` lines of text go below the tiers."""
    band = flow_band(flow)
    return {
        "color": band.stroke,
        "penwidth": str(band.width),
        "style": flow_line(flow),
        "arrowsize": "0.7" if band.width < 4 else "0.45",
        "label": beside([tiers_text(flow.gains), *further], width=band.width),
    }


def straightness(flow: Flow) -> str:
    """The weight of an edge in the layout: a chain is drawn straight, and a skip bends around it."""
    return "1" if flow.skips else "20"


def beside(texts: Iterable[str], colour: str = style.INK, width: float = 1.0) -> str:
    """A small label, a line for each text, that keeps clear of its own edge, ``width`` points wide: it stands to the right."""
    gap = round(6 + 1.8 * width)
    rows = "".join(
        f'<TR><TD WIDTH="{gap}"></TD><TD ALIGN="LEFT"><FONT COLOR="{colour}">{markup(text)}</FONT></TD></TR>'
        for text in texts
        if text
    )
    return f"<{_table(rows)}>" if rows else ""


def lines(name: str, details: Iterable[str]) -> str:
    """An HTML-like label for a box: its name in bold and smaller lines below."""
    small = "".join(f'<BR/><FONT POINT-SIZE="{style.LABEL_SIZE}">{markup(detail)}</FONT>' for detail in details if detail)
    return f"<<B>{markup(name)}</B>{small}>"


def box_label(box: Box) -> str:
    """A layer's name, below it the copies, kinds and parameters that its box stands for."""
    name, copies = title(box)
    period = len(box.members) // box.copies if box.cluster is None else 1
    kinds = " + ".join(vertex.kind for vertex in box.members[:period])
    held = count_text(sum(vertex.parameters for vertex in box.members))
    known = kinds if kinds != name else ""
    return lines(name, (copies, *wrap(", ".join(part for part in (known, held) if part), style.BOX_CHARACTERS)))


def box_identity(side: str, box: Box) -> dict[str, str]:
    """What ties the SVG element of a box to its layers: an id, a class for each layer, and their names at the pointer."""
    first, last = box.members[0], box.members[-1]
    tip = f"{first.name} ({first.kind})" if first is last else f"{first.name} .. {last.name}, {len(box.members)} layers"
    classes = " ".join(f"layer-{vertex.order}" for vertex in box.members)
    return {"id": f"{side}{box.number}", "class": classes, "tooltip": ascii_text(tip)}


def flow_identity(side: str, number: int, flow: Flow, drawing: Drawing) -> dict[str, str]:
    """The same for an edge: from where to where, the three tiers, how the elements lie."""
    ends = f"{drawing.boxes[flow.source].name} -> {drawing.boxes[flow.target].name}"
    texts = (ends, tiers_text(flow.gains), elements_text(flow.elements))
    return {"id": f"{side}{number}", "tooltip": ascii_text("  ".join(text for text in texts if text))}


def box_shape(box: Box) -> dict[str, str]:
    """The outline: by role, and a stack for whole copies."""
    return {"shape": style.SHAPES[box.members[0].role], "peripheries": "3" if box.copies > 1 and box.cluster is None else "1"}


def box_style(box: Box, analysis: Analysis | None) -> dict[str, str]:
    """Outline and fill by the class of the worst gain in the box, a heavy line around the worst layer."""
    found = worst(box.members)
    fill = band(found[1]) if found else style.UNKNOWN
    heavy = analysis is not None and analysis.verdict.ill and any(vertex.name == analysis.worst for vertex in box.members)
    outline = {"color": style.WORST, "penwidth": str(style.WORST_WIDTH)} if heavy else {}
    return {**box_shape(box), "fillcolor": fill.fill, "fontcolor": fill.text, **outline}


def worst_text(box: Box) -> str:
    """``worst hidden/0/dense: -8.5``, for a box that stands for several layers with parameters."""
    found = worst(box.members)
    return f"worst {found[0].name}: {number(found[1])}" if found and box.copies > 1 else ""


def place(graph: graphviz.Digraph, drawing: Drawing, prefix: str, draw: Callable[[graphviz.Digraph, Box], None]) -> None:
    """Draw the boxes in order, those of a folded repeat with branches on a shade of their own."""
    for cluster, boxes in groupby(drawing.boxes, key=lambda box: box.cluster):
        if cluster is None:
            for box in boxes:
                draw(graph, box)
            continue
        with graph.subgraph(name=f"cluster_{prefix}{cluster}") as frame:
            frame.attr(style="filled,rounded", color=style.SHADE, margin="10", label="")
            for box in boxes:
                draw(frame, box)


def heading(what: str, drawing: Drawing, analysis: Analysis | None, legend: str) -> str:
    """The picture's title: what it is, the verdict and the sentence behind it, the legend."""
    folded = f"   {drawing.layers} layers in {len(drawing.boxes)} boxes" if drawing.layers > len(drawing.boxes) else ""
    rows = [f'<FONT POINT-SIZE="{style.TITLE_SIZE}"><B>{markup(what)}</B></FONT>{markup(folded)}']
    if analysis is not None:
        verdict = analysis.verdict
        colour = style.VERDICTS[verdict.kind]
        rows.append(f'<FONT POINT-SIZE="{style.VERDICT_SIZE}" COLOR="{colour}"><B>{markup(verdict.text)}</B></FONT>')
        rows += [markup(line) for line in wrap(verdict.why, style.TITLE_CHARACTERS)]
        rows += [markup(f"worst layer: {analysis.worst}")] if analysis.worst and verdict.ill else []
    rows += [legend] if legend else []
    cells = "".join(f'<TR><TD ALIGN="LEFT">{row}</TD></TR>' for row in rows)
    return f"<{_table(cells, spacing=2)}>"


RECURRENCES = "Recurrent boxes: the gradient of the first step against the last one's as well; filled by the worse of the two."


def scale_legend(notes: Sequence[str], analysis: Analysis) -> str:
    """The fixed scale as a table: a line of each class's colour and width above its limits, and notes below."""
    if any(layer.through_time is not None for layer in analysis.layers):
        notes = (*notes, RECURRENCES)
    swatches = "".join(_swatch(band) for band in style.BANDS)
    names = "".join(f"<TD>{band.name}</TD>" for band in style.BANDS)
    limits = "".join(f"<TD>{_faint(_limits(band))}</TD>" for band in style.BANDS)
    below = [f'<TD COLSPAN="{len(style.BANDS)}" ALIGN="LEFT">{_faint(note)}</TD>' for note in notes]
    return _table("".join(f"<TR>{cells}</TR>" for cells in (swatches, names, limits, *below)), spacing=1)


def _swatch(band: Band) -> str:
    line = f'<TR><TD FIXEDSIZE="TRUE" WIDTH="54" HEIGHT="{max(1, round(band.width))}" BGCOLOR="{band.stroke}"></TD></TR>'
    return f'<TD FIXEDSIZE="TRUE" WIDTH="60" HEIGHT="12">{_table(line)}</TD>'


def _table(rows: str, spacing: int = 0) -> str:
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="{spacing}" CELLPADDING="{spacing}">{rows}</TABLE>'


def _faint(text: str) -> str:
    return f'<FONT COLOR="{style.FAINT}">{markup(text)}</FONT>'


def _limits(band: Band) -> str:
    if band.lo == style.BANDS[0].lo:
        return f"below {band.hi:+.0f}"
    if band.hi == style.BANDS[-1].hi:
        return f"above {band.lo:+.0f}"
    return f"{band.lo:+.0f} to {band.hi:+.0f}"
