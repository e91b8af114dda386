"""A YAML model file -> ``Spec``, or every complaint about it at once.

    spec = load("models/deep_sigmoid.yaml")
    spec.layers[3].name, spec.layers[3].mark        # 'hidden/4/dense', models/deep_sigmoid.yaml:14:9

Every layer keeps its place in the text, so that what is found wrong with it later can name the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from vgcompile.errors import Complaint, Findings, Mark, SpecError
from vgcompile.layers.composite import Residual
from vgcompile.layers.layer import Layer
from vgcompile.rules import text as rules
from vgcompile.rules.traps import UNUSED_DEFINITION
from vgcompile.spec.complaints import complaints
from vgcompile.spec.document import Document
from vgcompile.spec.expanding import expanded
from vgcompile.spec.including import included
from vgcompile.spec.overriding import overridden
from vgcompile.spec.reading import Node, describe, read
from vgcompile.spec.schema import document_schema
from vgcompile.spec.wiring import Placed, PlacedLoss, wire

MOST_COMPLAINTS = 20


@dataclass(frozen=True)
class Spec:
    """A model as its author wrote it, checked and wired.

    ``layers`` are those that emit operators, blocks and repeats opened, each behind what it reads; ``outputs`` are the names of
    what enters a loss or, without one, of what nothing reads. ``losses`` stand in the order of the document's.
    """

    name: str
    document: Document
    layers: tuple[Placed, ...]
    losses: tuple[PlacedLoss, ...]
    outputs: tuple[str, ...]
    file: str
    text: str
    tree: Node  # blocks and expressions written out
    unused: tuple[Complaint, ...] = ()  # blocks and parameters that nothing uses
    included: Mapping[str, str] = field(default_factory=dict)  # texts of other files, by name

    def layer(self, placed: Placed) -> Layer:
        """The fields of a layer; of a residual, the sum that joins both ways."""
        part: Any = self.document
        for step in placed.path:
            part = part[step] if isinstance(step, int) else getattr(part, step)
        assert isinstance(part, Layer)
        return part.join() if isinstance(part, Residual) else part

    def mark(self, *path: str | int) -> Mark:
        """Where a value of the document stands in the text."""
        return self.tree.at(path).mark

    @property
    def marks(self) -> Mapping[str, Mark]:
        """Where each input and each layer stands, by its full name."""
        return {**self.tree.children["inputs"].keys, **{layer.name: layer.mark for layer in self.layers}}


def load(path: str | FilePath, *, variant: str | None = None, settings: Sequence[str] = ()) -> Spec:
    """Read a model file, with the values of a variant of it and with others: ``depth=50``.

    Raises SpecError with all complaints at once.
    """
    return loads(read_text(path), str(path), variant=variant, settings=settings)


def read_text(path: str | FilePath) -> str:
    """The text of a model file. Raises SpecError where there is none."""
    try:
        return FilePath(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        unreadable = Complaint(Mark(str(path), 1), f"the file cannot be read: {error.strerror}", rule=rules.UNREADABLE)
        raise SpecError([unreadable]) from None
    except UnicodeDecodeError as error:
        raise SpecError(
            [
                Complaint(
                    Mark(str(path), 1),
                    f"this is not UTF-8 text (byte {error.start})",
                    "give a .yaml or an .onnx file",
                    rules.NOT_TEXT,
                )
            ]
        ) from None


def loads(text: str, file: str = "<text>", *, variant: str | None = None, settings: Sequence[str] = ()) -> Spec:
    """Read a model from a string; ``file`` is its name in marks, and relative paths in it start from that file's folder."""
    tree = read(text, file)
    if not isinstance(tree.value, dict):
        message = f"a model is a mapping with inputs: and layers:, found {describe(tree.value)}"
        raise SpecError([Complaint(tree.mark, message, rule=rules.NO_MODEL)])
    complain = Findings()
    tree, texts = included(tree, file, complain)
    tree = overridden(tree, variant, settings, tuple(Document.model_fields), complain)
    written = expanded(tree, complain)
    blocks = tuple(tree.children["blocks"].keys) if "blocks" in tree.children else ()
    tree = written.tree
    wiring = wire(tree)
    for complaint in wiring.complaints:
        complain.add(complaint)
    try:
        document = Document.model_validate(tree.value)
    except ValidationError as error:
        for complaint in complaints(error, tree, document_schema(), blocks):
            if complaint.mark not in written.unknown:
                complain.add(complaint)
        document = None
    if document is None or complain:
        raise SpecError(capped(complain.complaints))
    name = document.name or FilePath(file).stem.strip("<>")
    unused = tuple(Complaint(mark, message, "remove it", UNUSED_DEFINITION) for mark, message in written.unused)
    return Spec(name, document, wiring.layers, wiring.losses, wiring.outputs, file, text, tree, unused, texts)


def capped(found: Sequence[Complaint]) -> list[Complaint]:
    """The first complaints by place, and at the last of them a count of the rest."""
    ordered = sorted(found, key=lambda complaint: complaint.mark)
    rest = ordered[MOST_COMPLAINTS:]
    if not rest:
        return ordered
    return [*ordered[:MOST_COMPLAINTS], replace(rest[0], message=f"and {len(rest)} more complaints from here on", hint="")]
