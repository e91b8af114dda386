"""The YAML front end: what it reads, how it wires, and every complaint with its place.

A case in ``cases/spec`` states its complaints on the lines that they are about, ``# error: LINE:COLUMN: TEXT`` or
``# warning: LINE:COLUMN: TEXT``, or in a file NAME.expected where it cannot hold comments. A case without any is a good model.
"""

from __future__ import annotations

import math
import random
import re
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.digits_models import DIGITS
from vgcompile.build import build
from vgcompile.errors import Complaint, SpecError
from vgcompile.layers import LAYERS
from vgcompile.spec import MOST_COMPLAINTS, load, loads, reading
from vgcompile.spec.schema import document_schema

CASES = sorted((Path(__file__).parent / "cases" / "spec").glob("*.yaml"))
MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.yaml"))
STATED = re.compile(r"# (?:error|warning): (.*?)(?=\s*# (?:error|warning): |$)", re.MULTILINE)
WARNING = re.compile(r"(?<=:) warning\[VG\d+\]:")

HEAD = "inputs:\n  image: {shape: [batch, 64]}\n  label: {shape: [batch], type: int64, classes: 10}\nlayers:\n"
TAIL = "loss: {kind: cross_entropy, target: label}\n"


def stated(case: Path) -> list[str]:
    sidecar = case.with_suffix(".expected")
    if sidecar.exists():
        return sidecar.read_text().splitlines()
    return STATED.findall(case.read_text())


def complaints(text: str) -> tuple[Complaint, ...]:
    """What is wrong with a model; a long one is not built."""
    try:
        spec = loads(text)
        if len(spec.layers) < 60:
            build(spec)
    except SpecError as error:
        return error.complaints
    return ()


def said(case: Path) -> tuple[Complaint, ...]:
    try:
        return build(load(case)).warnings
    except SpecError as error:
        return error.complaints


