"""The JSON Schemas of a model file: of what is left when blocks are written out, and of what a person writes.

The first is what a file is validated by. The second, for editors, takes an expression wherever a number, a truth value or a list
may stand, and a block's own kind wherever a layer may.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from vgcompile.layers import LAYERS
from vgcompile.spec.document import Document

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_EXPRESSION = {"type": "string", "pattern": r"\$\{", "description": "an expression: ${64 * 2 ** i}"}
_CALL = {
    "type": "object",
    "title": "BlockCall",
    "description": "a block of one's own, with its parameters",
    "properties": {"kind": {"type": "string", "not": {"enum": sorted(LAYERS)}}, "name": {"type": "string"}},
    "required": ["kind"],
}
_KNOWN_KINDS = {  # of a list; a recurrent layer's `layers` is a number
    "items": {
        "properties": {"kind": {"anyOf": [{"enum": sorted(LAYERS)}, {"$ref": "#/$defs/Expression"}]}}
        | {name: {"$ref": "#/$defs/KnownKinds"} for name in ("layers", "shortcut")},
    },
}
# A kind that is none is told from a block's own where there can be no block.
_WITHOUT_BLOCKS = {
    "if": {"not": {"anyOf": [{"required": ["blocks"]}, {"required": ["include"]}]}},
    "then": {"properties": {"layers": {"$ref": "#/$defs/KnownKinds"}}},
}
_ABOUT = ("description", "default", "title")  # of a field, whatever its value


@cache
def document_schema() -> dict[str, Any]:
    """Of a model without blocks and expressions (JSON Schema 2020-12)."""
    schema = Document.model_json_schema(by_alias=True)
    return {"$schema": _DRAFT, **schema, "title": "vgcompile model"}


@cache
def editor_schema() -> dict[str, Any]:
    """Of a model as it is written."""
    schema = document_schema()
    parts = {name: _written(part) for name, part in schema["$defs"].items()}
    body = _written(schema)
    layers = body["properties"]["layers"]
    parts["BlockDefinition"]["properties"]["layers"] = layers
    own = {"Expression": _EXPRESSION, "BlockCall": _CALL, "KnownKinds": _KNOWN_KINDS}
    return {**body, **_WITHOUT_BLOCKS, "$defs": {**parts, **own}}


def _written(part: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a mapping, each with an expression for an alternative."""
    fields = part.get("properties", {})
    return {**part, **({"properties": {name: _field(value) for name, value in fields.items()}} if fields else {})}


def _field(value: Mapping[str, Any]) -> dict[str, Any]:
    return _or_expression(_with_calls(value))


def _or_expression(value: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with an expression for an alternative, and for each item of a list; strings, which may hold one, stay."""
    if "const" in value or "$ref" in value or (value.get("type") == "string" and "enum" not in value):
        return dict(value)
    about = {key: value[key] for key in _ABOUT if key in value}
    stated = {key: item for key, item in value.items() if key not in _ABOUT}
    if "items" in stated and isinstance(stated["items"], dict):
        stated["items"] = _or_expression(stated["items"])
    if "prefixItems" in stated:
        stated["prefixItems"] = [_or_expression(item) for item in stated["prefixItems"]]
    forms = [_or_expression(form) for form in stated.pop("anyOf")] if set(stated) == {"anyOf"} else [stated]
    return {"anyOf": [*forms, {"$ref": "#/$defs/Expression"}], **about}


def _with_calls(value: Any) -> Any:
    """A list of layers may hold blocks of one's own."""
    if not isinstance(value, dict):
        return value
    if "oneOf" in value and len(value.get("discriminator", {}).get("mapping", ())) == len(LAYERS):
        return {"anyOf": [*value["oneOf"], {"$ref": "#/$defs/BlockCall"}]}
    return {key: [_with_calls(item) for item in item_or_list] if isinstance(item_or_list, list) else _with_calls(item_or_list)
            for key, item_or_list in value.items()}  # fmt: skip
