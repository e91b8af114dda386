"""Patterns over the full names of parameters: ``*.weight``, ``hidden/*``, ``hidden/[12]/dense/bias``.

``*`` stands for anything, steps included, ``?`` for one character; ``/`` and ``.`` are one, so that names of other frameworks may
be written as they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Annotated

from pydantic import Field

Pattern = Annotated[str, Field(min_length=1)]


def matches(pattern: str, name: str) -> bool:
    return _compiled(_dotted(pattern)).fullmatch(_dotted(name)) is not None


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that some pattern takes, in their own order."""
    patterns = list(patterns)
    return [name for name in names if any(matches(pattern, name) for pattern in patterns)]


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@lru_cache(maxsize=65536)
def _dotted(name: str) -> str:
    return name.replace("/", ".")
