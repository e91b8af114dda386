"""What both graph pictures are made of, as DOT text: boxes for layers, the title with its verdict, the legend.

Every text is ASCII and quoted or escaped by the graphviz library and :mod:`html`; identifiers, order and attributes depend on the
drawing alone, so that the same network gives the same text.
"""

from __future__ import annotations

import graphviz

from vgcompile.analysis.result import Analysis
from vgcompile.render import style
from vgcompile.render.folding import Box, Drawing, Flow, title, worst
from vgcompile.render.labels import best, count_text, extreme, markup, number, tiers_text, verdict_text
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


def flow_label(flow: Flow) -> str:
    """The three tiers beside the line, set off from it by a margin."""
    text = tiers_text(flow.gains) if flow.gains else ""
    return beside(text, style.INK) if text else ""


def beside(text: str, colour: str) -> str:
    """A small label that keeps clear of its own edge: the engine sets it to the right of the line, as close as the margin allows."""
    return (
        f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR><TD WIDTH="8"></TD>'
        f'<TD><FONT COLOR="{colour}">{markup(text)}</FONT></TD></TR></TABLE>>'
    )


def box_title(box: Box) -> tuple[str, str]:
    """A box's name and, for one that stands for copies, which."""
    if box.cluster is not None:
        return box.name.rpartition("/")[2], ""
    return title(box.members, box.copies)


def box_classes(box: Box) -> str:
    """SVG classes that tie a box to the layers it stands for."""
    return " ".join(f"layer-{vertex.order}" for vertex in box.members)


def box_label(box: Box) -> str:
    """An HTML-like label: the name in bold, below it the copies, kinds and parameters."""
    name, copies = box_title(box)
    period = len(box.members) // box.copies if box.cluster is None else 1
    kinds = " + ".join(vertex.kind for vertex in box.members[:period])
    held = count_text(sum(vertex.parameters for vertex in box.members))
    known = kinds if kinds != name else ""
    lines = [line for line in (copies, ", ".join(part for part in (known, held) if part)) if line]
    small = "".join(f'<BR/><FONT POINT-SIZE="{style.LABEL_SIZE}" COLOR="{style.FAINT}">{markup(line)}</FONT>' for line in lines)
    return f"<<B>{markup(name)}</B>{small}>"


def box_shape(box: Box) -> dict[str, str]:
    return {"shape": style.SHAPES[box.members[0].role], "peripheries": "3" if box.copies > 1 and box.cluster is None else "1"}


def is_worst(box: Box, analysis: Analysis | None) -> bool:
    return analysis is not None and any(vertex.name == analysis.worst for vertex in box.members)


def worst_text(box: Box) -> str:
    """``worst hidden/0/dense: -8.5``, for a box that stands for several layers with parameters."""
    found = worst(box.members)
    return f"worst {found[0].name}: {number(found[1])}" if found and box.copies > 1 else ""


def heading(what: str, drawing: Drawing, analysis: Analysis | None, legend: str) -> str:
    """The picture's title: what it is, the verdict and the sentence behind it, the legend."""
    folded = f", {drawing.layers} layers in {len(drawing.boxes)} boxes" if drawing.layers > len(drawing.boxes) else ""
    rows = [f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="{style.TITLE_SIZE}"><B>{markup(what)}</B></FONT>{markup(folded)}</TD></TR>']
    if analysis is not None:
        verdict = analysis.verdict
        strong = f'<FONT POINT-SIZE="12"><B>{markup(verdict_text(verdict))}</B></FONT>'
        where = markup(f": {verdict.why}") if verdict.why else ""
        worst_layer = markup(f"  Worst layer: {analysis.worst}.") if analysis.worst else ""
        rows.append(f'<TR><TD ALIGN="LEFT">{strong}{where}{worst_layer}</TD></TR>')
    if legend:
        rows.append(f'<TR><TD ALIGN="LEFT">{legend}</TD></TR>')
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="2" CELLPADDING="1">{"".join(rows)}</TABLE>>'


def scale_legend(notes: tuple[str, ...]) -> str:
    """The fixed scale as a table: a line of each class's colour and width above its limits, and notes below."""
    lines = "".join(_swatch(band) for band in style.BANDS)
    names = "".join(f"<TD>{band.name}</TD>" for band in style.BANDS)
    limits = "".join(f'<TD><FONT COLOR="{style.FAINT}">{_limits(band)}</FONT></TD>' for band in style.BANDS)
    span = len(style.BANDS)
    below = "".join(f'<TR><TD COLSPAN="{span}" ALIGN="LEFT"><FONT COLOR="{style.FAINT}">{markup(note)}</FONT></TD></TR>' for note in notes)
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="1" CELLPADDING="1"><TR>{lines}</TR><TR>{names}</TR><TR>{limits}</TR>{below}</TABLE>'
    )


def _swatch(band: Band) -> str:
    line = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR><TD FIXEDSIZE="TRUE" WIDTH="54" HEIGHT="{max(1, round(band.width))}" BGCOLOR="{band.stroke}"></TD></TR></TABLE>'
    return f'<TD FIXEDSIZE="TRUE" WIDTH="60" HEIGHT="12">{line}</TD>'


def _limits(band: Band) -> str:
    if band.lo == style.BANDS[0].lo:
        return f"below {band.hi:+.0f}"
    if band.hi == style.BANDS[-1].hi:
        return f"above {band.lo:+.0f}"
    return f"{band.lo:+.0f} to {band.hi:+.0f}"
