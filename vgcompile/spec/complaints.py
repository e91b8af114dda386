"""Pydantic's findings in a person's words: each at its place in the text, with the nearest right name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vgcompile.errors import Complaint, nearest
from vgcompile.rules import fields as rules
from vgcompile.spec.reading import Node, Path, describe, plain

Schema = Mapping[str, Any]

# Words that YAML 1.1 read as truth values.
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


# What other frameworks call our kinds and fields.
_SYNONYMS = {
    "linear": "dense", "fc": "dense", "fully_connected": "dense", "conv": "conv2d", "maxpool": "max_pool",
    "maxpool2d": "max_pool", "avgpool": "average_pool", "avgpool2d": "average_pool", "batchnorm1d": "batch_norm",
    "batchnorm2d": "batch_norm", "sequential": "block", "cat": "concat", "swish": "silu", "out_features": "units",
    "out_channels": "filters", "kernel_size": "kernel", "dropout_rate": "rate", "p": "rate", "eps": "epsilon",
    "std": "sd", "xavier_normal": "glorot_normal", "xavier_uniform": "glorot_uniform", "xavier": "glorot_uniform",
    "kaiming_normal": "he_normal", "kaiming_uniform": "he_uniform", "he": "he_normal", "bce": "binary_cross_entropy",
    "l1": "mae", "l2": "mse", "nll": "cross_entropy",
}  # fmt: skip


def complaints(error: ValidationError, root: Node, schema: Schema, blocks: Sequence[str] = ()) -> list[Complaint]:
    """One complaint for each place; ``schema`` is the JSON Schema of what was validated, ``blocks`` are kinds of the model's own.

    A value that suits no member of a union is found wrong once for each member: those findings are one complaint.
    """
    findings = error.errors(include_url=False)
    places = groupby(
        findings, key=lambda found: (_path(found["loc"], root), found["loc"][-1:] if found["type"] == "missing" else ())
    )
    return [_complaint(path, list(group), root, schema, blocks) for (path, _), group in places]


def _path(location: Path, root: Node) -> Path:
    """The way through the text that a finding's location means.

    Pydantic puts the kind of a discriminated mapping, and the names of union members, into its locations: a step that repeats the
    kind of the mapping just entered is such a tag, and so is one that leads nowhere.
    """
    node, entered, path = root, True, []
    for step in location:
        kind = node.get("kind")
        is_tag = entered and kind is not None and kind.value == step
        entered = not is_tag and step in node.children
        if entered:
            path.append(step)
            node = node.children[step]
    return tuple(path)


def _complaint(path: Path, findings: Sequence[ErrorDetails], root: Node, schema: Schema, blocks: Sequence[str]) -> Complaint:
    parent = root.at(path[:-1])
    node, key = root.at(path), path[-1] if path else ""
    found, context = findings[0], findings[0].get("ctx", {})
    name = f"{key!r} " if isinstance(key, str) and key else ""
    match found["type"]:
        case "extra_forbidden":
            known = _fields(schema, found["loc"][:-1])
            listed = f"fields here: {', '.join(known)}" if known else ""
            hint = _nearest(str(key), known) or listed
            return Complaint(parent.keys[str(key)], f"unknown field {key!r}", hint, rules.UNKNOWN_FIELD)
        case "missing" if isinstance(found["loc"][-1], int):
            return Complaint(node.mark, f"{name}should be a list of more than {len(node.value)}", rule=rules.WRONG_TYPE)
        case "missing":
            lacking = node.value if isinstance(node.value, str) else node.value.get("kind") or key or "the model"
            hint = _example(node, found["loc"][-1])
            return Complaint(node.mark, f"{lacking} needs the field {found['loc'][-1]!r}", hint, rules.MISSING_FIELD)
        case "union_tag_not_found":
            return Complaint(node.mark, "the field 'kind' is missing", _one_of(_kinds(schema, found["loc"])), rules.MISSING_FIELD)
        case "union_tag_invalid":
            tag, kinds = str(context["tag"]), _kinds(schema, found["loc"])
            kinds = [*kinds, *(blocks if "block" in kinds else ())]
            hint = _nearest(tag, kinds) or _one_of(kinds)
            return Complaint((node.get("kind") or node).mark, f"unknown kind {tag!r}", hint, rules.UNKNOWN_KIND)
        case "value_error":
            return Complaint(node.mark, str(context["error"]), rule=rules.WRONG_VALUE)
        case "string_pattern_mismatch":
            mark = parent.keys[str(key)] if found["loc"][-1] == "[key]" else node.mark
            return Complaint(
                mark,
                f"{found['input']!r} is no name",
                "letters, digits, '_', '-' and '.', with a letter or '_' first",
                rules.BAD_NAME,
            )
    # A member of a union that looked at the value itself is the one that was meant.
    judged = next((finding for finding in findings if finding["type"] == "value_error"), None)
    if judged is not None:
        return Complaint(node.mark, str(judged["ctx"]["error"]), rule=rules.WRONG_VALUE)
    also = [form.get("type") for form in _at(schema, found["loc"]) if not {"enum", "const"} & set(form)]
    wanted = " or ".join(
        dict.fromkeys(
            [*(_ALSO[kind] for kind in also if kind in _ALSO and len(findings) == 1), *(_wanted(finding) for finding in findings)]
        )
    )
    hint = _reading_hint(node.value, wanted)
    if key == "repeat" and node.value == 0:
        hint = "when: leaves a layer out"
    return Complaint(node.mark, f"{name}should be {wanted}, found {describe(node.value)}", hint, rules.WRONG_TYPE)


_WANTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}


# What a validator before pydantic's own takes as well, such as a name alone for a list of one: the schema tells.
_ALSO = {"string": "a string", "boolean": "true or false"}


def _nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion: what another framework's name means here or, without one, the nearest name."""
    synonym = _SYNONYMS.get(name.lower())
    return f"did you mean {synonym!r}?" if synonym in known else nearest(name, known)


