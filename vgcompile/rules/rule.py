"""What a rule is: a fault that a model may have, under a code that stays the same."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """``failing`` is a model with this fault and no other, ``repaired`` the same one without it.

    Both are empty only where the fault is not one of a text: a file that cannot be read.
    """

    code: str
    name: str
    meaning: str
    failing: str = ""
    repaired: str = ""
    severity: Severity = "error"


def error(code: str, name: str, meaning: str, failing: str = "", repaired: str = "") -> Rule:
    return Rule(code, name, meaning, _example(failing), _example(repaired))


def warning(code: str, name: str, meaning: str, failing: str = "", repaired: str = "") -> Rule:
    return Rule(code, name, meaning, _example(failing), _example(repaired), "warning")


def _example(text: str) -> str:
    return dedent(text).lstrip("\n")
