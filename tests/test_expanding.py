"""Blocks, parameters, expressions, includes and variants: what they write out is what an author would have written."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vgcompile.build import build
from vgcompile.errors import SpecError
from vgcompile.spec import Spec, load, loads
from vgcompile.spec.expressions import ExpressionError, evaluate, filled
from vgcompile.spec.schema import editor_schema

INPUTS = "inputs:\n  x: {shape: [batch, 8]}\n"
ENDS = "  - {kind: dense, name: last, units: 1}\n"

# expressions

NAMES = {"i": 3, "width": 64, "rate": 0.5, "widths": (8, 16, 32), "norm": "batch", "deep": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64 * 2 ** i", 512),
        ("width / 2", 32),
        ("width / 3", 64 / 3),
        ("7 // 2 + 7 % 4", 6),
        ("-width + 1", -63),
        ("widths[i - 1]", 32),
        ("widths[-1] - widths[0]", 24),
        ("len(widths)", 3),
        ("max(1, i - 5)", 1),
        ("ceil(width / 3)", 22),
        ("sqrt(2)", math.sqrt(2)),
        ("1 / sqrt(i + 1)", 0.5),
        ("1 if i == 0 else 2", 2),
        ("norm == 'batch' and not i < 2", True),
        ("0 < i <= 3", True),
        ("'no' if norm in ['none', 'off'] else 'yes'", "yes"),
        ("[width, width * 2]", (64, 128)),
        ("round(rate * 3)", 2),
        ("deep or 1 / 0 > 1", True),
        ("pi", math.pi),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = evaluate(text, NAMES)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht", "unknown name 'widht'; did you mean 'width'?"),
        ("2 ^ i", "'^' has no meaning here; write ** for powers"),
        ("1 / 0", "'1 / 0' divides by zero"),
        ("9 ** 9 ** 9", "'9 ** 9 ** 9' is too large"),
        ("2.0 ** 5000", "'2.0 ** 5000' is too large"),
        ("(-8) ** 0.5", "the result is no real number"),
        ("norm * 2", "a number is needed, found batch"),
        ("widths[9]", "a list of 3 has no entry 9; the first is number 0"),
        ("sqtr(4)", "no function 'sqtr'; did you mean 'sqrt'?"),
        ("width width", "'width width' is no expression; such as ${64 * 2 ** i}"),
        ("", "'' is no expression; such as ${64 * 2 ** i}"),
        ("__import__('os')", "no function '__import__'; there are abs, ceil,"),
        ("norm.upper()", "'norm.upper()' has no meaning here"),
        ("[x for x in widths]", "'[x for x in widths]' has no meaning here"),
        ("(lambda: 1)()", "'(lambda: 1)()' has no meaning here"),
        ("sqrt(-1)", "'sqrt(-1)' has no value:"),
    ],
)
def test_what_has_no_value(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, NAMES)
    assert f"{caught.value.message}; {caught.value.hint}".startswith(message)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${width}", 64),
        ("stage_${i + 1}", "stage_4"),
        ("${i}x${width}", "3x64"),
        ("$${width}", "${width}"),
        ("$${a} ${i}", "${a} 3"),
        ("${deep} ${rate}", "true 0.5"),
        ("no expression $5", "no expression $5"),
    ],
)
def test_expressions_in_strings(text: str, value: Any) -> None:
    assert filled(text, NAMES) == value


@given(st.text(st.sampled_from("iwidth0123456789.+-*/%()[]<>=!,' \"^&|~:{}xyz\n\\"), max_size=40))
@settings(deadline=None, max_examples=400)
def test_any_text_has_a_value_or_a_complaint(text: str) -> None:
    for call in (evaluate, filled):
        with contextlib.suppress(ExpressionError):
            call(text, NAMES)


# what is written out


def layers(text: str, **given: Any) -> list[tuple[str, dict[str, Any]]]:
    """Name and stated fields of each layer that emits operators."""
    spec = loads(INPUTS + text, **given)
    build(spec)
    return [(layer.name, spec.layer(layer).model_dump(exclude_unset=True, exclude={"name", "kind"})) for layer in spec.layers]


def test_a_block_of_ones_own_is_its_layers() -> None:
    own = """
blocks:
  pair:
    params: {units: int, act: {type: str, default: relu, choices: [relu, tanh]}}
    layers:
      - {kind: dense, name: up, units: "${units * 2}", activation: "${act}"}
      - {kind: dense, name: down, units: "${units}"}
layers:
  - {kind: pair, name: first, units: 8}
  - {kind: pair, units: 4, act: tanh}
  - {kind: pair, units: 4}
  - {kind: dense, name: last, units: 1}