def _wanted(found: ErrorDetails) -> str:
    if found["type"] == "too_long":
        return f"a list of {found['ctx']['max_length']}"
    return _WANTED.get(found["type"]) or found["msg"].removeprefix("Input should be ")


def _reading_hint(value: object, wanted: str) -> str:
    """What to write where the text meant something else in YAML 1.1."""
    if not isinstance(value, str):
        return ""
    if wanted == "true or false" and value.lower() in _TRUTH:
        return f"YAML 1.2 reads {value} as a string: write {_TRUTH[value.lower()]}"
    if "integer" in wanted or "number" in wanted:
        bare = value.replace("_", "")
        return f"write {bare}" if isinstance(plain(bare), int | float) else ""
    return ""


def _example(node: Node, field: object) -> str:
    return f"write {{kind: {node.value}, {field}: ...}}" if isinstance(node.value, str) else ""


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"


def _fields(schema: Schema, location: Path) -> list[str]:
    """The fields that a mapping at this location may have."""
    return next((list(form["properties"]) for form in _at(schema, location) if "properties" in form), [])


def _kinds(schema: Schema, location: Path) -> list[str]:
    return next((list(form["discriminator"]["mapping"]) for form in _at(schema, location) if "discriminator" in form), [])


def _at(schema: Schema, location: Path) -> list[Schema]:
    """The parts of a JSON Schema that describe a location, union tags included: one for each form that a value there may have."""
    forms = _forms(schema, schema)
    for step in location:
        forms = [inner for form in forms for inner in _forms(schema, _inside(form, step))]
    return forms


def _inside(part: Schema, step: str | int) -> Schema:
    """What one step down is described by; empty where nothing is."""
    if "discriminator" in part:
        reference = part["discriminator"]["mapping"].get(step)
        return {} if reference is None else {"$ref": reference}
    if isinstance(step, int):
        return part.get("prefixItems", {step: None})[step] or part.get("items", {})  # type: ignore[no-any-return]
    patterns: Schema = part.get("patternProperties", {})
    others: Schema = part.get("additionalProperties") or next(iter(patterns.values()), {})
    return part.get("properties", {}).get(step) or others


def _forms(schema: Schema, part: Schema) -> list[Schema]:
    """``part`` with its reference followed, or each of its alternatives."""
    if not isinstance(part, Mapping) or not part:
        return []
    if "$ref" in part:
        return _forms(schema, schema["$defs"][part["$ref"].rsplit("/", 1)[1]])
    alternatives = part.get("anyOf")
    return [part] if alternatives is None else [form for one in alternatives for form in _forms(schema, one)]
