"""Mutations of a text, with no regard to what it means: most of what comes out is no YAML, or no model."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

ODD = (
    "", "\n", "\n\n", "\t", " ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int ", "!x ", "'", '"', "|\n", ">\n", "#",
    "---\n", "<<: *a", "%YAML 1.1\n", "? ", "null", "~", "no", "on", "yes", "true", ".nan", ".inf", "-.inf", "0x1F", "0o17",
    "010", "1_000", "12:30",
    "\x00", "\x85", "\u2028", "\ufeff", "é", "日本", "🙂", "\U0001d7d9", "${i}", "${2 ** 9}", "${", "../..",
    "a/b", "input", "loss", "sum",
)  # fmt: skip
NUMBERS = (
    "0", "-1", "1", "2", "3", "64", "1000", "100001", "2147483647", "2147483648", "1e-320", "3.5e38", "1" + "0" * 30, "0.5",
)  # fmt: skip
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")

Mutation = Callable[[str, random.Random, Sequence[str]], str]  # of a text, given others


def _odd_piece(text: str, rng: random.Random, others: Sequence[str]) -> str:
    begin = _spot(text, rng)
    return text[:begin] + rng.choice(ODD) + text[begin + rng.choice((0, 0, 1, 5, 20)) :]


def _other_character(text: str, rng: random.Random, others: Sequence[str]) -> str:
    begin = _spot(text, rng)
    return text[:begin] + chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x3000)))) + text[begin + 1 :]


def _other_word(text: str, rng: random.Random, others: Sequence[str]) -> str:
    """A word that some model has, in the place of another."""
    return _replaced(WORD, text, rng.choice(WORD.findall(rng.choice(others)) or ["a"]), rng)


def _misspelt_word(text: str, rng: random.Random, others: Sequence[str]) -> str:
    word = list(rng.choice(WORD.findall(text) or ["a"]))
    place = rng.randrange(len(word))
    word[place] = rng.choice(("", word[place] * 2, "x"))
    return _replaced(WORD, text, "".join(word), rng)


def _other_number(text: str, rng: random.Random, others: Sequence[str]) -> str:
    return _replaced(_NUMBER, text, rng.choice(NUMBERS), rng)


def _lines_moved(text: str, rng: random.Random, others: Sequence[str]) -> str:
    """A few lines copied, moved, taken out, or indented otherwise."""
    lines = text.split("\n")
    begin = rng.randrange(len(lines))
    block = lines[begin : begin + rng.randrange(1, 5)]
    kept = lines if rng.random() < 0.4 else lines[:begin] + lines[begin + len(block) :]
    place, shift = rng.randrange(len(kept) + 1), rng.choice(("", "", "  ", " ", "\t"))
    moved = [] if rng.random() < 0.3 else [shift + line if rng.random() < 0.8 else line.lstrip() for line in block]
    return "\n".join([*kept[:place], *moved, *kept[place:]])


def _spliced(text: str, rng: random.Random, others: Sequence[str]) -> str:
    """The beginning of this text, and the end of another."""
    return text[: _spot(text, rng)] + (other := rng.choice(others))[_spot(other, rng) :]


def _spot(text: str, rng: random.Random) -> int:
    return rng.randrange(len(text) + 1)


def _replaced(pattern: re.Pattern[str], text: str, new: str, rng: random.Random) -> str:
    places = [found.span() for found in pattern.finditer(text)]
    if not places:
        return text + new
    begin, end = rng.choice(places)
    return text[:begin] + new + text[end:]


TEXT: tuple[Mutation, ...] = (
    _odd_piece,
    _other_character,
    _other_word,
    _misspelt_word,
    _other_number,
    _lines_moved,
    _spliced,
)