"""
    found = layers(own)
    assert [name for name, _ in found] == ["first/up", "first/down", "pair/up", "pair/down", "pair_2/up", "pair_2/down", "last"]
    assert [fields["units"] for _, fields in found] == [16, 8, 8, 4, 8, 4, 1]
    assert [fields["activation"]["kind"] for name, fields in found if name.endswith("up")] == ["relu", "tanh", "relu"]


def test_a_repeat_with_an_index_names_its_copies_as_any_repeat_does() -> None:
    same = "layers:\n  - {kind: block, name: b, repeat: 3, layers: [{kind: dense, units: 8}, {kind: relu}]}\n" + ENDS
    other = same.replace("units: 8", 'units: "${8 + 0 * i}"')
    assert layers(same) == layers(other)


def test_nested_repeats_have_an_index_each() -> None:
    text = """layers:
  - kind: block
    name: stage
    repeat: 3
    index: s
    layers:
      - {kind: block, name: b, repeat: 2, layers: [{kind: dense, name: "d${s}${i}", units: "${4 * 2 ** s + i}"}]}
"""
    found = layers(text + ENDS)
    assert [name for name, _ in found][:6] == [f"stage/{s + 1}/b/{i + 1}/d{s}{i}" for s in range(3) for i in range(2)]
    assert [fields["units"] for _, fields in found][:6] == [4, 5, 8, 9, 16, 17]


def test_a_residual_that_differs_from_copy_to_copy() -> None:
    text = """layers:
  - kind: residual
    name: r
    repeat: 2
    activation: "${'relu' if i else 'tanh'}"
    layers: [{kind: dense, units: 8}]
    shortcut: [{kind: dense, units: 8, bias: "${i == 1}"}]
"""
    found = dict(layers(text + ENDS))
    assert list(found) == ["r/1/dense", "r/1/shortcut/dense", "r/1/sum", "r/2/dense", "r/2/shortcut/dense", "r/2/sum", "last"]
    assert [found[f"r/{k}/shortcut/dense"]["bias"] for k in (1, 2)] == [False, True]
    assert [found[f"r/{k}/sum"]["activation"]["kind"] for k in (1, 2)] == ["tanh", "relu"]


def test_a_shortcut_of_which_all_is_left_out_is_the_input() -> None:
    text = """layers:
  - kind: residual
    name: r
    repeat: 2
    layers: [{kind: dense, units: 8}]
    shortcut: [{kind: dense, units: 8, when: "${i == 0}"}]
"""
    assert [name for name, _ in layers(text + ENDS)] == [
        "r/1/dense",
        "r/1/shortcut/dense",
        "r/1/sum",
        "r/2/dense",
        "r/2/sum",
        "last",
    ]


VARIED = """
params: {width: 16, depth: 2, norm: true}
variants:
  small: {width: 4, depth: 1}
  wide: {layers.hidden.layers.0.units: 32, init.weight.gain: 2.0}
init: {weight: he_normal}
layers:
  - kind: block
    name: hidden
    repeat: ${depth}
    layers:
      - {kind: dense, units: "${width}"}
      - {kind: batch_norm, when: "${norm}"}
