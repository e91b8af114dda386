"""The canonical layout of model files: comments stay, meaning stays, and a second time changes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_models import models
from vgcompile.cli import main
from vgcompile.errors import SpecError
from vgcompile.spec import loads
from vgcompile.spec.layout import WIDTH, formatted
from vgcompile.spec.reading import read

ROOT = Path(__file__).parent.parent
MODELS = sorted([*(ROOT / "models").glob("*.yaml"), *(ROOT / "vgcompile/cli/starters").glob("*.yaml")])
CORPUS = sorted((ROOT / "tests/cases/spec").glob("*.yaml"))

MESSY = """\


# A header.

name: 'messy'   # the name

# about the layers
layers:   # all of them
  -   {units: 4,   kind: dense}  # first


  # before the second
  - name: b
    layers:
      - &a {kind: dense, units: 4, activation: {alpha: 0.5, kind: elu},
           init: {weight: {kind: variance_scaling, scale: 4.0, mode: fan_in}, bias: zeros}}
      - *a
      # - {kind: dropout}
    kind: block
  - {kind: dense, # why
     units: 3 }   # ho
  - {from: [b,
      # hm
      dense_2], kind: "concat"
     # tail
     }
# about the inputs
inputs: {x: {shape: [batch, 4], range: [0,1]}}  # an image
seed: 010
# end
"""
TIDY = """\
# A header.

name: messy  # the name
# about the inputs
inputs:  # an image
  x: {shape: [batch, 4], range: [0, 1]}

# about the layers
layers:  # all of them
  - {kind: dense, units: 4}  # first

  # before the second
  - kind: block
    name: b
    layers:
      - &a
        kind: dense
        units: 4
        activation: {kind: elu, alpha: 0.5}
        init: {weight: {kind: variance_scaling, scale: 4.0, mode: fan_in}, bias: zeros}
      - *a
      # - {kind: dropout}
  # ho
  - kind: dense  # why
    units: 3
  - kind: concat
    from:
      - b
      # hm
      - dense_2
    # tail
seed: 010
# end
"""


def test_one_of_everything() -> None:
    assert formatted(MESSY) == TIDY
    assert formatted(TIDY) == TIDY
    assert formatted(MESSY.replace("\n", "\r\n")) == TIDY


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_models_are_in_layout(path: Path) -> None:
    assert formatted(path.read_text()) == path.read_text()


def comments(text: str) -> list[str]:
    """Of a text whose strings hold no number sign."""
    return sorted(re.findall(r"#.*", text))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_whatever_is_yaml_can_be_laid_out(path: Path) -> None:
    try:
        text = path.read_bytes().decode()
        before = read(text, path.name)
    except (SpecError, UnicodeDecodeError):
        return
    if not isinstance(before.value, dict):
        return
    made = formatted(text)
    assert formatted(made) == made
    assert _content(read(made, path.name).value) == _content(before.value)
    assert len(comments(made)) == len(comments(text))
    assert all(len(line) <= WIDTH or "#" in line for line in made.splitlines())


def _content(value: Any) -> str:
    """As text, in which no number is equal to itself; the order of keys is no matter."""
    return json.dumps(value, sort_keys=True)


@settings(deadline=None, max_examples=60)
@given(models(), st.data())
def test_meaning_and_comments_of_random_models(text: str, data: st.DataObject) -> None:
    lines = text.splitlines()
    for number in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = data.draw(st.sampled_from([f"{lines[at]}  # c{number}", f"# c{number}\n{lines[at]}", f"\n\n{lines[at]}"]))
    text = "\n".join(lines)
    made = formatted(text)
    assert formatted(made) == made
    assert comments(made) == comments(text)
    before, after = loads(text), loads(made)
    assert after.document == before.document
    assert [(layer.name, layer.sources) for layer in after.layers] == [(layer.name, layer.sources) for layer in before.layers]
    assert after.outputs == before.outputs


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("'plain'", "plain"),
        ('"no"', '"no"'),  # false to a reader of YAML 1.1
        ("no", '"no"'),
        ("'12'", '"12"'),
        ("1e-3", "1e-3"),
        ("0x10", "0x10"),
        ("1_000", '"1_000"'),
        ("~", "~"),
        ("", "null"),
        ('"${64 * 2}"', '"${64 * 2}"'),
        ("'a: b'", '"a: b"'),
        ("'say: \"x\"'", "'say: \"x\"'"),
        ('"two\\nlines"', '"two\\nlines"'),
        ("''", '""'),
        ("'# no comment'", '"# no comment"'),
        (".nan", ".nan"),
    ],
)
def test_quotes_only_where_a_reader_needs_them(written: str, kept: str) -> None:
    assert formatted(f"layers: [{{kind: x, units: {written}}}]\n") == f"layers:\n  - {{kind: x, units: {kept}}}\n"


def test_outside_of_flow_style_less_needs_quotes() -> None:
    assert formatted("name: 'a, [b]'\n") == "name: a, [b]\n"


def test_an_alias_never_comes_before_its_anchor() -> None:
    text = "loss: &l {kind: mse}\nname: *l\n"
    assert formatted(text) == text


def test_what_is_no_model_is_refused_with_its_place() -> None:
    with pytest.raises(SpecError, match=r"f\.yaml:1:1: a model is a mapping"):
        formatted("- 1\n", "f.yaml")
    with pytest.raises(SpecError, match=r"f\.yaml:2:"):
        formatted("a: 1\na: 2\n", "f.yaml")


# the command


def test_fmt_writes_what_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messy, tidy = tmp_path / "messy.yaml", tmp_path / "tidy.yaml"
    messy.write_text(MESSY)
    tidy.write_text(TIDY)
    assert main(["fmt", "--check", str(messy), str(tidy)]) == 1
    assert capsys.readouterr().out == f"{messy}: not in canonical layout\n"
    assert main(["fmt", "--diff", str(messy)]) == 1
    assert "-  -   {units: 4,   kind: dense}  # first" in capsys.readouterr().out
    assert messy.read_text() == MESSY
    assert main(["fmt", str(messy), str(tidy)]) == 0
    assert capsys.readouterr().err == f"wrote {messy}\n"
    assert messy.read_text() == TIDY
    assert main(["fmt", "--check", str(messy)]) == 0


def test_fmt_leaves_alone_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text("name: [\n")
    good.write_text("seed: 0\nname: x\n")
    assert main(["fmt", str(bad), str(good), str(tmp_path / "none.yaml")]) == 2
    said = capsys.readouterr().err
    assert f"{bad}:2:1: this is not YAML" in said and "none.yaml:1:1: the file cannot be read" in said
    assert bad.read_text() == "name: [\n"
    assert good.read_text() == "name: x\nseed: 0\n"