def found(case: Path) -> list[str]:
    return [WARNING.sub("", str(complaint).removeprefix(f"{case}:")) for complaint in said(case)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_complaint_is_the_stated_one(case: Path) -> None:
    assert found(case) == stated(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_pure_python_reader_says_the_same(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOADER", yaml.Loader)
    places = [text.split(" ")[0] for text in found(case)]
    assert places == [text.split(" ")[0] for text in stated(case)]


# What plain scalars mean: YAML 1.2.2, section 10.3.2, and its example 10.9.
SCALARS = {
    "no": "no", "on": "on", "Yes": "Yes", "y": "y", "true": True, "False": False,
    "1e-3": 1e-3, "1e3": 1e3, "1E+3": 1e3, ".5": 0.5, "-2.": -2.0, "+12.3": 12.3, "0.": 0.0, "-0.0": -0.0,
    "010": 10, "-007": -7, "0o14": 12, "0x3A": 58, "0b11": "0b11", "1_000": "1_000", "12:30:45": "12:30:45",
    "2026-01-01": "2026-01-01", "nan": "nan", ".inf": math.inf, "-.INF": -math.inf, "~": None, "null": None, "": None,
    "e3": "e3", "1e": "1e", "0x": "0x", "'1'": "1", '"no"': "no",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=repr)
def test_scalars_are_read_by_the_core_schema(text: str, value: object) -> None:
    read = reading.read(f"k: {text}", "x").children["k"].value
    assert (type(read), read) == (type(value), value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(reading.read("k: .nan", "x").children["k"].value)


def test_marks_point_at_keys_and_values() -> None:
    tree = reading.read("a: 1\nb:\n  - {c: 2}\n  - d\n", "x")
    items = tree.children["b"]
    marks = [
        tree.keys["a"],
        tree.keys["b"],
        items.mark,
        items.children[0].mark,
        items.children[0].keys["c"],
        items.children[1].mark,
    ]
    assert [(mark.line, mark.column) for mark in marks] == [(1, 1), (2, 1), (3, 3), (3, 5), (3, 6), (4, 5)]


def test_a_number_of_many_digits_is_refused() -> None:
    with pytest.raises(SpecError, match="digits is too long"):
        loads(f"seed: {'9' * 5000}")


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = next(case for case in CASES if case.stem == "bomb").read_text()
    tracemalloc.start()
    with pytest.raises(SpecError, match="more than 200,000 values"):
        loads(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(SpecError):
        loads(opening * 100_000)


def test_complaints_are_capped_and_the_rest_counted() -> None:
    layers = "".join(f"  - {{kind: dense, unit_{index}: 1}}\n" for index in range(30))
    with pytest.raises(SpecError) as caught:
        loads(HEAD + layers + TAIL)
    complaints = caught.value.complaints
    assert len(complaints) == MOST_COMPLAINTS + 1
    assert complaints[-1].message == "and 40 more complaints from here on"
    assert list(complaints) == sorted(complaints, key=lambda complaint: complaint.mark)


def test_a_missing_file_is_one_complaint() -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml:1:1: the file cannot be read: No such file"):
        load("nowhere.yaml")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.stem)
def test_every_model_says_what_it_shows_and_builds(model: Path) -> None:
    assert model.read_text().startswith("# ")
    spec = load(model)
    network = build(spec)
    assert network.name == model.stem
    assert network.loss == "loss"
    assert network.outputs == ("logits",)
    if model in DIGITS:
        assert spec.document.model_fields_set >= {"init", "seed", "data"}, "what is run states its initial values, seed and data"


def test_a_repeat_names_its_copies() -> None:
    spec = loads(
        HEAD
        + "  - {kind: block, name: hidden, repeat: 3, layers: [{kind: dense, units: 8}, {kind: relu}, {kind: relu}]}\n"
        + TAIL
    )
    assert [layer.name for layer in spec.layers][:4] == ["hidden/1/dense", "hidden/1/relu", "hidden/1/relu_2", "hidden/2/dense"]
    assert [layer.sources for layer in spec.layers][:4] == [
        ("image",),
        ("hidden/1/dense",),
        ("hidden/1/relu",),
        ("hidden/1/relu_2",),
    ]
    assert {layer.mark.line for layer in spec.layers} == {5}


def test_a_residual_joins_both_ways() -> None:
    inner = "layers: [{kind: dense, units: 8}, {kind: relu}], shortcut: [{kind: dense, units: 8}]"
    spec = loads(HEAD + f"  - {{kind: residual, name: skip, repeat: 2, {inner}}}\n" + TAIL)
    wires = {layer.name: layer.sources for layer in spec.layers}
    assert wires == {
        "skip/1/dense": ("image",),
        "skip/1/relu": ("skip/1/dense",),
        "skip/1/shortcut/dense": ("image",),
        "skip/1/sum": ("skip/1/relu", "skip/1/shortcut/dense"),
        "skip/2/dense": ("skip/1/sum",),
        "skip/2/relu": ("skip/2/dense",),
        "skip/2/shortcut/dense": ("skip/1/sum",),
        "skip/2/sum": ("skip/2/relu", "skip/2/shortcut/dense"),
    }


def test_default_names_leave_given_ones_alone() -> None:
    spec = loads(HEAD + "  - {kind: relu}\n  - {kind: relu, name: relu_2}\n  - {kind: relu}\n" + TAIL)
    assert [layer.name for layer in spec.layers] == ["relu", "relu_2", "relu_3"]


def test_without_a_loss_the_outputs_are_what_nothing_reads() -> None:
    spec = loads("inputs: {x: {shape: [n, 4]}}\nlayers:\n  - {kind: relu, name: a}\n  - {kind: tanh, name: b, from: x}\n")
    assert spec.outputs == ("a", "b")
    network = build(spec)
    assert (network.outputs, network.loss) == (("a", "b"), None)


@given(st.integers(2, 12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_layers_stand_behind_what_they_read(size: int, rng: random.Random) -> None:
    """A random acyclic net, its layers written in a random order."""
    layers = ["  - {kind: relu, name: n0, from: image}\n"]
    ends = {"n0"}
    for index in range(1, size):
        sources = [f"n{rng.randrange(index)}" for _ in range(2)]
        layers.append(f"  - {{kind: add, name: n{index}, from: [{', '.join(sources)}]}}\n")
        ends = ends - set(sources) | {f"n{index}"}
    rng.shuffle(layers)
    end = f"  - {{kind: add, name: end, from: [image, {', '.join(sorted(ends))}]}}\n"
    spec = loads("inputs: {image: {shape: [n, 4]}}\nlayers:\n" + "".join(layers) + end)
    seen = {"image"}
    for layer in spec.layers:
        assert seen.issuperset(layer.sources)
        seen.add(layer.name)
    assert len(spec.layers) == size + 1


def _spoilt(text: str) -> st.SearchStrategy[str]:
    """``text`` with a piece of it replaced by something else."""
    place = st.integers(0, len(text))
    piece = st.one_of(
        st.text(max_size=4), st.sampled_from(["", "\n", ": ", "- ", "[", "{", "]", "}", "&a ", "*a", "!!", "'", "null", "-1"])
    )
    return st.builds(lambda a, b, new: text[: min(a, b)] + new + text[min(max(a, b), min(a, b) + 12) :], place, place, piece)


@given(
    st.one_of(st.text(), *(_spoilt(path.read_text()) for path in MODELS if path.stem in ("deep_sigmoid", "resnet20", "lenet")))
)
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_model_or_a_complaint(text: str) -> None:
    for complaint in complaints(text):
        assert complaint.message
        assert complaint.mark.line >= 1
        assert complaint.mark.column >= 1


def test_the_schema_knows_every_kind() -> None:
    schema = document_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]["layers"]["items"]["discriminator"]["mapping"]) == set(LAYERS)
    assert "from" in schema["$defs"]["Dense"]["properties"]


def test_the_examples_of_the_documentation_are_models() -> None:
    text = (Path(__file__).parents[1] / "docs" / "yaml.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    assert [complaints(example) for example in examples] == [()] * len(examples)


def test_the_documentation_names_every_kind() -> None:
    text = (Path(__file__).parents[1] / "docs" / "yaml.md").read_text()
    assert [kind for kind in LAYERS if f"`{kind}`" not in text] == []