"""


@pytest.mark.parametrize(
    ("given", "units", "norms"),
    [
        ({}, [16, 16, 1], 2),
        ({"variant": "small"}, [4, 1], 1),
        ({"variant": "wide"}, [32, 32, 1], 2),
        ({"settings": ["depth=3", "norm=false"]}, [16, 16, 16, 1], 0),
        ({"variant": "small", "settings": ["width=${2 ** 3}"]}, [8, 1], 1),
        ({"settings": ["layers.last.units=5"]}, [16, 16, 5], 2),
        ({"settings": ["layers.1.units=5"]}, [16, 16, 5], 2),
    ],
)
def test_variants_and_settings(given: dict[str, Any], units: list[int], norms: int) -> None:
    found = layers(VARIED + ENDS, **given)
    assert [fields["units"] for _, fields in found if "units" in fields] == units
    assert sum(name.endswith("batch_norm") for name, _ in found) == norms


def test_a_kind_that_is_written_alone_takes_a_field() -> None:
    spec = loads(INPUTS + VARIED + ENDS, variant="wide")
    assert spec.document.init.weight.model_dump() == {"kind": "he_normal", "gain": 2.0}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("dept=3", "--set dept=3: 'dept' is neither a field nor a parameter; did you mean 'depth'?"),
        ("depth", "--set depth: this sets nothing; write --set NAME=VALUE, such as --set depth=50"),
        ("depth=deep", "--set depth=deep: the parameter 'depth' should be int, found the string 'deep'"),
        ("layers.lost.units=3", "--set layers.lost.units=3: no item 'lost' in a list of 2; did you mean 'last'?"),
        ("seed.x=3", "--set seed.x=3: 'seed' should be an integer, found a mapping"),
        ("layers.last.unist=3", "--set layers.last.unist=3: unknown field 'unist'; did you mean 'units'?"),
        ("depth=[", "--set depth=[: this is not YAML: did not find expected node content while parsing a flow node"),
    ],
)
def test_settings_that_do_not_fit(setting: str, complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(INPUTS + VARIED + ENDS, settings=[setting])
    assert complaint in str(caught.value)


def test_an_unknown_variant() -> None:
    with pytest.raises(SpecError, match="--variant smal: unknown variant 'smal'; did you mean 'small'"):
        loads(INPUTS + VARIED + ENDS, variant="smal")


# includes


def files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "model.yaml"


def test_an_included_file_adds_its_blocks_and_keeps_its_places(tmp_path: Path) -> None:
    part = 'params: {units: 4, act: relu}\nblocks:\n  one:\n    layers:\n      - {kind: dense, units: "${units}", bias: 3}\n'
    model = "include: part.yaml\nparams: {units: 6}\n" + INPUTS + "layers:\n  - {kind: one}\n" + ENDS
    with pytest.raises(SpecError) as caught:
        load(files(tmp_path, part=part, model=model))
    (complaint,) = caught.value.complaints
    assert str(complaint) == f"{tmp_path}/part.yaml:5:48: 'bias' should be true or false, found 3"
    assert complaint.mark.origin == ("expanded from block 'one' at line 3, for line 6",)
    spec = load(files(tmp_path, part=part.replace(", bias: 3", ""), model=model))
    assert spec.layer(spec.layers[0]).model_dump()["units"] == 6


@pytest.mark.parametrize(
    ("include", "complaint"),
    [
        ("model.yaml", "files include each other in a circle: model.yaml -> model.yaml"),
        ("other.yaml", "files include each other in a circle: model.yaml -> other.yaml -> model.yaml"),
        ("none.yaml", "'none.yaml' cannot be included: No such file or directory"),
        ("https://example.org/x.yaml", "'https://example.org/x.yaml' is not a relative path"),
        ("/etc/hostname", "'/etc/hostname' is not a relative path"),
        ("[3]", "include names files, found 3"),
        ("list.yaml", "'list.yaml' holds a list of 2, not a mapping"),
    ],
)
def test_includes_that_do_not_work(tmp_path: Path, include: str, complaint: str) -> None:
    model = f"include: {include}\n" + INPUTS + "layers:\n" + ENDS
    with pytest.raises(SpecError) as caught:
        load(files(tmp_path, model=model, other="include: model.yaml\n", list="[1, 2]"))
    assert complaint in str(caught.value)


# complaints


BROKEN = """
params: {width: "${missing}"}
blocks:
  one:
    params: {units: int}
    layers: [{kind: dense, units: "${units}"}, {kind: two, units: "${units}"}]
  two:
    params: {units: int}
    layers: [{kind: one, units: "${units}"}]
  dense:
    layers: [{kind: relu}]
layers:
  - {kind: one, units: 2.5}
  - {kind: one, unist: 4}
  - {kind: dense, units: "${width * 2}"}
"""


def test_every_fault_once_and_none_that_follows_from_another() -> None:
    with pytest.raises(SpecError) as caught:
        loads(INPUTS + BROKEN + ENDS)
    found = [str(complaint).split(":", 1)[1] for complaint in caught.value.complaints]
    assert found == [
        "4:17: unknown name 'missing'; no params: here",
        "11:14: blocks hold each other in a circle: one -> two -> one; take one of the calls out",
        "12:3: 'dense' is a kind of layer already; give the block another name",
        "15:24: the parameter 'units' should be int, found 2.5",
        "16:5: block 'one' needs the parameter 'units'; write units: ...",
        "16:17: block 'one' has no parameter 'unist'; did you mean 'units'?",
    ]


def test_too_many_copies_are_refused_before_they_are_made() -> None:
    text = "layers:\n  - {kind: block, repeat: 2000000, layers: [{kind: dense, name: 'd${i}', units: 8}]}\n" + ENDS
    with pytest.raises(SpecError, match="open into more than 50,000 values"):
        loads(INPUTS + text)


def test_what_nothing_uses_is_told() -> None:
    text = "params: {used: 8, idle: 3}\nblocks: {spare: {layers: [{kind: relu}]}}\nlayers:\n  - {kind: dense, units: '${used}'}\n"
    spec: Spec = loads(INPUTS + text)
    assert [str(complaint).split(":", 1)[1] for complaint in spec.unused] == [
        "4:10: warning[VG406]: block 'spare' is never used; remove it",
        "3:19: warning[VG406]: parameter 'idle' is never read; remove it",
    ]


# the editor's schema


def test_the_editors_schema_takes_what_the_reader_takes() -> None:
    schema = editor_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted((Path(__file__).parents[1] / "models").glob("*.yaml")):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []
    assert list(validator.iter_errors(yaml.safe_load(INPUTS + VARIED + ENDS))) == []
    wrong = yaml.safe_load(INPUTS + "layers:\n  - {kind: dense, unist: 3}\n")
    assert list(validator.iter_errors(wrong))
