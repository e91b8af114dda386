"""What an editor knows of a model: the schema, the line that leads to it, and what the real language server makes of both."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.language_server import LanguageServer, NotHere, installed
from vgcompile.analysis.document import json_schema as analysis_schema
from vgcompile.layers import LAYERS
from vgcompile.spec.schema import document_schema, editor_schema

MODELS = Path(__file__).parents[1] / "models"
FILES = sorted(MODELS.glob("*.yaml"))
SCHEMA = MODELS / "vgcompile.schema.json"
MODELINE = f"# yaml-language-server: $schema=./{SCHEMA.name}"
LENET = (MODELS / "lenet.yaml").read_text()

# A good model with one thing replaced; the line that is marked, and a word of what is said.
SPOILT = [
    ("kind: flatten", "kind: flaten", "flatten"),
    ("units: 120", "untis: 120", "untis"),
    ("filters: 6", "filters: six", "integer"),
    ("reduction: mean", "reduction: average", "mean"),
    ("activation: tanh}\n  - {kind: dense, name: logits", "activation: tan}\n  - {kind: dense, name: logits", "tanh"),
    ("classes: 10", "classes: -10", "minimum"),
    ("\nlayers:", "\nlayer:", "layer"),
    ("seed: 0", "seed: 0\nsede: 0", "sede"),
]
# Where `|` stands, and some of what is offered there.
OFFERED = [
    ("kind: flatten, name: flat", "kind: |", {"dense", "conv2d", "batch_norm", "residual", "block"}),
    ("{kind: flatten, name: flat}", "kind: dense\n    |", {"units", "bias", "activation", "init", "from"}),
    ("activation: tanh}\n  - {kind: dense, name: logits", "activation: |}\n  - {kind: dense, name: logits", {"relu", "tanh"}),
    ("seed: 0", "|", {"seed", "params", "blocks", "variants"}),
    ("reduction: mean", "reduction: |", {"mean", "sum"}),
]


@pytest.mark.parametrize("schema", [document_schema(), editor_schema(), analysis_schema()], ids=["model", "editor", "analysis"])
def test_schemas_pass_their_metaschema(schema: dict[str, object]) -> None:
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_models_schema_is_the_one_that_is_printed() -> None:
    """Mended by ``make schema``."""
    assert json.loads(SCHEMA.read_text()) == editor_schema()


@pytest.mark.parametrize("model", FILES, ids=lambda model: model.stem)
def test_every_model_leads_its_editor_to_the_schema(model: Path) -> None:
    text = model.read_text()
    assert text.splitlines()[0] == MODELINE
    assert list(jsonschema.Draft202012Validator(editor_schema()).iter_errors(yaml.safe_load(text))) == []


def test_a_kind_that_is_none_is_told_from_a_block() -> None:
    layers = [{"kind": "block", "layers": [{"kind": "dense", "units": 3}, {"kind": "wide"}]}]
    model = {"inputs": {"x": {"shape": ["n", 3]}}, "layers": layers}
    validator = jsonschema.Draft202012Validator(editor_schema())
    assert not validator.is_valid(model)
    assert validator.is_valid({**model, "blocks": {"wide": {"layers": [{"kind": "relu"}]}}})
    assert validator.is_valid({**model, "include": ["blocks.yaml"]})


def test_the_language_server_agrees(request: pytest.FixtureRequest) -> None:
    assert request.config.cache is not None
    try:
        program = installed(Path(request.config.cache.mkdir("language_server")))
    except NotHere as reason:
        pytest.skip(str(reason))
    with LanguageServer(program, MODELS) as server:
        for model in FILES:
            assert server.diagnostics(model, model.read_text()) == []
        for number, (good, bad, word) in enumerate(SPOILT):
            found = server.diagnostics(MODELS / f"spoilt_{number}.yaml", replaced(good, bad))
            assert any(word in message for _, message in found), (bad, found)
            assert bad.startswith("\n") or changed_line(bad) in {line for line, _ in found}
        for number, (good, open_end, offered) in enumerate(OFFERED):
            assert server.completions(MODELS / f"open_{number}.yaml", replaced(good, open_end)) >= offered
        assert server.completions(MODELS / "kinds.yaml", replaced("kind: flatten", "kind: |")) == set(LAYERS)


def replaced(good: str, new: str) -> str:
    assert LENET.count(good) == 1
    return LENET.replace(good, new)


def changed_line(bad: str) -> int:
    """The first line, from 1, in which a spoilt model is another."""
    good = next(good for good, other, _ in SPOILT if other == bad)
    pairs = zip(LENET.splitlines(), replaced(good, bad).splitlines(), strict=False)
    return next((number for number, (one, other) in enumerate(pairs, 1) if one != other), len(LENET.splitlines()) + 1)
