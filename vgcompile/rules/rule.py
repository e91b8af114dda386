"""What a rule is: a fault that a model may have, under a code that stays the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """``failing`` is a model with this fault and no other, ``repaired`` the same one without it.

    Both are empty only where the fault is not one of a text: a file that cannot be read. ``analysed`` are the options that an
    analysis finds the fault with, of a rule that is none of reading (gradients.py).
    """

    code: str
    name: str
    meaning: str
    failing: str = ""
    repaired: str = ""
    severity: Severity = "error"
    analysed: Mapping[str, Any] = field(default_factory=dict, hash=False)


def error(code: str, name: str, meaning: str, failing: str = "", repaired: str = "") -> Rule:
    return Rule(code, name, meaning, _example(failing), _example(repaired))


def warning(code: str, name: str, meaning: str, failing: str = "", repaired: str = "") -> Rule:
    return Rule(code, name, meaning, _example(failing), _example(repaired), "warning")


def finding(code: str, name: str, meaning: str, failing: str, repaired: str, analysed: Mapping[str, Any]) -> Rule:
    """A warning of an analysis with these options."""
    return Rule(code, name, meaning, _example(failing), _example(repaired), "warning", analysed)


def _example(text: str) -> str:
    return dedent(text).lstrip("\n")
