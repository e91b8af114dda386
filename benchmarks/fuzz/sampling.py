"""Random models from the language's own JSON Schema: every kind of layer, loss, distribution and data, every field of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from vgcompile.layers import LAYERS
from vgcompile.spec.schema import document_schema

Schema = Mapping[str, Any]

_STATED = 0.15  # how often a field that may be absent is there
_RARER = {"share": 0.1, "name": 0.5, "from": 0.5, "when": 0.3, "l1": 4.0, "l2": 4.0}
_WORDS = ("x", "y", "input", "dense", "sum", "*.weight", "float32", "model.npz", "table.csv", "x + 1", "tanh(x)")
_NAMES = ("a", "b", "c", "x", "stem", "dense", "0")
_READ = ("x", "x", "x", "x", "x", "y", "a", "input", "dense", "a/dense")
_INTEGERS = (1, 1, 2, 2, 3, 4, 8, 0, -1)
_REALS = (0.1, 0.5, 0.9, 1.0, 2.0, 1e-3)
# Inputs that some kinds of layers take: rows, sequences, pictures, volumes, and class numbers.
_INPUTS: tuple[dict[str, Any], ...] = (
    {"shape": ["batch", 8]},
    {"shape": ["batch", 4, 8]},
    {"shape": ["batch", "time", 8]},
    {"shape": ["batch", 4, 8, 8]},
    {"shape": ["batch", 2, 4, 4, 4]},
    {"shape": ["batch", 6], "type": "int64", "classes": 5},
)
_SECTIONS = ("loss", "penalty", "init", "data", "weights", "seed")


def model(rng: random.Random) -> dict[str, Any]:
    """One or two inputs, a few layers of any kinds, and some of the other sections."""
    inputs = {name: deepcopy(rng.choice(_INPUTS)) for name in ("x", "y")[: 1 + (rng.random() < 0.1)]}
    made: dict[str, Any] = {"inputs": inputs, "layers": [layer(rng) for _ in range(rng.randrange(1, 4))]}
    for name in _SECTIONS:
        if rng.random() < 0.2:
            made[name] = section(name, rng)
    return made


def layer(rng: random.Random) -> Any:
    return _Sampler(rng).value(_fields()["layers"]["items"])


def section(name: str, rng: random.Random) -> Any:
    return _Sampler(rng).value(_fields()[name])


def _fields() -> dict[str, Schema]:
    fields: dict[str, Schema] = document_schema()["properties"]
    return fields


class _Sampler:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.definitions: Mapping[str, Schema] = document_schema()["$defs"]

    def value(self, part: Schema, depth: int = 0, kind: str | None = None) -> Any:
        """A value that mostly suits a schema. ``kind`` is the tag under which a union's member was chosen."""
        if "$ref" in part:
            return self.value(self.definitions[part["$ref"].rsplit("/", 1)[1]], depth, kind)
        if "discriminator" in part:
            chosen = self.rng.choice(list(part["discriminator"]["mapping"]))
            return self.value({"$ref": part["discriminator"]["mapping"][chosen]}, depth, chosen)
        for union in ("anyOf", "oneOf"):
            if union in part:
                forms = [form for form in part[union] if form.get("type") != "null"]
                return self.value(self.rng.choice((*forms[:1], *forms)), depth, kind)  # the first is the simplest one
        if "const" in part:
            return part["const"]
        if "enum" in part:
            return self.rng.choice(part["enum"])
        match part.get("type"):
            case "object":
                return self.mapping(part, depth, kind)
            case "array":
                return self.items(part, depth)
            case "integer":
                return max(self.rng.choice(_INTEGERS), part.get("minimum", part.get("exclusiveMinimum", -2) + 1))
            case "number":
                return min(self.rng.choice(_REALS), part.get("maximum", 2.0))
            case "boolean":
                return self.rng.random() < 0.5
            case "string":
                pattern = str(part.get("pattern", ""))
                return self.rng.choice(_READ if "(/" in pattern else _NAMES if pattern else _WORDS)
        return self.rng.choice((*_INTEGERS, *_REALS, *_WORDS))

    def mapping(self, part: Schema, depth: int, kind: str | None) -> dict[str, Any]:
        stated = part.get("properties", {})
        required = part.get("required", ())
        rare = _STATED / (1 + depth)
        made = {
            name: kind if name == "kind" and kind is not None else self.value(field, depth + 1)
            for name, field in stated.items()
            if name in required or self.rng.random() < rare * _RARER.get(name, 1.0)
        }
        others = part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()), None)
        if isinstance(others, Mapping):
            made |= {self.rng.choice(("x", *_NAMES)): self.value(others, depth + 1) for _ in range(self.rng.randrange(3))}
        least = LAYERS[kind].takes[0] if kind in LAYERS else 0
        if least > 1 and "from" not in made:
            made["from"] = ["x"] * least
        return made

    def items(self, part: Schema, depth: int) -> list[Any]:
        listed = [self.value(item, depth + 1) for item in part.get("prefixItems", ())]
        if part.get("items"):
            wanted = max(part.get("minItems", 1), self.rng.choice((1, 2, 3)))
            listed += [self.value(part["items"], depth + 1) for _ in range(len(listed), wanted)]
        return listed
